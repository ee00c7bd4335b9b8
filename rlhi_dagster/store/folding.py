"""Making the index: entries of many segments merged into one sorted file, in bounded memory.

What belongs here: the lock of a folder, the merge, and when a merge is due. What does not: searching (``index.py``).

The merge takes sorted runs (the index there is, and what the new segments add, two million entries at a time) and writes them part by
part of the key space. Whoever adds to or takes from a folder's segments other than by ``append``, and whoever writes the index, holds
the lock.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl
import pyarrow as pa

from rlhi_dagster.store.index import ENTRIES_PER_BATCH, INDEX, SCHEMA, Entries, Index, key_bits, open_index
from rlhi_dagster.store.segments import FINAL, DamagedSegmentError, listing, opened, published

LOCK = "lock"
_ENTRIES_PER_RUN = 2_000_000
_SAMPLED_EVERY = 1 << 15
Keys = tuple[np.ndarray, np.ndarray]
ReadKeys = Callable[[Path], Keys]


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder; gives whether it is held, which without ``wait`` it is not where another process has it.

    The kernel lets go of it when its holder ends, however that happens.
    """
    with (folder / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def segment_keys(file: Path) -> Keys:
    """The keys of a segment as numbers; errors as of ``segments.opened``."""
    with opened(file) as parquet:
        keys = pl.DataFrame(pl.from_arrow(parquet.read(columns=["key"])))["key"]
    try:
        return key_bits(keys)
    except ValueError as error:
        raise DamagedSegmentError(file, "a key is not 32 hexadecimal digits") from error


def is_due(segments: int, rows: int, indexed: int) -> bool:
    """Whether so many segments and rows outside of the index are worth writing it anew: its cost grows with ``indexed``."""
    return segments > 256 + indexed // 50_000 or rows > max(50_000, indexed // 10)


def fold(folder: Path, read: ReadKeys = segment_keys) -> bool:
    """Bring the index up to date, unless another process holds the lock; whether it was done.

    Raises:
        FileNotFoundError: A segment went by hand meanwhile.
    """
    with locked(folder, wait=False) as is_held:
        if is_held:
            refresh(folder, listing(folder, FINAL), read)
        return is_held


def refresh(folder: Path, names: Sequence[str], read: ReadKeys = segment_keys, tell: Callable[[int, int], None] = lambda *_: None) -> Index:
    """Write an index of exactly the segments ``names``, keeping what the one that is there says about them; the lock is held.

    An index that names segments which are neither in ``names`` nor in the folder is stale and not used.
    """
    index = open_index(folder)
    if index and not set(index.segments) <= {*names, *listing(folder, FINAL)}:
        index = None
    if index and set(index.segments) == set(names):
        return index
    kept = [name for name in index.segments if name in set(names)] if index else []
    added = sorted(set(names) - set(kept))
    order = {name: number for number, name in enumerate([*kept, *added])}
    with ExitStack() as stack:
        runs: list[_Run] = [_Run(index.batches, [order.get(name, -1) for name in index.segments], index)] if index else []
        runs += _runs(folder, {name: order[name] for name in added}, read, stack, tell)
        with published(folder / INDEX) as stream:
            schema = SCHEMA.with_metadata({"segments": json.dumps(list(order))})
            with pa.ipc.new_file(stream, schema) as writer:
                for part in _merged(runs):
                    writer.write_batch(_batch(part, schema))
    return Index(folder / INDEX)


class _Run:
    """Sorted entries in memory or in a file, some of whose segments have other numbers now or (-1) are gone."""

    def __init__(self, batches: Sequence[Entries], numbers: Sequence[int] | None = None, file: Index | None = None) -> None:
        self.batches, self.file = batches, file
        self.numbers = None if numbers is None else np.array(numbers, np.int64)

    def between(self, first: int | None, last: int | None) -> Entries:
        found = Entries.joined([each for batch in self.batches if len(each := batch.between(first, last))])
        if self.file:
            self.file.release()
        if self.numbers is None or not len(found):
            return found
        segment = self.numbers[found.segment]
        return Entries(found.hi, found.lo, segment.astype(np.uint32), found.row)[segment >= 0]


def _runs(folder: Path, added: dict[str, int], read: ReadKeys, stack: ExitStack, tell: Callable[[int, int], None]) -> Iterator[_Run]:
    """Entries of added segments; all but the last run are put aside in files."""
    waiting: list[Entries] = []
    for done, (name, number) in enumerate(added.items(), 1):
        waiting.append(Entries.of(read(folder / name), number))
        tell(done, len(added))
        if sum(map(len, waiting)) >= _ENTRIES_PER_RUN and done < len(added):
            yield _put_aside(folder, Entries.joined(waiting).sorted(), stack)
            waiting = []
    if waiting:
        yield _Run([Entries.joined(waiting).sorted()])


def _put_aside(folder: Path, entries: Entries, stack: ExitStack) -> _Run:
    file = folder / f"run-{uuid4().hex[:12]}.partial"
    stack.callback(file.unlink, missing_ok=True)
    schema = SCHEMA.with_metadata({"segments": "[]"})
    with file.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        writer.write_batch(_batch(entries, schema))
    opened_file = Index(file)
    return _Run(opened_file.batches, None, opened_file)


def _merged(runs: Sequence[_Run]) -> Iterator[Entries]:
    """All entries in order, in parts of about ``ENTRIES_PER_BATCH``, each with all entries of its first halves."""
    sampled = [batch.hi[_SAMPLED_EVERY - 1 :: _SAMPLED_EVERY] for run in runs for batch in run.batches]
    samples = np.sort(np.concatenate(sampled)) if sampled else np.zeros(0, np.uint64)
    step = ENTRIES_PER_BATCH // _SAMPLED_EVERY
    bounds = [None, *map(int, np.unique(samples[step - 1 :: step])), None]
    for first, last in pairwise(bounds):
        part = Entries.joined([run.between(first, last) for run in runs]).sorted()
        if len(part):
            yield part


def _batch(entries: Entries, schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array(column) for column in (entries.hi, entries.lo, entries.segment, entries.row)]
    return pa.record_batch(columns, schema=schema)
