"""The index of a model's segments: which key lies in which row of which segment, in one file that is searched where it lies.

What belongs here: keys as numbers, finding keys among sorted entries, and the file. What does not: making the file (``folding.py``).

``index.arrow`` is an Arrow IPC file, memory-mapped: entries sorted by key in record batches of about a million, those with the same
first half always in one, and the names of the segments that it covers. It is a cache: without it every segment's keys are read, and
nothing is lost.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

INDEX = "index.arrow"
KEY_PATTERN = "^[0-9a-f]{32}$"
"""A key: 128 bits in hexadecimal digits, see ``models.digest_of``."""
ENTRIES_PER_BATCH = 1_000_000
SCHEMA = pa.schema([("hi", pa.uint64()), ("lo", pa.uint64()), ("segment", pa.uint32()), ("row", pa.uint32())])


@dataclass(frozen=True, slots=True)
class Entries:
    """Places of keys, in columns of equal length.

    Attributes:
        hi: First half of the key.
        lo: Second half.
        segment: Number of the segment, in a list that whoever holds the entries has.
        row: Row in it.
    """

    hi: np.ndarray
    lo: np.ndarray
    segment: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.hi)

    def __getitem__(self, chosen: slice | np.ndarray) -> Entries:
        """Some of the entries."""
        return Entries(self.hi[chosen], self.lo[chosen], self.segment[chosen], self.row[chosen])

    def between(self, first: int | None, last: int | None) -> Entries:
        """Those of sorted entries with ``first <= hi < last``; ``None`` for no bound."""
        start = 0 if first is None else int(np.searchsorted(self.hi, np.uint64(first)))
        stop = len(self) if last is None else int(np.searchsorted(self.hi, np.uint64(last)))
        return self[start:stop]

    def sorted(self) -> Entries:
        """By key, and those of one key by segment and row."""
        return self[ascending(self.hi, self.lo, self.segment, self.row)]

    @classmethod
    def of(cls, keys: tuple[np.ndarray, np.ndarray], segment: int) -> Entries:
        """Entries of a whole segment."""
        rows = len(keys[0])
        return cls(*keys, np.full(rows, segment, np.uint32), np.arange(rows, dtype=np.uint32))

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Entries of all parts, one part after the other."""
        if not parts:
            return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint32))
        columns = ("hi", "lo", "segment", "row")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def ascending(hi: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """Order by several columns, most of whose values differ in the first."""
    order = np.argsort(hi, kind="stable")
    values = hi[order]
    twice = values[1:] == values[:-1]
    if twice.any():
        # Equal ones stand together already: only they are sorted again.
        at = np.flatnonzero(np.concatenate([twice, [False]]) | np.concatenate([[False], twice]))
        among = order[at]
        order[at] = among[np.lexsort([column[among] for column in (*rest[::-1], hi)])]
    return order


def parse(keys: pl.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which keys are 32 hexadecimal digits, and both halves of those as numbers."""
    is_key = keys.str.contains(KEY_PATTERN).fill_null(value=False)
    # Several times as fast as decoding and slicing in Polars.
    halves = np.frombuffer(bytes.fromhex(keys.filter(is_key).str.join("").item()), ">u8").reshape(-1, 2)
    return is_key.to_numpy(), halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)


def key_bits(keys: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of keys as numbers.

    Raises:
        ValueError: One is not 32 hexadecimal digits.
    """
    is_key, hi, lo = parse(keys)
    if not is_key.all():
        raise ValueError("a key of the response store is 32 hexadecimal digits")
    return hi, lo


def find(entries: Entries, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
    """Position of each key's first entry among sorted entries, -1 where there is none; ``hi`` is best sorted."""
    found = np.full(len(hi), -1, np.int64)
    at = np.searchsorted(entries.hi, hi)
    searched = np.arange(len(hi))
    while True:
        searched = searched[at[searched] < len(entries)]
        searched = searched[entries.hi[at[searched]] == hi[searched]]
        if not len(searched):
            return found
        is_hit = entries.lo[at[searched]] == lo[searched]
        found[searched[is_hit]] = at[searched[is_hit]]
        searched = searched[~is_hit]
        at[searched] += 1


class Index:
    """An index file, open for searching.

    Attributes:
        segments: Names of the segments that it covers, by number.
        batches: Its entries; they lie in the file.
        rows: How many there are.
    """

    def __init__(self, file: Path) -> None:
        """Open a file.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It is damaged.
        """
        with file.open("rb") as stream:
            self._mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            opened = pa.ipc.open_file(pa.py_buffer(self._mapped))
            if not opened.schema.equals(SCHEMA):
                raise ValueError(f"{file} is no index")
            self.segments: list[str] = json.loads(opened.schema.metadata[b"segments"])
            self.batches = [_entries(opened.get_batch(number)) for number in range(opened.num_record_batches)]
        except (pa.ArrowException, OSError, TypeError, KeyError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        self.rows = sum(map(len, self.batches))
        self._first = np.array([batch.hi[0] for batch in self.batches], np.uint64)
        self._last = np.array([batch.hi[-1] for batch in self.batches], np.uint64)

    def find(self, hi: np.ndarray, lo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment number and row of each key, -1 where it has none; ``hi`` is sorted."""
        segment, row = np.full(len(hi), -1, np.int64), np.full(len(hi), -1, np.int64)
        starts, stops = np.searchsorted(hi, self._first), np.searchsorted(hi, self._last, "right")
        for batch, start, stop in zip(self.batches, starts.tolist(), stops.tolist(), strict=True):
            if start == stop:
                continue
            at = find(batch, hi[start:stop], lo[start:stop])
            is_hit = at >= 0
            segment[start:stop][is_hit] = batch.segment[at[is_hit]]
            row[start:stop][is_hit] = batch.row[at[is_hit]]
            self.release()
        return segment, row

    def between(self, first: int | None, last: int | None) -> Entries:
        """Entries with ``first <= hi < last``."""
        return Entries.joined([found for batch in self.batches if len(found := batch.between(first, last))])

    def release(self) -> None:
        """Give the file's pages that were read back: the memory in use is that of a batch, however large the index is."""
        self._mapped.madvise(mmap.MADV_DONTNEED)


def open_index(folder: Path) -> Index | None:
    """The index of a folder; ``None`` where there is none or it is damaged: it is never needed."""
    try:
        return Index(folder / INDEX)
    except (FileNotFoundError, ValueError):
        return None


def _entries(batch: pa.RecordBatch) -> Entries:
    batch.validate()
    if not batch.num_rows or any(column.null_count for column in batch.columns):
        raise ValueError("an index has no empty batch and no nulls")
    return Entries(*(column.to_numpy(zero_copy_only=True) for column in batch.columns))
