"""The response store: every model answer, kept by the content of its request.

One folder per kind of answer and model; in it one Parquet segment per finished chunk, written aside, synced and renamed, so that a kill
at any moment loses at most the chunk in flight and readers never see half a file. Segments are only ever added. A key answered twice
(two processes at once) is read once; both answers come from the same content.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

_ASKED = {
    "settings": pl.String(),
    "system_id": pl.UInt64(),
    "history_id": pl.UInt64(),
    "message_id": pl.UInt64(),
    "sample_index": pl.Int32(),
    "prompt_characters": pl.Int64(),
}
"""What was asked, without its text: see ``engines.base.Trace``."""
SCHEMAS: dict[str, pl.Schema] = {
    "chat": pl.Schema(
        {
            "key": pl.String(),
            "text": pl.String(),
            "error": pl.String(),
            "finish_reason": pl.String(),
            "prompt_tokens": pl.Int32(),
            "completion_tokens": pl.Int32(),
            "probabilities": pl.List(pl.Float64()),
            "cached_tokens": pl.Int32(),
            "cost_usd": pl.Float64(),
            "is_retryable": pl.Boolean(),
            **_ASKED,
        }
    ),
    "reward": pl.Schema(
        {
            "key": pl.String(),
            "reward": pl.Float64(),
            "error": pl.String(),
            "prompt_tokens": pl.Int32(),
            "cached_tokens": pl.Int32(),
            "is_retryable": pl.Boolean(),
            **_ASKED,
        }
    ),
    "embedding": pl.Schema({"key": pl.String(), "vector": pl.List(pl.Float32())}),
}
"""Columns of a segment, by kind of answer."""


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
        """Columns of a segment."""
        return SCHEMAS[self.kind]

    @property
    def folder(self) -> Path:
        """Where this model's segments lie."""
        return self.root / self.kind / re.sub(r"[^A-Za-z0-9.@_-]+", "-", self.model)

    def append(self, answers: pl.DataFrame) -> Path:
        """Add one finished chunk and return its segment; atomic and durable."""
        frame = answers.select(pl.col(name).cast(dtype) for name, dtype in SCHEMAS[self.kind].items()).sort("key")
        name = hashlib.sha256("".join(frame["key"]).encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"segment-{name}.parquet"
        partial = self.folder / f"segment-{name}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            frame.write_parquet(file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
        return final

    def lookup(self, keys: pl.Series) -> pl.DataFrame:
        """Answers to those of ``keys`` that are known, one row a key."""
        segments = sorted(self.folder.glob("segment-*.parquet"))
        if not segments:
            return pl.DataFrame(schema=SCHEMAS[self.kind])
        wanted = keys.unique().to_frame("key").lazy()
        # Columns that came later are null in older segments.
        found = pl.scan_parquet(segments, schema=SCHEMAS[self.kind], missing_columns="insert").join(wanted, on="key", how="semi")
        return found.unique("key", keep="first", maintain_order=True).sort("key").collect()

    def missing(self, keys: pl.Series) -> pl.Series:
        """Those of ``keys`` that have no answer yet, each once, in the order given."""
        known = self.lookup(keys)["key"]
        unique = keys.unique(maintain_order=True)
        return unique.filter(~unique.is_in(known.implode()))
