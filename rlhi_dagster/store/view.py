"""Where keys lie at this moment: the index, and the keys of the segments that it does not cover yet.

What belongs here: noticing that segments came or went, and keeping what was read. What does not: reading answers (``store.py``).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from rlhi_dagster.store.folding import Keys, fold, is_due, segment_keys
from rlhi_dagster.store.index import INDEX, Entries, Index, find, open_index
from rlhi_dagster.store.segments import ERRORS, FINAL, listing

Stamp = tuple[int, int, int]


class View:
    """Keys of the final answers of one model's folder.

    Attributes:
        names: Segments by the number that ``find`` gives.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self._index: Index | None = None
        self._stamp: Stamp | None = None
        self._keys: dict[str, Keys] = {}
        self._tail, self._tail_segments = Entries.joined([]), 0

    def refresh(self) -> None:
        """Notice what changed in the folder; writes the index anew where that is due.

        Raises:
            FileNotFoundError: A segment went meanwhile; try again.
        """
        names = self._covered(listing(self.folder, FINAL))
        if self._is_long(names):
            # An index is a cache: where it cannot be written, the tail is read.
            with suppress(OSError):
                fold(self.folder, self._read)
            names = self._covered(listing(self.folder, FINAL))
        tail = [name for name in names if name not in self._indexed()]
        kept = self._index.segments if self._index else []
        if [*kept, *tail] != self.names or len(tail) != self._tail_segments:
            self._keys = {name: self._read(self.folder / name) for name in tail}
            self._tail = Entries.joined([Entries.of(self._keys[name], len(kept) + n) for n, name in enumerate(tail)]).sorted()
            self.names, self._tail_segments = [*kept, *tail], len(tail)

    def find(self, hi: np.ndarray, lo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the segment and row of each key, -1 where it has none; ``hi`` is sorted."""
        segment, row = self._index.find(hi, lo) if self._index else (np.full(len(hi), -1), np.full(len(hi), -1))
        lacking = np.flatnonzero(segment < 0)
        at = find(self._tail, hi[lacking], lo[lacking])
        found = lacking[at >= 0]
        segment[found], row[found] = self._tail.segment[at[at >= 0]], self._tail.row[at[at >= 0]]
        return segment, row

    def between(self, first: int, last: int | None) -> Entries:
        """Entries with ``first <= hi < last``."""
        indexed = [self._index.between(first, last)] if self._index else []
        return Entries.joined([*indexed, self._tail.between(first, last)])

    def distrust(self) -> None:
        """Delete the index, which said something untrue, and forget what came from it."""
        (self.folder / INDEX).unlink(missing_ok=True)
        self.names, self._index, self._stamp = [], None, None

    def _indexed(self) -> set[str]:
        return set(self._index.segments) if self._index else set()

    def _covered(self, names: list[str]) -> list[str]:
        """Open the index if it is another one than before; the listing that it agrees with. A stale one is not used."""
        while True:
            stamp = _stamp(self.folder / INDEX)
            if stamp != self._stamp:
                self._index, self._stamp = open_index(self.folder) if stamp else None, stamp
            if self._indexed() <= set(names):
                return names
            # Segments are replaced before the index is, and deleted after: a newer index or listing may agree.
            names = listing(self.folder, FINAL)
            if self._indexed() <= set(names):
                return names
            if _stamp(self.folder / INDEX) == stamp:
                self._index = None
                return names

    def _is_long(self, names: list[str]) -> bool:
        indexed = self._index.rows if self._index else 0
        tail = [name for name in names if name not in self._indexed()]
        rows = 0
        for name in tail:
            if is_due(len(tail), rows, indexed):
                return True
            self._keys[name] = self._read(self.folder / name)
            rows += len(self._keys[name][0])
        return is_due(len(tail), rows, indexed)

    def _read(self, file: Path) -> Keys:
        return self._keys[file.name] if file.name in self._keys else segment_keys(file)


class ErrorView:
    """Keys of the errors of the moment of one model's folder: few, and no index is made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self._keys: dict[str, Keys] = {}
        self._entries = Entries.joined([])

    def refresh(self) -> None:
        """Notice what changed in the folder; keys are read when they are needed."""
        # The newest segment has the lowest number, so that the newest error of a key is found first.
        self.names = listing(self.folder, ERRORS)[::-1]

    def find(self, hi: np.ndarray, lo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``View.find``; errors as of ``View.refresh``."""
        self._read()
        segment, row = np.full(len(hi), -1, np.int64), np.full(len(hi), -1, np.int64)
        at = find(self._entries, hi, lo)
        segment[at >= 0], row[at >= 0] = self._entries.segment[at[at >= 0]], self._entries.row[at[at >= 0]]
        return segment, row

    def between(self, first: int, last: int | None) -> Entries:
        """As ``View.between``."""
        self._read()
        return self._entries.between(first, last)

    def _read(self) -> None:
        if list(self._keys) != self.names:
            self._keys = {name: self._keys[name] if name in self._keys else segment_keys(self.folder / name) for name in self.names}
            self._entries = Entries.joined([Entries.of(self._keys[name], number) for number, name in enumerate(self.names)]).sorted()


def _stamp(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
