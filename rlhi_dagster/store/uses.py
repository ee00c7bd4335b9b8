"""Which answers of the store each asset's last materialization used.

What belongs here: recording it, and asking for it. What does not: deleting what nobody uses (``garbage.py``).

``references/<asset>/<run>-<n>.parquet`` below the store: kind, model and key of the answers, ordered by key; in the file's metadata the
run, its partitions, and the time. The first record of a run drops the asset's records of earlier runs whose partitions it repeats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from rlhi_dagster.base import seals
from rlhi_dagster.base.failures import DamagedError
from rlhi_dagster.base.owned import PARTIAL, Partial, sweep
from rlhi_dagster.store.segments import folder_name, sync_folder

_SCHEMA = pl.Schema({"kind": pl.String(), "model": pl.String(), "key": pl.String()})
_ROWS_PER_GROUP = 65_536


@dataclass(frozen=True, slots=True)
class Record:
    """One file of references.

    Attributes:
        asset: Name of the asset.
        run_id: The run that materialized it.
        partitions: Those materialized; ``None`` for an asset without.
        recorded_at: When the run said so.
        since: When the asset's run before it had said so last; ``None`` if there was none. Answers kept since then are new in this run.
        file: Where the keys are.
    """

    asset: str
    run_id: str
    partitions: tuple[str, ...] | None
    recorded_at: datetime
    since: datetime | None
    file: Path


def record(root: Path, asset: str, partitions: Sequence[str] | None, run_id: str, uses: Mapping[tuple[str, str], Sequence[str]]) -> Path:
    """Note that a materialization used answers.

    Args:
        root: Folder of the whole store.
        asset: Name of the asset.
        partitions: Those that are materialized; ``None`` for an asset without.
        run_id: Of the run; it may record more than once.
        uses: Keys by kind of answer and ``ModelRef.identity``.

    Returns:
        The file written.
    """
    for broken in damaged(root, asset):  # the asset says now what it uses
        broken.unlink(missing_ok=True)
    earlier = list(_records(root, asset))
    own = [each for each in earlier if each.run_id == run_id]
    others = [each for each in earlier if each.run_id != run_id]
    since = own[0].since if own else max((each.recorded_at for each in others), default=None)
    told = {
        "run_id": run_id,
        "partitions": json.dumps(None if partitions is None else list(partitions)),
        "recorded_at": datetime.now(UTC).isoformat(),
        "since": "" if since is None else since.isoformat(),
    }
    file = _write(root / "references" / asset, run_id, _frame(uses), told)
    if not own:
        for each in others:
            if _repeats(partitions, each.partitions):
                each.file.unlink(missing_ok=True)
        sync_folder(file.parent)
    return file


def kinds(root: Path) -> set[str]:
    """Kinds of answers that any record names."""
    files = _files(root)
    return set(pl.scan_parquet(files).select(pl.col("kind").unique()).collect()["kind"]) if files else set()


def referenced(root: Path, kind: str, model: str) -> pl.Series:
    """Distinct keys of a kind and model (identity or folder name) that some asset's last materialization used."""
    files = _files(root)
    if not files:
        return pl.Series("key", [], dtype=pl.String())
    rows = pl.scan_parquet(files).filter(kind=kind, model=folder_name(model))
    return rows.select(pl.col("key").unique()).collect()["key"]


def assets_of(root: Path, key: str) -> list[Record]:
    """Records that name a key."""
    return [each for each in _records(root) if pl.scan_parquet(each.file).filter(key=key).select(pl.len()).collect().item()]


def last_run(root: Path, asset: str) -> tuple[list[Record], pl.DataFrame]:
    """Records of an asset's last run, and the kind, model and key of the answers that it used; nothing if there is none."""
    records = list(_records(root, asset))
    if not records:
        return [], pl.DataFrame(schema=_SCHEMA)
    last = max(records, key=lambda each: each.recorded_at).run_id
    own = [each for each in records if each.run_id == last]
    return own, pl.concat([pl.read_parquet(each.file) for each in own]).unique(maintain_order=True)


def without(root: Path, keys: pl.Series) -> int:
    """Take keys out of every record; how many entries went. Each file is replaced at once; a run's own times and partitions stay."""
    gone = 0
    for file in _files(root):
        try:
            _check([file])
            entries, told = pl.read_parquet(file), pq.read_metadata(file).metadata
        except FileNotFoundError:  # its asset's next run dropped it
            continue
        kept = entries.filter(~pl.col("key").is_in(keys.implode()))
        if len(kept) < len(entries):
            names = ("run_id", "partitions", "recorded_at", "since")
            _replace(file, kept, {name: told[name.encode()].decode() for name in names})
            gone += len(entries) - len(kept)
    return gone


def _replace(file: Path, frame: pl.DataFrame, told: dict[str, str]) -> None:
    partial = Partial(file)
    try:
        _synced(partial.path, frame, told)
        partial.path.replace(file)
    finally:
        partial.close()
    sync_folder(file.parent)


def _synced(file: Path, frame: pl.DataFrame, told: dict[str, str]) -> None:
    with file.open("r+b") as stream:
        frame.write_parquet(stream, compression="zstd", row_group_size=_ROWS_PER_GROUP, metadata=told | seals.UNSEALED)
        seals.seal(stream)
        os.fsync(stream.fileno())


def _frame(uses: Mapping[tuple[str, str], Sequence[str]]) -> pl.DataFrame:
    parts = [
        pl.DataFrame({"key": pl.Series(keys, dtype=pl.String())}).select(
            pl.lit(kind).alias("kind"), pl.lit(folder_name(model)).alias("model"), "key"
        )
        for (kind, model), keys in uses.items()
    ]
    return pl.concat([pl.DataFrame(schema=_SCHEMA), *parts]).unique().sort("key", "kind", "model")


def _write(folder: Path, run_id: str, frame: pl.DataFrame, told: dict[str, str]) -> Path:
    sweep([*folder.glob(PARTIAL), *folder.glob("*.partial")])
    partial = Partial(folder / run_id)
    try:
        _synced(partial.path, frame, told)
        number = 0
        while True:
            file = folder / f"{run_id}-{number}.parquet"
            try:
                # A link, not a rename: it never takes the place of what another process wrote.
                file.hardlink_to(partial.path)
            except FileExistsError:
                number += 1
            else:
                break
    finally:
        partial.close()
    sync_folder(folder)
    return file


def _repeats(partitions: Sequence[str] | None, earlier: Sequence[str] | None) -> bool:
    if earlier is None or partitions is None:
        return partitions is None
    return set(earlier) <= set(partitions)


def _files(root: Path) -> list[Path]:
    files = sorted((root / "references").glob("*/*.parquet"))
    _check(files)
    return files


def damaged(root: Path, asset: str = "*") -> dict[Path, DamagedError]:
    """Records, of one asset or of all, that are not as they were written, and what is to be told of them."""
    found = {}
    for file in sorted((root / "references").glob(f"{asset}/*.parquet")):
        try:
            _check([file])
        except DamagedError as error:
            found[file] = error
        except FileNotFoundError:  # its asset's next run dropped it
            continue
    return found


def _check(files: Sequence[Path]) -> None:
    try:
        seals.check_all(files)
    except seals.BrokenFileError as error:
        told = f"{error.file}, which says what answers {error.file.parent.name} uses, is damaged: {error}"
        raise DamagedError(told, error.file.parent.name) from error


def _records(root: Path, asset: str = "*") -> Iterator[Record]:
    for file in sorted((root / "references").glob(f"{asset}/*.parquet")):
        try:
            _check([file])
            metadata = pq.read_metadata(file).metadata
        except FileNotFoundError:  # its asset's next run dropped it
            continue
        told = {name: metadata[name.encode()].decode() for name in ("run_id", "partitions", "recorded_at", "since")}
        partitions = json.loads(told["partitions"])
        yield Record(
            asset=file.parent.name,
            run_id=told["run_id"],
            partitions=None if partitions is None else tuple(partitions),
            recorded_at=datetime.fromisoformat(told["recorded_at"]),
            since=datetime.fromisoformat(told["since"]) if told["since"] else None,
            file=file,
        )
