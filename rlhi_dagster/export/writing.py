"""Writing an export aside, and putting it in its place at once.

What belongs here: files and folders. What does not: what is in them (``selection.py``, ``dataset_card.py``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import polars as pl

from rlhi_dagster.base import exports
from rlhi_dagster.base.lake import OURS, Lake, check_writable
from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.export import SPLITS, Format, dataset_card
from rlhi_dagster.export.selection import Selection, offered, selected, sharegpt_rows, trl_rows
from rlhi_dagster.training import recipes

if TYPE_CHECKING:
    from rlhi_dagster.profiles import Profile


def export(out: Path, layout: Format, selection: Selection, lake: Lake, profile: Profile, *, force: bool = False) -> str:
    """Write an export aside, then put it in its place; return what came out, in a line.

    Raises:
        ValueError: The output is there already or cannot be written, there is no table, nothing is selected, or the selection does not go
            with the layout.
    """
    _check_place(out, layout, force=force)
    check_writable(out)
    if layout is Format.DUCKDB:
        if selection != Selection():
            raise ValueError("format duckdb writes every table: it takes no --recipe, --source or --split; give --format trl, for example")
        written = f"{out}: {', '.join(lake.export_duckdb(out))}"
        exports.note(Path(lake.root).parent, out)
        return written
    method = recipes.load(selection.recipe, profile.recipes).method if selection.recipe else None
    if method == "sdpo":
        raise ValueError(
            f"recipe {selection.recipe} has replies with follow-ups and no pairs: they are in the table follow_up_examples, which "
            "--format duckdb writes"
        )
    if method == "kto" and layout is not Format.TRL:
        raise ValueError(f"recipe {selection.recipe} has examples with one reply each and no pairs: give --format trl")
    pairs = offered(lake, selection.recipe, profile.recipes)
    chosen = selected(pairs, selection, profile)
    if layout is Format.HUGGINGFACE:
        chosen = chosen if selection.split is None else {selection.split: chosen[selection.split]}
    else:
        split = selection.split or "train"
        chosen = {split: chosen[split]}
    counts = {split: len(rows) for split, rows in chosen.items()}
    if not any(counts.values()):
        kept = dict(pairs.filter("is_kept").group_by("source").len().sort("source").iter_rows())
        raise ValueError(f"no pair is selected; kept pairs by source: {', '.join(f'{name} {n:,}' for name, n in kept.items()) or 'none'}")
    partial = out.with_name(f".{out.name}.{uuid4().hex}.partial")
    try:
        if layout is Format.HUGGINGFACE:
            _write_folder(partial, {split: rows for split, rows in chosen.items() if len(rows)}, selection, lake, profile)
        else:
            _write_lines(partial, chosen[split], layout)
        _put(partial, out)
        exports.note(Path(lake.root).parent, out)
    finally:
        _remove(partial)
    return f"{out}: {', '.join(f'{n:,} {split} pairs' for split, n in counts.items())}"


def _write_lines(file: Path, rows: pl.DataFrame, layout: Format) -> None:
    laid_out = trl_rows(rows) if layout is Format.TRL else sharegpt_rows(rows)
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in laid_out)


def _write_folder(folder: Path, chosen: Mapping[str, pl.DataFrame], selection: Selection, lake: Lake, profile: Profile) -> None:
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    said = [
        pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.col(side))).cast(MESSAGES).alias(side)
        for side in ("chosen", "rejected")
    ]
    shares = []
    for split, rows in chosen.items():
        file = folder / dataset_card.file_of(split)
        table = rows.drop("split").with_columns(said).select(dataset_card.COLUMNS).to_arrow().cast(dataset_card.schema())
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **OURS})
        pq.write_table(table, file, compression="zstd", row_group_size=1000)
        shares.append(dataset_card.Share(split, rows, table.nbytes, file.stat().st_size))
    (folder / "README.md").write_text(dataset_card.card(shares, selection.recipe, lake, profile), encoding="utf-8")


def _check_place(out: Path, layout: Format, *, force: bool) -> None:
    is_folder = layout is Format.HUGGINGFACE
    if not out.exists():
        return
    if out.is_dir() != is_folder:
        raise ValueError(
            f"{out} is a {'folder' if out.is_dir() else 'file'}, and format {layout} writes a {'folder' if is_folder else 'file'}"
        )
    if not force:
        raise ValueError(f"{out} is there already; give another name, or --force to replace it")
    foreign = [path for path in out.rglob("*") if is_folder and not _is_ours(path.relative_to(out))]
    if foreign:
        raise ValueError(f"{out} holds {foreign[0].relative_to(out)}, which no export writes; it is not replaced")


def _is_ours(path: Path) -> bool:
    return path in {Path("README.md"), Path("data"), *(Path(dataset_card.file_of(split)) for split in SPLITS)}


def _put(partial: Path, out: Path) -> None:
    """Give the output its name; a folder that is there goes aside first, for folders cannot be replaced at once."""
    if not out.is_dir():
        partial.replace(out)
        return
    old = partial.with_suffix(".old")
    out.rename(old)
    partial.rename(out)
    shutil.rmtree(old)


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
