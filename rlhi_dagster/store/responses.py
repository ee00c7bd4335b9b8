"""The response store: every model answer, kept by the content of its request.

What belongs here: adding answers and finding them. What does not: the files (``segments.py``), where keys lie
(``view.py``, ``index.py``) and the care of a store (``compaction.py`` and others): docs/response_store.md.

One folder per kind of answer and model. A finished chunk is a segment, so a kill at any moment loses at most the chunk in flight, and
readers never see half a file. A key answered twice (two processes at once) is read once: the answer that was there first. An error of
the moment (``is_retryable``) counts as missing, so that the next run asks again, and is read only as long as there is no final answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from rlhi_dagster.store.index import ascending, key_bits, parse
from rlhi_dagster.store.segments import (
    ANSWERED_AT,
    ERRORS,
    FINAL,
    SCHEMAS,
    MissingRowsError,
    folder_name,
    new_name,
    read_rows,
    stored_schema,
    write_segment,
)
from rlhi_dagster.store.view import ErrorView, View

Found = TypeVar("Found", pl.Series, pl.DataFrame)
_TRIES = 20
"""Lookups begin again when a compaction takes a segment away under them; so many in a row never happened."""
_FILLED = {"cached_tokens": 0, "cost_usd": 0.0, "is_retryable": False}
"""What older segments mean where they lack these columns."""


class _IndexLiedError(Exception):
    """The index said that a key lies where it does not."""


@dataclass(slots=True)
class ResponseStore:
    """Answers of one kind by one model.

    Attributes:
        root: Folder of the whole store.
        kind: A key of ``SCHEMAS``.
        model: ``ModelRef.identity`` of the model that answers.
    """

    root: Path
    kind: str
    model: str
    _view: View = field(init=False, repr=False, compare=False)
    _errors: ErrorView = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._view, self._errors = View(self.folder), ErrorView(self.folder)

    @property
    def schema(self) -> pl.Schema:
        """Columns of an answer."""
        return SCHEMAS[self.kind]

    @property
    def folder(self) -> Path:
        """Where this model's segments lie."""
        return self.root / self.kind / folder_name(self.model)

    def append(self, answers: pl.DataFrame) -> list[Path]:
        """Add one finished chunk, each segment of it atomic and durable; return the segments: final answers, errors of the moment.

        Raises:
            ValueError: A key is not 32 hexadecimal digits.
        """
        key_bits(answers["key"])
        now = pl.lit(datetime.now(UTC)).alias(ANSWERED_AT)
        frame = answers.select(pl.col(name).cast(dtype) for name, dtype in self.schema.items()).with_columns(now)
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in stored_schema(self.kind).items())
        is_error = (
            frame["is_retryable"].fill_null(value=False) if "is_retryable" in frame.columns else pl.repeat(False, len(frame), eager=True)
        )
        written = []
        for prefix, rows in ((FINAL, frame.filter(~is_error)), (ERRORS, frame.filter(is_error))):
            if len(rows):
                unique = rows.unique("key", keep="first", maintain_order=True).sort("key")
                written.append(write_segment(self.folder / new_name(prefix), unique))
        return written

    def missing(self, keys: pl.Series) -> pl.Series:
        """Those of ``keys`` that have no final answer yet, each once, in the order given."""
        return self._again(lambda: self._missing(keys)).unique(maintain_order=True)

    def lookup(self, keys: pl.Series) -> pl.DataFrame:
        """Answers to those of ``keys`` that are known, one row a key, in the order of keys; final ones before errors of the moment.

        Raises:
            DamagedSegmentError: A segment cannot be read.
        """
        return self._again(lambda: self._lookup(keys.unique()))

    def _again(self, look: Callable[[], Found]) -> Found:
        for _ in range(_TRIES):
            try:
                return look()
            except FileNotFoundError:
                continue
            except _IndexLiedError:
                self._view.distrust()
        raise RuntimeError(f"{self.folder} changed under {_TRIES} lookups in a row")

    def _missing(self, keys: pl.Series) -> pl.Series:
        self._view.refresh()
        asked = _Asked(keys)
        segment, _ = self._view.find(asked.hi, asked.lo)
        is_missing = np.ones(len(keys), bool)
        is_missing[asked.at[segment >= 0]] = False
        return keys.filter(pl.Series(is_missing))

    def _lookup(self, keys: pl.Series) -> pl.DataFrame:
        # Errors are listed first: one that is gone by now is answered, and that answer is in the listing after.
        self._errors.refresh()
        self._view.refresh()
        asked = _Asked(keys)
        segment, row = self._view.find(asked.hi, asked.lo)
        parts = list(self._read(asked, segment, row, self._view))
        if (segment < 0).any():
            segment[segment >= 0] = -2
            lacking = np.flatnonzero(segment == -1)
            segment[lacking], row[lacking] = self._errors.find(asked.hi[lacking], asked.lo[lacking])
            parts += self._read(asked, segment, row, self._errors)
        if not parts:
            return pl.DataFrame(schema=self.schema)
        filled = [pl.col(name).fill_null(value) for name, value in _FILLED.items() if name in self.schema]
        order = np.argsort(np.concatenate([chosen for chosen, _ in parts]))
        return pl.concat([rows for _, rows in parts])[order].with_columns(filled)

    def _read(
        self, asked: _Asked, segment: np.ndarray, row: np.ndarray, view: View | ErrorView
    ) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
        """The rows at the places found, segment by segment, and which of the keys they answer."""
        order = np.lexsort((row, segment))
        order = order[segment[order] >= 0]
        for chosen in np.split(order, np.flatnonzero(np.diff(segment[order])) + 1) if len(order) else []:
            file = self.folder / view.names[segment[chosen[0]]]
            try:
                rows = read_rows(file, self.kind, row[chosen])
            except MissingRowsError as error:
                raise _IndexLiedError from error
            if not (rows["key"] == asked.keys[asked.at[chosen]]).all():
                raise _IndexLiedError
            yield chosen, rows.select(self.schema.names())


class _Asked:
    """Keys as numbers in ascending order; those that no store can hold are left out.

    Attributes:
        keys: As given.
        hi: First halves.
        lo: Second halves.
        at: Where each stands in ``keys``.
    """

    def __init__(self, keys: pl.Series) -> None:
        self.keys = keys
        is_key, hi, lo = parse(keys)
        order = ascending(hi, lo)
        self.hi, self.lo, self.at = hi[order], lo[order], np.flatnonzero(is_key)[order]
