"""Rows of Parquet and Arrow files, also of files with damaged row groups.

What belongs here: scanning a Parquet file around its damage, finding the damage, and rows as Python values. What does not: what the columns
mean (``columns``, ``layouts``).

A healthy file is scanned as it is. Damage is looked for only after a query failed; then the rows of a damaged row group are still there,
each with a `Reason`, with nulls in the columns that cannot be decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources.cells import OutOfRange
from rlhi_dagster.conversations.sources.files import ARROW, foreign, open_file, suffix
from rlhi_dagster.conversations.sources.records import Broken

ROW_NUMBER, REASON, DETAIL = "_row_number", "_reason", "_detail"
"""Columns that `scan` adds: position of a row, and why it cannot be read (null if it can)."""

Damage = Mapping[int, Sequence[str]]
"""Row groups of a file, by number, with their columns that cannot be decoded."""

_ARROW_MAGIC = b"ARROW1\x00\x00"
_MAGIC = (b"PAR1", b"ARROW1")
_ROWS_AT_ONCE = 1_000

DECODING_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What a damaged file makes Polars raise: mostly errors, for some damage a panic."""


def scan(file: str, damage: Damage | None = None) -> pl.LazyFrame:
    """Scan a file: its columns, `ROW_NUMBER`, and `REASON` and `DETAIL`, which are null outside damaged row groups.

    Raises:
        ValueError: The file's footer cannot be read.
    """
    types = schema(file)
    rows = pl.scan_parquet(file, row_index_name=ROW_NUMBER, glob=False).with_columns(_verdict(None, None))
    if not damage:
        return rows
    parts = []
    for number, (start, length) in enumerate(_row_groups(file)):
        part = rows.slice(start, length)
        if number in damage:
            part = part.with_columns(
                *(pl.lit(None, types[name]).alias(name) for name in damage[number]),
                *_verdict(Reason.UNREADABLE_ROW_GROUP, f"row group {number}: cannot decode {', '.join(damage[number])}"),
            )
        parts.append(part)
    return pl.concat(parts)


def values(file: str) -> Iterator[dict[str, Any] | Broken]:
    """Yield every row of a Parquet or Arrow file as Python values, or `Broken` for each row of a part that cannot be decoded.

    Raises:
        ValueError: The file's footer cannot be read.
    """
    with open_file(file) as stream:
        if suffix(file) == ARROW:
            yield from _arrow_values(file, stream)
            return
        try:
            opened = pq.ParquetFile(stream, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
        twice = sorted({name for name in opened.schema_arrow.names if opened.schema_arrow.names.count(name) > 1})
        if twice:
            raise ValueError(f"{file} has more than one column with the name {', '.join(twice)}")
        for group in range(opened.num_row_groups):
            done = 0
            try:
                for batch in opened.iter_batches(_ROWS_AT_ONCE, row_groups=[group]):
                    yield from _rows(batch)
                    done += len(batch)
            except (pa.ArrowException, OSError):
                broken = Broken(Reason.UNREADABLE_ROW_GROUP, f"row group {group} cannot be decoded from its row {done:,} on")
                yield from [broken] * (opened.metadata.row_group(group).num_rows - done)


def count(file: str) -> int:
    """Rows of a Parquet file by its footer, of an Arrow file by its parts.

    Raises:
        ValueError: The file cannot be read.
    """
    with open_file(file) as stream:
        if suffix(file) == ARROW:
            return sum(1 for _ in _arrow_values(file, stream))
        try:
            return int(pq.read_metadata(stream).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error


def has_nulls(file: str, column: str) -> bool:
    """Whether a column has nulls, or may have: as far as the footer tells."""
    with open_file(file) as stream:
        footer = pq.read_metadata(stream)
    for group in map(footer.row_group, range(footer.num_row_groups)):
        chunk = next((each for each in map(group.column, range(group.num_columns)) if each.path_in_schema == column), None)
        if chunk is None or chunk.statistics is None or not chunk.statistics.has_null_count or chunk.statistics.null_count:
            return True
    return False


def damage(file: str, columns: Sequence[str]) -> Damage:
    """Find the row groups of a file in which one of the columns cannot be decoded; reads all of these columns."""
    rows, types = pl.scan_parquet(file, glob=False), schema(file)
    columns = [name for name in columns if name in types]
    found = {}
    for number, (start, length) in enumerate(_row_groups(file)):
        group = rows.slice(start, length)
        if not _is_readable(group.select(columns)):
            found[number] = [name for name in columns if not _is_readable(group.select(name))]
    return found


def schema(file: str) -> pl.Schema:
    """Columns of a file with their types, as Polars has them.

    Raises:
        ValueError: The file's footer cannot be read, or it has times that Polars cannot read.
    """
    try:
        with open_file(file) as stream:
            unknown = {zone for kind in pq.read_schema(stream).types for zone in _zones(kind) if not _is_known(zone)}
        if unknown:  # Polars would panic
            raise ValueError(f"{file} has times of unknown zones: {', '.join(sorted(unknown))}")
        return pl.scan_parquet(file, glob=False).collect_schema()
    except (*DECODING_ERRORS, pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str, error: Exception) -> ValueError:
    with open_file(file) as stream:
        head = stream.read(64)
    other = None if head.startswith(_MAGIC) else foreign(head)
    return ValueError(f"{file} cannot be read as {suffix(file)[1:].capitalize()}: {other or str(error).rstrip('.')}")


def _verdict(reason: Reason | None, detail: str | None) -> list[pl.Expr]:
    return [pl.lit(reason and reason.value, pl.String).alias(REASON), pl.lit(detail, pl.String).alias(DETAIL)]


def _arrow_values(file: str, stream: Any) -> Iterator[dict[str, Any] | Broken]:
    """Rows of an Arrow file, and one `Broken` where it is cut off or damaged after some."""
    batches = 0
    try:
        for batch in _arrow_batches(stream):
            yield from _rows(batch)
            batches += 1
    except (pa.ArrowException, OSError) as error:
        if not batches:
            raise _unreadable(file, error) from error
        yield Broken(Reason.UNREADABLE_ROW_GROUP, f"the file is damaged or cut off after part {batches:,}")


def _arrow_batches(stream: Any) -> Iterator[pa.RecordBatch]:
    """Batches of Arrow's file format, or of its stream format as `datasets` writes it and as a file without its end still has it."""
    try:
        opened = pa.ipc.open_file(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        if stream.read(len(_ARROW_MAGIC)) != _ARROW_MAGIC:
            stream.seek(0)
        yield from pa.ipc.open_stream(stream)
        return
    yield from map(opened.get_batch, range(opened.num_record_batches))


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    table = pa.table([_python_has(column) for column in batch.columns], names=batch.schema.names)
    try:
        rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="lossy")
    except (ValueError, OverflowError):
        columns = [[_cell(value) for value in column] for column in table.columns]
        rows = [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows


def _cell(value: pa.Scalar) -> Any:
    try:
        return value.as_py(maps_as_pydicts="lossy")
    except (ValueError, OverflowError):
        return OutOfRange()


def _python_has(column: pa.Array) -> pa.Array:
    """A column in a type whose values Python has: times with microseconds, in UTC if they have a zone; texts in messages as texts."""
    kind = _plain(column.type, is_within=False)
    if kind == column.type:
        return column
    try:
        return pc.cast(column, options=pc.CastOptions(kind, allow_time_truncate=True))
    except pa.ArrowInvalid:
        return column


def _plain(kind: pa.DataType, *, is_within: bool = True) -> pa.DataType:
    types = pa.types
    if types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, kind.tz and "UTC")
    if types.is_time64(kind) or types.is_duration(kind):
        return pa.time64("us") if types.is_time64(kind) else pa.duration("us")
    if is_within and (types.is_binary(kind) or types.is_large_binary(kind)):
        return pa.large_string()
    if types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if types.is_dictionary(kind):
        return _plain(kind.value_type, is_within=is_within)
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.large_list(_plain(kind.value_type)) if types.is_large_list(kind) else kind


def _zones(kind: pa.DataType) -> Iterator[str]:
    """Zones of times in a type."""
    if pa.types.is_timestamp(kind) and kind.tz:
        yield kind.tz
    elif pa.types.is_dictionary(kind):
        yield from _zones(kind.value_type)
    else:
        for number in range(kind.num_fields):
            yield from _zones(kind.field(number).type)


def _is_known(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ValueError, KeyError, OSError):
        return False
    return True


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
