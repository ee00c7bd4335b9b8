"""Compaction: many small segments become few large ones, each key is kept once, answered errors go.

What belongs here: what is merged, and replacing segments by others without losing a row or disturbing readers. What does not: which
rows are garbage (``garbage.py``, which uses the same replacement).

Order of a replacement, under the folder's lock: the new segments appear, the index takes them up, the old ones are deleted. Killed at any
moment, every row is there at least once, and the next compaction removes what is there twice. It needs as much free disk as what it merges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rlhi_dagster.store.folding import locked, refresh, segment_keys
from rlhi_dagster.store.index import Entries, Index, find
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
PARTIAL_SECONDS = 3600
"""A ``.partial`` file that old has no writer any more."""
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


def compact(folder: Path, kind: str, tell: Tell = lambda *_: None) -> Compaction:
    """Compact one model's folder; waits for the lock. Others may read and append meanwhile.

    Raises:
        DamagedSegmentError: A segment cannot be read; nothing was deleted.
    """
    with locked(folder):
        partial_files = _sweep(folder)
        names, errors = listing(folder, FINAL), listing(folder, ERRORS)
        index = refresh(folder, names)
        dead = _repeated(index)
        replace(folder, kind, FINAL, _groups(folder, names, dead), dead, tell)
        answered = _superseded(folder, errors, index)
        replace(folder, kind, ERRORS, _groups(folder, errors, answered), answered, tell)
        after = len(listing(folder, FINAL)) + len(listing(folder, ERRORS))
    counts = [sum(map(len, rows.values())) for rows in (dead, answered)]
    return Compaction(folder, len(names) + len(errors), after, counts[0], counts[1], partial_files)


def replace(folder: Path, kind: str, prefix: str, groups: Sequence[Sequence[str]], dead: Dead, tell: Tell = lambda *_: None) -> None:
    """Write each group of segments as one without its dead rows, then delete the group; the lock is held."""
    for done, group in enumerate(groups, 1):
        parts = [_alive(read_columns(folder / name, kind, stored_schema(kind).names()), dead.get(name)) for name in group]
        rows = pl.concat(parts).sort("key")
        if len(rows):
            write_segment(folder / new_name(prefix, like=folder / group[-1]), rows)
        tell(done, len(groups))
    gone = {name for group in groups for name in group}
    if not gone:
        return
    if prefix == FINAL:
        refresh(folder, [name for name in listing(folder, FINAL) if name not in gone])
    for name in gone:
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


def _repeated(index: Index) -> dict[str, np.ndarray]:
    """Rows whose key an older segment has too, by segment. The index writes all entries of a key into one batch."""
    found: list[Entries] = []
    for batch in index.batches:
        again = np.flatnonzero((batch.hi[1:] == batch.hi[:-1]) & (batch.lo[1:] == batch.lo[:-1])) + 1
        found.append(batch[again])
        index.release()
    return by_segment(Entries.joined(found), index.segments)


def _superseded(folder: Path, names: Sequence[str], index: Index) -> dict[str, np.ndarray]:
    """Errors whose key has a final answer, or a newer error, by segment."""
    entries = Entries.joined([Entries.of(segment_keys(folder / name), number) for number, name in enumerate(names[::-1])]).sorted()
    is_answered = index.find(entries.hi, entries.lo)[0] >= 0
    is_older = find(entries, entries.hi, entries.lo) != np.arange(len(entries))
    return by_segment(entries[is_answered | is_older], names[::-1])


def by_segment(entries: Entries, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of entries, by the name of their segment."""
    order = np.argsort(entries.segment, kind="stable")
    numbers, starts = np.unique(entries.segment[order], return_index=True)
    rows = np.split(entries.row[order].astype(np.int64), starts[1:])
    return {names[number]: chosen for number, chosen in zip(numbers.tolist(), rows, strict=False)}


def _sweep(folder: Path) -> int:
    old = [file for file in folder.glob("*.partial") if time.time() - file.stat().st_mtime > PARTIAL_SECONDS]
    for file in old:
        file.unlink()
    return len(old)
