"""Rows of JSON lines files, plain or compressed with gzip or zstd.

What belongs here: reading lines as a stream, and decoding each on its own, so that a broken line cannot spoil its neighbours. What does
not: what the columns mean (``layout``).

Polars' own readers do not do: one line that is no JSON, or no UTF-8, fails the whole file, and a number where text should be is taken as
text. Blank lines are no rows, but count in row numbers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
from polars.datatypes import DataTypeClass
from polars.io.plugins import register_io_source
from pydantic import AfterValidator, BeforeValidator, Field, Strict, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources.files import GZIP, ZSTD, open_file
from rlhi_dagster.conversations.sources.layout import DETAIL, REASON, ROW_NUMBER

_LINES_AT_ONCE = 1_000
_TEXT_PARTS = ("text", "input_text", "output_text")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def scan(file: str, types: pl.Schema) -> pl.LazyFrame:
    """Scan a file: the columns of ``types``, `ROW_NUMBER`, and `REASON` and `DETAIL`, which are null if a line fits.

    A line that does not fit has nulls in all columns of ``types``. Numbers are accepted as text, but not within lists; a text within
    lists may be given in parts, as chat APIs do for `content`, if all of them are text; times are ISO 8601 or seconds since 1970, and
    UTC if they have no zone.
    """
    decoder = TypeAdapter(_row_type(types))
    schema = pl.Schema({ROW_NUMBER: pl.Int64(), REASON: pl.String(), DETAIL: pl.String(), **types})

    def frames(
        columns: list[str] | None, predicate: pl.Expr | None, row_limit: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        lines = islice(_lines(file), row_limit)
        while batch := list(islice(lines, _LINES_AT_ONCE)):
            rows = [{ROW_NUMBER: number, **_decoded(line, decoder)} for number, line in batch]
            wanted = schema if columns is None else {name: schema[name] for name in columns}
            frame = pl.DataFrame([pl.Series(name, [row.get(name) for row in rows], dtype) for name, dtype in wanted.items()])
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(frames, schema=schema)


def columns(file: str) -> list[str]:
    """Names of the first line that is a JSON object; none if no line is."""
    for _, line in _lines(file):
        try:
            row = from_json(line or b"")
        except ValueError:
            continue
        if isinstance(row, dict):
            return list(row)
    return []


def _lines(file: str) -> Iterator[tuple[int, bytes | None]]:
    """Position and bytes of every line that is not blank; a last one of ``None`` stands for what cannot be decompressed."""
    with open_file(file) as stream:
        codec = "gzip" if file.endswith(GZIP) else "zstd" if file.endswith(ZSTD) else None
        lines = io.BufferedReader(pa.CompressedInputStream(stream, codec)) if codec else stream
        number = -1
        try:
            for number, line in enumerate(lines):
                stripped = (line.removeprefix(_BYTE_ORDER_MARK) if number == 0 else line).strip()
                if stripped:
                    yield number, stripped
        except OSError as error:
            if codec is None or error.errno is not None or type(error) is not OSError:  # not from the decompressor: disk or network
                raise
            yield number + 1, None


def _decoded(line: bytes | None, decoder: TypeAdapter[dict[str, Any]]) -> dict[str, Any]:
    """The row of a line, or what is wrong with it, without any text of the line."""
    if line is None:
        return {REASON: Reason.UNREADABLE_JSON.value, DETAIL: "the compressed file is damaged from here on"}
    try:
        return decoder.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return {REASON: Reason.UNREADABLE_JSON.value, DETAIL: first["msg"]}
    where = ".".join(map(str, first["loc"])) or "the row"
    return {REASON: Reason.MISTYPED_FIELD.value, DETAIL: f"{where}: {first['msg']}"}


def _utc(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is before year 1 or after year 9999") from None


def _joined(text: Any) -> Any:
    """What chat APIs give as a list of text parts, as one text; anything else as it is, to be accepted or refused for its type."""
    is_parts = isinstance(text, list) and text and all(isinstance(part, dict) and part.get("type") in _TEXT_PARTS for part in text)
    parts = [part.get("text") for part in text] if is_parts else []
    return "\n".join(parts) if parts and all(isinstance(part, str) for part in parts) else text


_SCALARS: Mapping[DataTypeClass, Any] = {
    pl.String: str,
    pl.Boolean: Annotated[bool, Strict()],
    pl.Float64: Annotated[float, Strict()],
    pl.Datetime: Annotated[datetime, AfterValidator(_utc)],
}


def _row_type(types: pl.Schema) -> Any:
    as_text = Annotated[str, Field(coerce_numbers_to_str=True)]
    return _object({name: as_text if dtype == pl.String else _python_type(dtype) for name, dtype in types.items()})


def _object(types: dict[str, Any]) -> Any:
    return TypedDict("Row", {name: kind | None for name, kind in types.items()}, total=False)  # type: ignore[operator]


def _python_type(dtype: pl.DataType | DataTypeClass) -> Any:
    """What a value of a column must be in JSON."""
    if isinstance(dtype, pl.List):
        entry = _python_type(dtype.inner) | None
        return list[entry]  # type: ignore[valid-type]
    if isinstance(dtype, pl.Struct):
        within = {field.name: _python_type(field.dtype) for field in dtype.fields}
        return _object({name: Annotated[str, BeforeValidator(_joined)] if kind is str else kind for name, kind in within.items()})
    return _SCALARS[dtype.base_type()]
