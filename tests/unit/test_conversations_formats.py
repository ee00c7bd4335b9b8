"""The same data say the same in every file format and in every type that a column has, read column by column or value by value."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, month_counts

NOW = datetime(2024, 1, 1, tzinfo=UTC)
START = datetime(2023, 6, 1, tzinfo=UTC)
Row = dict[str, Any]


def settings(location: Path, kind: SourceKind = SourceKind.MESSAGES, **changes: object) -> SourceSettings:
    return SourceSettings(name="s", kind=kind, location=str(location), assumed_start=START, assumed_model="assumed", **changes)


def run(location: Path, kind: SourceKind = SourceKind.MESSAGES) -> Ingested:
    source = settings(location, kind)
    return ingest(source, list(month_counts(source, now=NOW)), "salt", now=NOW)


def talk(number: int) -> list[Row]:
    return [{"role": "user", "content": f"a {number}"}, {"role": "assistant", "content": "b"}]


def written(folder: Path, table: pa.Table) -> list[Path]:
    """The table as Parquet, as Arrow's file format and as its stream format."""
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "a.parquet")
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    (folder / "stream").mkdir(exist_ok=True)
    with pa.ipc.new_stream(folder / "stream/a.arrow", table.schema) as writer:
        writer.write_table(table)
    return [folder / "a.parquet", folder / "a.arrow", folder / "stream/a.arrow"]


def as_lines(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "a.jsonl"


def assert_same(first: Ingested, second: Ingested) -> None:
    assert_frame_equal(first.conversations.sort("conversation_id"), second.conversations.sort("conversation_id"))
    for name in ("quarantine", "superseded"):
        frames = [getattr(each, name).drop("row_id", "source_file", "detail", strict=False) for each in (first, second)]
        assert_frame_equal(*frames, check_row_order=False)
    assert first.rows_in == second.rows_in


def uuids(numbers: list[int | None]) -> pa.Array:
    stored = pa.array([None if number is None else UUID(int=number).bytes for number in numbers], pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), stored)


def strings(dtype: pa.DataType) -> Callable[[list[int | None]], pa.Array]:
    return lambda numbers: pa.array([None if number is None else f"u{number}" for number in numbers]).cast(dtype)


def texts(spelt: Callable[[int], str]) -> Callable[[list[int | None]], pa.Array]:
    return lambda numbers: pa.array([None if number is None else spelt(number) for number in numbers], pa.string())


def nested(numbers: list[int | None]) -> pa.Array:
    return pa.array([{"id": number, "name": "n"} for number in numbers], pa.struct({"id": pa.int64(), "name": pa.string()}))


DAY = date(2023, 1, 1)
TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int8(), pa.string()))
MAP = pa.map_(pa.string(), pa.string())
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
Typed = tuple[Callable[[int], Any], Callable[[list[int | None]], pa.Array]]
KEYS: dict[str, Typed] = {
    **{str(dtype): (lambda n: n, lambda numbers, dtype=dtype: pa.array(numbers, dtype)) for dtype in (pa.int64(), pa.int16(), pa.uint64())},
    "whole floats": (lambda n: n, lambda numbers: pa.array(numbers, pa.float64())),
    "small floats": (lambda n: n, lambda numbers: pa.array(numbers, pa.float32())),
    "floats": (lambda n: n + 0.1, lambda numbers: pa.array([n and n + 0.1 for n in numbers], pa.float64())),
    "floats in lines": (float, lambda numbers: pa.array(numbers, pa.int64())),
    "nan": (lambda n: n, lambda numbers: pa.array([float("nan") if n is None else n for n in numbers], pa.float64())),
    "whole decimals": (lambda n: n, lambda numbers: pa.array(numbers, pa.decimal128(12))),
    "decimals": (lambda n: n + 0.5, lambda numbers: pa.array([n and Decimal(n) + Decimal("0.50") for n in numbers], pa.decimal128(12, 2))),
    "uuid": (lambda n: str(UUID(int=n)), uuids),
    **{str(dtype): (lambda n: f"u{n}", strings(dtype)) for dtype in TEXTS},
    "binary that is no text": (
        lambda n: f"ff{n:04x}",
        lambda numbers: pa.array([n and b"\xff" + n.to_bytes(2, "big") for n in numbers], pa.binary()),
    ),
    "binary of lines": (lambda n: f"a\n{n}", lambda numbers: pa.array([n and f"a\n{n}".encode() for n in numbers], pa.binary())),
    "bool": (lambda n: n % 2 == 0, lambda numbers: pa.array([n and n % 2 == 0 for n in numbers], pa.bool_())),
    "date": (lambda n: str(DAY + timedelta(n)), lambda numbers: pa.array([n and DAY + timedelta(n) for n in numbers], pa.date32())),
    "time": (
        lambda n: f"2023-01-01T00:00:{n % 60:02}Z",
        lambda numbers: pa.array([n and datetime(2023, 1, 1, 0, 0, n % 60) for n in numbers], pa.timestamp("ms", "Asia/Tokyo")),  # noqa: DTZ001
    ),
    "object": (lambda n: {"id": n, "name": "n"}, nested),
    "object as text": (lambda n: {"id": n, "name": "n"}, texts(lambda n: json.dumps({"id": n, "name": "n"}))),
    "object as text in lines": (lambda n: json.dumps({"id": n, "name": "n"}), nested),
    "map": (lambda n: {"id": str(n)}, lambda numbers: pa.array([n and [("id", str(n))] for n in numbers], MAP)),
}  # fmt: skip
NUMBERS: list[int | None] = [7, None, 300, 7, 12]
QUIET = [HealthCheck.function_scoped_fixture]


def table_of(fields: dict[str, str], numbers: list[int | None]) -> tuple[list[Row], pa.Table]:
    """Rows, as lines and as a table, whose fields have keys of some types."""
    rows: list[Row] = [{"id": f"c{number}", "messages": talk(number)} for number in range(len(numbers))]
    columns = {"id": pa.array([row["id"] for row in rows]), "messages": pa.array([row["messages"] for row in rows])}
    for field, name in fields.items():
        plain, array = (KEYS | TIMES)[name]
        column, within = array(numbers), field.partition(".")
        columns[within[0]] = pa.StructArray.from_arrays([column], [within[2]]) if within[2] else column
        for row, number in zip(rows, numbers, strict=True):
            cell = None if number is None else plain(number)
            row[within[0]] = {within[2]: cell} if within[2] else cell
    return rows, pa.table(columns)


def assert_same_in_every_format(rows: list[Row], table: pa.Table, folder: Path) -> None:
    expected = run(as_lines(folder / "lines", rows))
    for file in written(folder / "tables", table):
        assert_same(run(file), expected)


@pytest.mark.parametrize("fields", [("user", "model"), ("id", "metadata.user_id")])
@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_key_is_the_same_in_every_format(name: str, fields: tuple[str, ...], tmp_path: Path) -> None:
    assert_same_in_every_format(*table_of(dict.fromkeys(fields, name), NUMBERS), tmp_path)


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
@given(data=st.data(), numbers=st.lists(st.none() | st.integers(1, 300), min_size=1, max_size=5))
def test_any_types_beside_each_other_are_the_same(data: st.DataObject, numbers: list[int | None], tmp_path: Path) -> None:
    keys, times = st.sampled_from(sorted(KEYS)), st.sampled_from(sorted(TIMES))
    optional = {"user": keys, "metadata.user_id": keys, "id": keys, "model": keys, "created": times, "timestamp": times}
    fields = data.draw(st.fixed_dictionaries({}, optional=optional))
    assert_same_in_every_format(*table_of(fields, numbers), tmp_path)


ZONES = (None, "UTC", "Europe/Oslo", "+05:30", "America/Sao_Paulo")
TIMES: dict[str, Typed] = {
    **{
        f"{unit} {zone}": (
            lambda n, unit=unit: stamped(n, unit),
            lambda numbers, unit=unit, zone=zone: stamps(numbers, unit).cast(pa.timestamp(unit, zone)),
        )
        for unit in UNITS
        for zone in ZONES
    },
    **{f"{unit} as a number": (lambda n, unit=unit: stamped(n, unit), lambda numbers, unit=unit: stamps(numbers, unit)) for unit in UNITS},
    "a fraction": (lambda n: stamped(n, "ms"), lambda numbers: pa.array([n and moment(n, "ms").timestamp() for n in numbers])),
    "text": (lambda n: stamped(n, "us"), texts(lambda n: moment(n, "us").isoformat(" "))),
    "number as text": (lambda n: stamped(n, "ms"), texts(lambda n: str(round(moment(n, "ms").timestamp() * 1000)))),
    "date": (lambda n: str(DAY + timedelta(n)), lambda numbers: pa.array([n and DAY + timedelta(n) for n in numbers], pa.date32())),
    "date in ms": (lambda n: str(DAY + timedelta(n)), lambda numbers: pa.array([n and DAY + timedelta(n) for n in numbers], pa.date64())),
    "null": (lambda n: None, lambda numbers: pa.nulls(len(numbers))),
    "dictionary": (lambda n: stamped(n, "us"), lambda numbers: texts(lambda n: moment(n, "us").isoformat())(numbers).dictionary_encode()),
}  # fmt: skip


def moment(number: int, unit: str) -> datetime:
    exact = datetime(2023, 3, 1, tzinfo=UTC) + timedelta(hours=13 * number, microseconds=number * 654_321)
    return exact.replace(microsecond={"s": 0, "ms": exact.microsecond // 1000 * 1000}.get(unit, exact.microsecond))


def stamped(number: int, unit: str) -> str:
    return moment(number, unit).isoformat()


def stamps(numbers: list[int | None], unit: str) -> pa.Array:
    """Times as numbers of a unit; nanoseconds have some more than microseconds."""
    since = [
        None if number is None else (moment(number, unit) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        for number in numbers
    ]
    scaled = [None if each is None else each * 1000 + 789 if unit == "ns" else each // (10**6 // UNITS[unit]) for each in since]
    return pa.array(scaled, pa.int64())


@pytest.mark.parametrize("name", sorted(TIMES))
def test_a_time_is_the_same_in_every_format(name: str, tmp_path: Path) -> None:
    assert_same_in_every_format(*table_of({"created_at": name}, NUMBERS), tmp_path)


@pytest.mark.parametrize("name", sorted(TIMES))
def test_a_time_of_messages_is_the_same_in_every_format(name: str, tmp_path: Path) -> None:
    plain, array = TIMES[name]
    rows, table = table_of({}, NUMBERS)
    column = array(NUMBERS)
    for row, number in zip(rows, NUMBERS, strict=True):
        row["messages"][0]["timestamp"] = None if number is None else plain(number)
    said = [[message[name] for row in rows for message in row["messages"]] for name in ("role", "content")]
    times = pa.concat_arrays([part for number in range(len(rows)) for part in (column[number : number + 1], pa.nulls(1, column.type))])
    entries = pa.StructArray.from_arrays([*map(pa.array, said), times], ["role", "content", "timestamp"])
    messages = pa.ListArray.from_arrays(pa.array(range(0, 2 * len(rows) + 1, 2), pa.int32()), entries)
    assert_same_in_every_format(rows, table.set_column(1, "messages", messages), tmp_path)


ENTRY = pa.struct({"role": pa.string(), "content": pa.string()})
BYTES = pa.struct({"role": pa.binary(), "content": pa.binary()})
CATEGORIES = pa.struct({"role": pa.dictionary(pa.int8(), pa.string()), "content": pa.large_string()})
MESSAGES: dict[str, Callable[[list[list[Row]]], pa.Array]] = {
    "list": lambda lists: pa.array(lists, pa.list_(ENTRY)),
    "large list": lambda lists: pa.array(lists, pa.large_list(ENTRY)),
    "list view": lambda lists: pa.array(lists, pa.list_view(ENTRY)),
    "fixed list": lambda lists: pa.array(lists, pa.list_(ENTRY, 2)),
    "categories": lambda lists: pa.array(lists, pa.list_(CATEGORIES)),
    "JSON": lambda lists: pa.array([json.dumps(each) for each in lists]),
    "JSON twice": lambda lists: pa.array([json.dumps(json.dumps(each)) for each in lists]),
    "JSON messages": lambda lists: pa.array([[json.dumps(message) for message in each] for each in lists]),
    "JSON as bytes": lambda lists: pa.array([json.dumps(each).encode() for each in lists], pa.binary()),
    "struct of lists": lambda lists: pa.array([{name: [m[name] for m in each] for name in ("role", "content")} for each in lists]),
    "maps": lambda lists: pa.array([[list(message.items()) for message in each] for each in lists], pa.list_(MAP)),
    "parts": lambda lists: pa.array([[m | {"content": [{"type": "text", "text": m["content"]}]} for m in each] for each in lists]),
    "bytes in messages": lambda lists: pa.array(lists, pa.list_(ENTRY)).cast(pa.list_(BYTES)),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_the_same_in_every_type(name: str, tmp_path: Path) -> None:
    lists = [talk(number) for number in range(3)]
    rows = [{"id": f"c{number}", "user": "u", "messages": each} for number, each in enumerate(lists)]
    table = pa.table({"id": [row["id"] for row in rows], "user": ["u"] * 3, "messages": MESSAGES[name](lists)})
    assert len(run(as_lines(tmp_path, rows)).conversations) == 3
    assert_same_in_every_format(rows, table, tmp_path)


def test_a_struct_of_lists_of_different_lengths_loses_nothing(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "messages": [{"role": ["user", "assistant"], "content": ["a", "b", "c"]}]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert run(tmp_path).quarantine["reason"].to_list() == ["unknown_role"]  # a message without a role is not left out
