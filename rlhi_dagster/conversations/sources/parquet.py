"""Rows of Parquet files, also of files with damaged row groups.

What belongs here: scanning a file around its damage, and finding the damage. What does not: what the columns mean (``layout``).

A healthy file is scanned as it is. Damage is looked for only after a query failed; then the rows of a damaged row group are still there,
each with a `Reason`, with nulls in the columns that cannot be decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow.parquet as pq

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources.files import open_file
from rlhi_dagster.conversations.sources.layout import DETAIL, REASON, ROW_NUMBER

Damage = Mapping[int, Sequence[str]]
"""Row groups of a file, by number, with their columns that cannot be decoded."""

DECODING_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What a damaged file makes Polars raise: mostly errors, for some damage a panic."""


def scan(file: str, damage: Damage | None = None) -> pl.LazyFrame:
    """Scan a file: its columns, `ROW_NUMBER`, and `REASON` and `DETAIL`, which are null outside damaged row groups.

    Raises:
        ValueError: The file's footer cannot be read.
    """
    schema = _schema(file)
    rows = pl.scan_parquet(file, row_index_name=ROW_NUMBER, glob=False).with_columns(_verdict(None, None))
    if not damage:
        return rows
    parts = []
    for number, (start, length) in enumerate(_row_groups(file)):
        part = rows.slice(start, length)
        if number in damage:
            part = part.with_columns(
                *(pl.lit(None, schema[name]).alias(name) for name in damage[number]),
                *_verdict(Reason.UNREADABLE_ROW_GROUP, f"row group {number}: cannot decode {', '.join(damage[number])}"),
            )
        parts.append(part)
    return pl.concat(parts)


def columns(file: str) -> list[str]:
    """Names of a file's columns.

    Raises:
        ValueError: The file's footer cannot be read.
    """
    return _schema(file).names()


def damage(file: str, columns: Sequence[str]) -> Damage:
    """Find the row groups of a file in which one of the columns cannot be decoded; reads all of these columns."""
    rows = pl.scan_parquet(file, glob=False)
    columns = [name for name in columns if name in _schema(file)]
    found = {}
    for number, (start, length) in enumerate(_row_groups(file)):
        group = rows.slice(start, length)
        if not _is_readable(group.select(columns)):
            found[number] = [name for name in columns if not _is_readable(group.select(name))]
    return found


def _schema(file: str) -> pl.Schema:
    try:
        return pl.scan_parquet(file, glob=False).collect_schema()
    except (*DECODING_ERRORS, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {error}") from error


def _verdict(reason: Reason | None, detail: str | None) -> list[pl.Expr]:
    return [pl.lit(reason and reason.value, pl.String).alias(REASON), pl.lit(detail, pl.String).alias(DETAIL)]


def _is_readable(rows: pl.LazyFrame) -> bool:
    try:
        rows.collect(engine="streaming")
    except DECODING_ERRORS:
        return False
    return True


def _row_groups(file: str) -> list[tuple[int, int]]:
    """First row and number of rows of every row group."""
    with open_file(file) as stream:
        footer = pq.read_metadata(stream)
    lengths = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    return [(sum(lengths[:number]), length) for number, length in enumerate(lengths)]
