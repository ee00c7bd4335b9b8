"""The response store: every model answer, kept by the content of its request.

What belongs here: adding answers and finding them. What does not: the files (``segments.py``), scanning them (``search.py``) and the
care of a store (``compaction.py`` and others): docs/concepts/response_store.md.

One folder per kind of answer and model. A finished chunk is a segment, so a kill at any moment loses at most the chunk in flight, and
readers never see half a file. A key answered twice (two processes at once) is read once: the answer that was there first. An error of
the moment (``is_retryable``) counts as missing, so that the next run asks again, and is read only as long as there is no final answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from rlhi_dagster.base.owned import sweep
from rlhi_dagster.store.search import SEGMENT, of, search
from rlhi_dagster.store.segments import (
    ANSWERED_AT,
    ERRORS,
    FINAL,
    KEY_PATTERN,
    SCHEMAS,
    folder_name,
    new_name,
    stored_schema,
    write_segment,
)

_FILLED = {"cached_tokens": 0, "cost_usd": 0.0, "is_retryable": False}
"""What older segments mean where they lack these columns."""


@dataclass(frozen=True, slots=True)
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
        if not answers["key"].str.contains(KEY_PATTERN).fill_null(value=False).all():
            raise ValueError("a key of the response store is 32 hexadecimal digits")
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
                written.append(write_segment(self.folder / new_name(self.folder, prefix), unique))
        return written

    def sweep(self) -> int:
        """Remove segments that killed writers left half written; how many."""
        return sweep(self.folder.glob("*.partial"))

    def missing(self, keys: pl.Series) -> pl.Series:
        """Those of ``keys`` that have no final answer yet, each once, in the order given; errors as of ``lookup``."""
        asked = keys.unique(maintain_order=True)
        known = search(self.folder, self.kind, FINAL, of(asked))
        return asked.to_frame("key").join(known, on="key", how="anti", maintain_order="left")["key"].alias(keys.name)

    def lookup(self, keys: pl.Series) -> pl.DataFrame:
        """Answers to those of ``keys`` that are known, one row a key, in the order of keys; final ones before errors of the moment.

        Raises:
            DamagedSegmentError: A segment cannot be read.
        """
        asked, columns = of(keys.unique()), self.schema.names()
        # Errors are read first: one that is gone by now is answered, and that answer is there when the others are read.
        errors = search(self.folder, self.kind, ERRORS, asked, columns)
        final = search(self.folder, self.kind, FINAL, asked, columns)
        errors = errors.join(final, on="key", how="anti").sort(SEGMENT, descending=True)
        filled = [pl.col(name).fill_null(value) for name, value in _FILLED.items() if name in self.schema]
        found = pl.concat([final.sort(SEGMENT), errors]).unique("key", keep="first", maintain_order=True)
        return found.sort("key").select(columns).with_columns(filled)
