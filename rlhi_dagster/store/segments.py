"""Segments of the response store: immutable Parquet files of answers, sorted by key.

What belongs here: names, columns, writing one so that it is whole or not there, and reading one. What does not: finding keys
(``search.py``) and merging segments (``compaction.py``).

A segment appears by rename after its bytes and before its name are synced, is never changed, and ends by being deleted. Readers that
find one gone list the folder again. Two kinds: ``segment-*`` with final answers, ``errors-*`` with errors of the moment. It is sealed
(``base/seals.py``): nothing of it is used before all of it has been compared with its checksum.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rlhi_dagster.base import seals
from rlhi_dagster.base.owned import Partial

FINAL, ERRORS = "segment", "errors"
"""First word of a segment's name."""
KEY_PATTERN = "^[0-9a-f]{32}$"
"""A key: 128 bits in hexadecimal digits, see ``models.digest_of``."""
ROWS_PER_GROUP = 4096
"""What has to be decoded to read one row."""
ANSWERED_AT = "answered_at"
"""Column that the store adds: when the answer was kept, UTC."""
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
    "reference": pl.Schema({"key": pl.String(), "chosen_logp": pl.Float32(), "rejected_logp": pl.Float32(), **_ASKED}),
}
"""Columns of an answer, by kind."""


class DamagedSegmentError(ValueError):
    """A segment cannot be read."""

    def __init__(self, file: Path, what: str) -> None:
        super().__init__(f"{file} is damaged ({what}): `rlhi store verify` tells more; moved away, its answers are asked again")


def stored_schema(kind: str) -> pl.Schema:
    """Columns of a segment as it is written now; older ones may lack some, which then read as null."""
    return pl.Schema({**SCHEMAS[kind], ANSWERED_AT: pl.Datetime("us", "UTC")})


def folder_name(model: str) -> str:
    """The folder of a model's segments, from ``ModelRef.identity``."""
    return re.sub(r"[^A-Za-z0-9.@_-]+", "-", model)


def listing(folder: Path, prefix: str) -> list[str]:
    """Names of the segments, oldest first.

    A listing can miss a file that appears, and the ones that it replaces and that go, while it is made. So it is made until one has
    all that the one before had: what replaced them was there before that one began.
    """
    before = _listed(folder, prefix)
    while True:
        names = _listed(folder, prefix)
        if before <= names:
            return sorted(names)
        before = names


def _listed(folder: Path, prefix: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {each.name for each in entries if each.name.startswith(f"{prefix}-") and each.name.endswith(".parquet")}
    except FileNotFoundError:
        return set()


def new_name(folder: Path, prefix: str, like: Path | None = None) -> str:
    """A name that no other writer chooses; it sorts behind what the folder has, also when the clock went back, or as ``like`` does."""
    if like is None:
        stamp = max(f"{time.time_ns():016x}", f"{max(map(_stamp, _listed(folder, prefix)), default=0) + 1:016x}")
    else:
        parts = like.stem.split("-")
        stamp = parts[1] if len(parts) == 3 else f"{like.stat().st_mtime_ns:016x}"
    return f"{prefix}-{stamp}-{uuid4().hex[:12]}.parquet"


def _stamp(name: str) -> int:
    """When a segment was written, in nanoseconds as its name has them; 0 of an older name, which has none."""
    found = re.fullmatch(r"[a-z]+-([0-9a-f]{16})-.*", name)
    return int(found[1], 16) if found else 0


@contextmanager
def published(file: Path) -> Iterator[BinaryIO]:
    """Write a file that is there whole, on disk, under its name when the block ends, or not at all."""
    is_new = not file.parent.is_dir()
    partial = Partial(file)
    try:
        with partial.path.open("r+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.path.replace(file)
    finally:
        partial.close()
    sync_folder(file.parent)
    if is_new:
        sync_folder(file.parent.parent)
        sync_folder(file.parent.parent.parent)


def sync_folder(folder: Path) -> None:
    """Make names that appeared in a folder, or went, survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_segment(file: Path, rows: pl.DataFrame) -> Path:
    """Write rows, sorted by key, as a segment."""
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    repeating = [name for name in rows.columns if name not in {"key", "vector", "probabilities"}]
    with published(file) as stream:
        with pq.ParquetWriter(stream, table.schema, compression="zstd", use_dictionary=repeating, write_page_checksum=True) as writer:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            writer.add_key_value_metadata(seals.UNSEALED)
        seals.seal(stream)
    return file


def check(files: Sequence[Path]) -> None:
    """Make sure that segments are as they were written, before any of them is read.

    Raises:
        FileNotFoundError: One is gone.
        DamagedSegmentError: One is not.
    """
    try:
        seals.check_all(files)
    except seals.BrokenFileError as error:
        raise DamagedSegmentError(error.file, str(error)) from error


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    """Open a segment.

    Raises:
        FileNotFoundError: It is gone.
        DamagedSegmentError: It is not as it was written, or cannot be read in the block.
    """
    check([file])
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise DamagedSegmentError(file, type(error).__name__) from error


def read_columns(file: Path, kind: str, names: Sequence[str]) -> pl.DataFrame:
    """All rows of some columns; errors as of ``opened``. An old segment was answered when its file was written."""
    with opened(file) as parquet:
        present = [name for name in names if name in parquet.schema_arrow.names]
        if not present:
            found = pl.select(pl.repeat(None, parquet.metadata.num_rows).alias(names[0]))
        else:
            found = pl.DataFrame(pl.from_arrow(parquet.read(columns=present)))
    schema = stored_schema(kind)
    columns = [(pl.col(name) if name in found.columns else pl.lit(None)).cast(schema[name], strict=False).alias(name) for name in names]
    written = pl.lit(written_at(file)).cast(schema[ANSWERED_AT])
    return found.select(columns).with_columns(pl.col("^answered_at$").fill_null(written))


def written_at(file: Path) -> datetime:
    """When a segment's file was written."""
    return datetime.fromtimestamp(file.stat().st_mtime, tz=UTC)
