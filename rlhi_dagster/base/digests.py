"""The digest of a table's content: its data version."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl


class ContentDigest:
    """SHA-256 over a schema and rows added piece by piece; the order of rows, pieces and any file format make no difference.

    A row counts through 64 bits that Polars hashes it to. Those are fixed for one version of Polars: another one may give every table a new
    data version once.
    """

    def __init__(self, schema: pl.Schema) -> None:
        """Start without a row."""
        self._schema = repr(list(schema.items()))
        self._rows: list[np.ndarray] = []

    def update(self, rows: pl.DataFrame) -> None:
        """Add rows."""
        self._rows.append(rows.hash_rows(seed=0).to_numpy())

    def __or__(self, other: ContentDigest) -> ContentDigest:
        """The digest of the rows of both."""
        both = ContentDigest(pl.Schema())
        both._schema, both._rows = self._schema, [*self._rows, *other._rows]
        return both

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        rows = np.sort(np.concatenate([*self._rows, np.zeros(0, np.uint64)]))
        return hashlib.sha256(self._schema.encode() + rows.astype("<u8").tobytes()).hexdigest()


def fingerprint(frame: pl.DataFrame) -> str:
    """The `ContentDigest` of a frame."""
    digest = ContentDigest(frame.schema)
    digest.update(frame)
    return digest.hexdigest()
