"""Finding answers by key: a scan over the Parquet segments of a folder.

What belongs here: which rows of a folder's segments are wanted, read so that only what is wanted is decoded, while segments come and go.
What does not: the files (``segments.py``) and which of several answers to a key counts (``responses.py``).

There is no index. Once in a process each segment is compared with its checksum. Then only the keys are read, and then only the segments
that hold a wanted one, of which Polars decodes the other columns where it needs them. How that compares with an index at ten million
answers: ``benchmarks/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from rlhi_dagster.store.segments import check, listing, opened, stored_schema

SEGMENT = "segment"
"""Column with the path of the file that a row lies in; segments of a folder sort by it from the oldest to the newest."""
Narrow = Callable[[pl.LazyFrame], pl.LazyFrame]
_TRIES = 20
"""Searches begin again when a compaction takes a segment away under them; so many in a row never happened."""


def of(keys: pl.Series) -> Narrow:
    """Rows of ``keys``. While segments are decoded hashes are compared, several times as fast as keys; of what is left, the keys."""
    is_like = pl.col("key").hash().is_in(keys.hash().implode())
    return lambda rows: rows.filter(is_like).join(keys.to_frame("key").lazy(), on="key", how="semi")


def search(folder: Path, kind: str, prefix: str, narrow: Narrow, columns: Sequence[str] = ("key",)) -> pl.DataFrame:
    """Rows of a folder's segments.

    Args:
        folder: Of one kind and model; it need not exist.
        kind: A key of ``SCHEMAS``.
        prefix: ``FINAL`` or ``ERRORS``.
        narrow: Leaves the rows that are wanted, by their key.
        columns: What to read of a row; null where an old segment lacks one.

    Returns:
        ``columns`` and, unless they are the key alone, ``SEGMENT``; a key is there as often as segments have it, in no order.

    Raises:
        DamagedSegmentError: A segment cannot be read.
    """
    for _ in range(_TRIES):
        try:
            files = [folder / name for name in listing(folder, prefix)]
            check(files)
            if list(columns) == ["key"]:
                return _found(files, kind, narrow, columns)
            holding = _found(files, kind, narrow, [SEGMENT]).unique()[SEGMENT]
            return _found([Path(file) for file in holding.sort()], kind, narrow, [*columns, SEGMENT])
        except FileNotFoundError:
            continue
    raise RuntimeError(f"{folder} changed under {_TRIES} searches in a row")


def _found(files: Sequence[Path], kind: str, narrow: Narrow, columns: Sequence[str]) -> pl.DataFrame:
    """Rows of some segments; FileNotFoundError if one is gone."""
    schema = stored_schema(kind)
    if not files:
        return pl.DataFrame(schema={name: pl.String() if name == SEGMENT else schema[name] for name in columns})
    rows = pl.scan_parquet(
        list(files), schema=schema, missing_columns="insert", extra_columns="ignore", glob=False, include_file_paths=SEGMENT
    )
    try:
        return narrow(rows).select(columns).collect(engine="streaming")
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, OSError):
        # Polars does not always say which file it was.
        for file in files:
            with opened(file) as parquet:
                for group in range(parquet.metadata.num_row_groups):
                    parquet.read_row_group(group)
        raise
