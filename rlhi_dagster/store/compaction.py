"""Compaction: many small segments become few large ones, each key is kept once, answered errors go.

What belongs here: what is merged, and replacing segments by others without losing a row or disturbing readers. What does not: which
rows are garbage (``garbage.py``, which uses the same replacement).

Order of a replacement, under the folder's lock: the new segments appear, the old ones are deleted, the newest first. Killed at any moment,
every row is there at least once, the answer that counts is the same, and the next compaction removes what is there twice. It needs as
much free disk as what it merges.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rlhi_dagster.base.owned import sweep
from rlhi_dagster.store.search import of, search
from rlhi_dagster.store.segments import (
    ERRORS,
    FINAL,
    SCHEMAS,
    listing,
    new_name,
    opened,
    read_columns,
    stored_schema,
    sync_folder,
    write_segment,
)

MAX_ROWS, MAX_BYTES = 256_000, 256 * 2**20
"""Of a merged segment; bytes before compression, so that a merge fits into memory."""
PARTIALS = "*.partial"
"""Segments that are being written, or that a killed writer left behind."""
LOCK = "lock"
OLD_INDEX = "index.arrow"
"""Where a store of an earlier version kept which key lies where; nothing reads it, and every replacement of segments removes it."""
Tell = Callable[[int, int], None]
Dead = Mapping[str, np.ndarray]
"""Numbers of rows to leave out, by segment."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction of a folder did.

    Attributes:
        folder: Of one kind and model.
        segments_before: Files.
        segments_after: Files.
        repeated_rows: Answers removed because the same key had an older one.
        error_rows: Errors of the moment removed because their keys have an answer or a newer error.
        partial_files: What killed writers left behind, removed.
    """

    folder: Path
    segments_before: int
    segments_after: int
    repeated_rows: int
    error_rows: int
    partial_files: int


def folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Kind and folder of every model in a store."""
    for kind in SCHEMAS:
        for folder in sorted((root / kind).glob("*/")):
            yield kind, folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for the lock of a folder and hold it: whoever adds to its segments or takes from them, other than by ``append``, does.

    The kernel lets go of it when its holder ends, however that happens.
    """
    with (folder / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compact(folder: Path, kind: str, tell: Tell = lambda *_: None) -> Compaction:
    """Compact one model's folder; waits for the lock. Others may read and append meanwhile.

    Raises:
        DamagedSegmentError: A segment cannot be read; nothing was deleted.
    """
    with locked(folder):
        partial_files = sweep(folder.glob(PARTIALS))
        names, errors = listing(folder, FINAL), listing(folder, ERRORS)
        dead = _repeated(folder, kind, names)
        replace(folder, kind, FINAL, _groups(folder, names, dead), dead, tell)
        answered = _superseded(folder, kind, errors)
        replace(folder, kind, ERRORS, _groups(folder, errors, answered), answered, tell)
        after = len(listing(folder, FINAL)) + len(listing(folder, ERRORS))
    counts = [sum(map(len, rows.values())) for rows in (dead, answered)]
    return Compaction(folder, len(names) + len(errors), after, counts[0], counts[1], partial_files)


def replace(folder: Path, kind: str, prefix: str, groups: Sequence[Sequence[str]], dead: Dead, tell: Tell = lambda *_: None) -> None:
    """Write each group of segments as one without its dead rows, then delete the group; the lock is held."""
    (folder / OLD_INDEX).unlink(missing_ok=True)
    for done, group in enumerate(groups, 1):
        parts = [_alive(read_columns(folder / name, kind, stored_schema(kind).names()), dead.get(name)) for name in group]
        rows = pl.concat(parts).sort("key")
        if len(rows):
            write_segment(folder / new_name(folder, prefix, like=folder / group[-1]), rows)
        tell(done, len(groups))
    gone = {name for group in groups for name in group}
    if not gone:
        return
    # The newest goes first: as long as one is there that repeats a key, so is the older one whose answer counts.
    for name in sorted(gone, reverse=True):
        (folder / name).unlink()
    sync_folder(folder)


def _alive(rows: pl.DataFrame, dead: np.ndarray | None) -> pl.DataFrame:
    if dead is None:
        return rows
    is_alive = np.ones(len(rows), bool)
    is_alive[dead] = False
    return rows.filter(pl.Series(is_alive))


def _groups(folder: Path, names: Sequence[str], dead: Dead) -> list[list[str]]:
    """Segments to write anew: neighbours in time, so that answers of one run stay together; each that has dead rows."""
    groups: list[list[str]] = []
    rows = size = 0
    for name in names:
        with opened(folder / name) as parquet:
            metadata = parquet.metadata
            its_rows, its_size = metadata.num_rows, sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
        is_large = its_rows > MAX_ROWS // 2 or its_size > MAX_BYTES // 2
        if is_large:
            groups += [[name]] if name in dead else []
        elif not groups or rows + its_rows > MAX_ROWS or size + its_size > MAX_BYTES:
            groups.append([name])
            rows, size = its_rows, its_size
        else:
            groups[-1].append(name)
            rows, size = rows + its_rows, size + its_size
    return [group for group in groups if len(group) > 1 or group[0] in dead]


def _repeated(folder: Path, kind: str, names: Sequence[str]) -> Dead:
    """Rows whose key an older segment has too. Hashes are compared first, at 8 bytes a key; few keys are left to compare whole."""
    hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *(_keys(folder / name, kind).hash().to_numpy() for name in names)]))
    repeating = pl.Series(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
    if not len(repeating):
        return {}
    parts = [_places(folder / name, kind).filter(pl.col("key").hash().is_in(repeating.implode())) for name in names]
    return _by_segment(pl.concat(parts).filter(~pl.col("key").is_first_distinct()))


def _superseded(folder: Path, kind: str, names: Sequence[str]) -> Dead:
    """Errors whose key has a final answer, or a newer error."""
    if not names:
        return {}
    places = pl.concat([_places(folder / name, kind) for name in names[::-1]])
    answered = search(folder, kind, FINAL, of(places["key"]))["key"]
    return _by_segment(places.filter(pl.col("key").is_in(answered.implode()) | ~pl.col("key").is_first_distinct()))


def _keys(file: Path, kind: str) -> pl.Series:
    return read_columns(file, kind, ["key"])["key"]


def _places(file: Path, kind: str) -> pl.DataFrame:
    return _keys(file, kind).to_frame().with_row_index("row").with_columns(segment=pl.lit(file.name))


def _by_segment(places: pl.DataFrame) -> Dead:
    return {str(name): rows["row"].to_numpy() for (name,), rows in places.group_by("segment")}
