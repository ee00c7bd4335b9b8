"""``rlhi export``: the run's tables for SQL, and its preference pairs in the layouts that other trainers read.

What belongs here: choosing the pairs, the layouts, and putting an output in its place at once. What does not: the card of a dataset
folder (``dataset_card.py``), and which pairs there are (``preferences/``, ``training/pair_sets.py``).

Only kept pairs are exported. User fingerprints and times stay behind; ids of turns and of model calls go along.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl

from rlhi_dagster import dataset_card
from rlhi_dagster.lake import Lake
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.preferences import Source
from rlhi_dagster.tables import MESSAGES
from rlhi_dagster.training import recipes
from rlhi_dagster.training.pair_sets import drawn_sets

if TYPE_CHECKING:
    from rlhi_dagster.profiles import Profile

SPLITS = ("train", "validation")
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
"""``from`` by role, as LLaMA-Factory reads it without further settings."""


class Format(StrEnum):
    """Layout of an export."""

    DUCKDB = "duckdb"
    """Every table of the run in one DuckDB file."""
    TRL = "trl"
    """JSON lines in TRL's conversational preference layout."""
    SHAREGPT = "sharegpt"
    """JSON lines in the ShareGPT layout for preferences."""
    HUGGINGFACE = "huggingface"
    """A dataset folder: Parquet by split, and a card."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pairs.

    Attributes:
        recipe: The pairs that this recipe trains and validates on, with the persona where it shows it.
        source: All kept pairs of a source, with the persona; without either all kept pairs.
        split: One split; ``None`` for the layout's own choice.
    """

    recipe: str | None = None
    source: Source | None = None
    split: str | None = None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export`` to the ``rlhi`` command."""
    parser = commands.add_parser(
        "export",
        help="write the tables for SQL, or the preference pairs for a trainer",
        description="Write every table of the run into one DuckDB file, or its kept preference pairs in a layout that trainers read: "
        "docs/pairs.md.",
        epilog="Examples: rlhi export rlhi.duckdb; rlhi export pairs.jsonl --format trl --recipe dpo_rewrites; "
        "rlhi export folder --format huggingface --source rewards.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the file; with --format huggingface the folder")
    parser.add_argument(
        "--format",
        choices=[layout.value for layout in Format],
        default=Format.DUCKDB.value,
        help="duckdb (default): all tables; trl: JSON lines of prompt, chosen and rejected as messages; sharegpt: JSON lines as "
        "LLaMA-Factory reads them; huggingface: a dataset folder with a card",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--recipe", metavar="NAME", help="the pairs that this recipe trains and validates on, with the persona as it shows it"
    )
    which.add_argument("--source", choices=[source.value for source in Source], help="all kept pairs of a source, with the persona")
    parser.add_argument("--split", choices=SPLITS, help="one split; JSON lines: train if not given, huggingface: both")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")


def run(given: argparse.Namespace, lake: Lake, profile: Profile) -> str:
    """What the command line asks for; returns what came out."""
    selection = Selection(given.recipe, Source(given.source) if given.source else None, given.split)
    return export(given.out, Format(given.format), selection, lake, profile, force=given.force)


def export(out: Path, layout: Format, selection: Selection, lake: Lake, profile: Profile, *, force: bool = False) -> str:
    """Write an export aside, then put it in its place; return what came out, in a line.

    Raises:
        ValueError: The output is there already, nothing is selected, or the selection does not go with the layout.
    """
    _check_place(out, layout, force=force)
    if layout is Format.DUCKDB:
        if selection != Selection():
            raise ValueError("format duckdb writes every table: it takes no --recipe, --source or --split; give --format trl, for example")
        return f"{out}: {', '.join(lake.export_duckdb(out))}"
    pairs = lake.scan("preference_pairs").collect()
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
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if layout is Format.HUGGINGFACE:
            _write_folder(partial, {split: rows for split, rows in chosen.items() if len(rows)}, selection, lake, profile)
        else:
            _write_lines(partial, chosen[split], layout)
        _put(partial, out)
    finally:
        _remove(partial)
    return f"{out}: {', '.join(f'{n:,} {split} pairs' for split, n in counts.items())}"


def selected(pairs: pl.DataFrame, selection: Selection, profile: Profile) -> dict[str, pl.DataFrame]:
    """The selected pairs by split: ``split`` and ``dataset_card.COLUMNS``, with the persona in the prompt where it is shown.

    Raises:
        ValueError: There is no such recipe, or it trains on no pairs.
    """
    kept = pairs.filter("is_kept").select("split", *dataset_card.COLUMNS)
    if selection.recipe is None:
        found = kept if selection.source is None else kept.filter(pl.col("source") == selection.source.value)
        shown = [with_persona(row["prompt"], row["persona"]) for row in found.select("prompt", "persona").iter_rows(named=True)]
        placed = found.with_columns(prompt=pl.Series(shown, dtype=MESSAGES))
        return {split: placed.filter(pl.col("split") == split) for split in SPLITS}
    arms = {name: recipes.load(name) for name in sorted({*recipes.names(), selection.recipe})}
    if arms[selection.recipe].source is None:
        raise ValueError(
            f"recipe {selection.recipe} trains on no pairs; give one of {', '.join(n for n, arm in arms.items() if arm.source)}"
        )
    drawn = drawn_sets(pairs, arms, profile.max_pairs, profile.validation_fraction, profile.seed)[selection.recipe]
    return {
        split: rows.select("pair_id", "prompt").join(kept.drop("prompt"), on="pair_id", maintain_order="left").select(kept.columns)
        for split, rows in drawn.by_split.items()
    }


def trl_rows(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows in TRL's conversational preference layout with explicit prompts."""
    for row in rows.iter_rows(named=True):
        sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
        yield {"pair_id": row["pair_id"], "source": row["source"], "prompt": row["prompt"], **sides}


def sharegpt_rows(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows in the ShareGPT layout for preferences.

    Raises:
        ValueError: A message has a role that the layout does not know; the message names the pair.
    """
    for row in rows.iter_rows(named=True):
        unknown = {message["role"] for message in row["prompt"]} - set(SHAREGPT_ROLES)
        if unknown:
            raise ValueError(
                f"pair {row['pair_id']} has a message of role {', '.join(sorted(unknown))}; ShareGPT knows system, user, assistant"
            )
        turns = [{"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]} for message in row["prompt"]]
        sides = {side: {"from": "gpt", "value": row[side]} for side in ("chosen", "rejected")}
        yield {"pair_id": row["pair_id"], "source": row["source"], "conversations": turns, **sides}


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
