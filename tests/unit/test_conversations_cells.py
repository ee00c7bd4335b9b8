"""Keys, times and flags: one text or moment for the many spellings of the same, and a sentence for what is none."""

from __future__ import annotations

from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from rlhi_dagster.conversations.sources import cells
from rlhi_dagster.conversations.sources.cells import ABSENT, WHITE, MistypedError, OutOfRange

MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
NUMBER = 1_700_000_000

SPELT = {
    # ISO 8601 and its liberties
    "2023-11-14T22:13:20Z": MOMENT,
    "2023-11-14t22:13:20z": MOMENT,
    "2023-11-14 22:13:20": MOMENT,
    "  2023-11-14T22:13:20Z\n": MOMENT,
    "2023-11-14T22:13Z": MOMENT.replace(second=0),
    "2023-11-14T22:13:20,5Z": MOMENT.replace(microsecond=500_000),
    "2023-11-14T22:13:20.123456789Z": MOMENT.replace(microsecond=123_456),
    "2023-11-14T23:13:20+01:00": MOMENT,
    "2023-11-15T03:43:20+0530": MOMENT,
    "2023-11-14": MOMENT.replace(hour=0, minute=0, second=0),
    # Postgres
    "2023-11-14 22:13:20+00": MOMENT,
    "2023-11-14 22:13:20.123456+00": MOMENT.replace(microsecond=123_456),
    "2023-11-14 17:13:20-05": MOMENT,
    "2023-11-15 03:43:20+05:30": MOMENT,
    "2023-11-14 22:32:52+00:19:32": MOMENT,
    # DuckDB
    "2023-11-14 22:13:20.1+00": MOMENT.replace(microsecond=100_000),
    "2023-11-14 22:13:20.123456789": MOMENT.replace(microsecond=123_456),
    # BigQuery
    "2023-11-14 22:13:20 UTC": MOMENT,
    "2023-11-14 22:13:20.123456 UTC": MOMENT.replace(microsecond=123_456),
    "2023-11-14 14:13:20 America/Los_Angeles": MOMENT,
    "1.7E9": MOMENT,
    "1.70000000012345E9": MOMENT.replace(microsecond=123_450),
    # Snowflake, Java, Go, Python, JavaScript
    "2023-11-14 22:13:20.000 +0000": MOMENT,
    "2023-11-14T23:13:20+01:00[Europe/Paris]": MOMENT,
    "2023-11-14T22:13:20Z[UTC]": MOMENT,
    "2023-11-14 22:13:20.5 +0000 UTC": MOMENT.replace(microsecond=500_000),
    "2023-11-14 23:13:20 GMT+01:00": MOMENT,
    "2023-11-14 22:13:20+00:00": MOMENT,
    "Tue Nov 14 2023 23:13:20 GMT+0100 (Central European Standard Time)": MOMENT,
    "Tue Nov 14 2023 22:13:20 GMT+0000": MOMENT,
    # e-mail, HTTP and C
    "Tue, 14 Nov 2023 22:13:20 GMT": MOMENT,
    "Tue, 14 Nov 2023 17:13:20 -0500": MOMENT,
    "Tue, 14 Nov 2023 17:13:20 EST": MOMENT,
    "14 Nov 2023 22:13:20 +0000": MOMENT,
    "Tuesday, 14-Nov-23 22:13:20 UTC": MOMENT,
    "Tue Nov 14 22:13:20 2023": MOMENT,
    # numbers as text
    "1700000000": MOMENT,
    "1700000000.5": MOMENT.replace(microsecond=500_000),
    "1700000000123": MOMENT.replace(microsecond=123_000),
    "1700000000123456789": MOMENT.replace(microsecond=123_456),
}


@pytest.mark.parametrize("text", SPELT)
def test_a_time_in_words(text: str) -> None:
    assert cells.time(text) == SPELT[text]


@pytest.mark.parametrize(
    "text",
    [
        "yesterday", "12:01", "11/14/2023 22:13", "14/11/2023", "2023-11-14T25:00:00Z", "2023-13-01", "2023-02-30", "2023-11",
        "Nov 14, 2023", "Nov 14, 2023, 10:13:20 PM", "2023-11-14 10:13:20 PM", "May 5",
        "2023-11-14 22:13:20 EST", "2023-11-14 22:13:20 Mars/Olympus",
        "Tue, 14 Nov 2023 22:13:20 CET", "1 2 3 4 5", "2023-11-14T22:13:20+99:00", "infinity", "\uff12023-11-14",
        "9999-12-31T23:59:59-10:00",
    ],
)  # fmt: skip
def test_a_text_that_is_no_time_or_not_surely_one_is_none(text: str) -> None:
    with pytest.raises(MistypedError, match=r"a text that is no time|a time before year 1 or after year 9999"):
        cells.time(text)


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("kind", [int, float, Decimal, str])
def test_a_number_is_seconds_or_what_its_size_says(kind: Any, scale: int) -> None:
    assert cells.time(kind(NUMBER * scale)) == MOMENT
    assert cells.time({"$date": {"$numberLong": str(NUMBER * 1000)}}) == MOMENT


def test_fractions_of_numbers_are_exact_to_the_microsecond() -> None:
    for microsecond in (0, 1, 123_456, 500_000, 999_999):
        assert cells.time(NUMBER * 10**6 + microsecond) == MOMENT.replace(microsecond=microsecond)
        assert cells.time(NUMBER * 10**9 + microsecond * 1000 + 999) == MOMENT.replace(microsecond=microsecond)
        assert cells.time(NUMBER + microsecond / 1e6) == MOMENT.replace(microsecond=microsecond)
    assert cells.time(-1) == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("value", [True, 1e300, float("inf"), 10**40, [1], {"a": 1}, clock(12), OutOfRange(), b"x"])
def test_what_is_no_time_is_told_by_what_it_is(value: Any) -> None:
    with pytest.raises(MistypedError, match=r"not a time|a number that is no time"):
        cells.time(value)


@pytest.mark.parametrize("spaces", ["", " ", "\t\n", WHITE])
@pytest.mark.parametrize("word", ABSENT)
def test_what_says_that_there_is_nothing_is_absent(word: str, spaces: str) -> None:
    for text in (word, word.upper(), word.title()):
        assert cells.key(spaces + text + spaces) is None
        assert cells.time(spaces + text + spaces) is None
        assert cells.flag(spaces + text + spaces) is None
    assert cells.key(word.encode()) is None


def test_white_space_is_what_python_takes_for_it() -> None:
    assert set(WHITE) == {chr(number) for number in range(0x110000) if chr(number).isspace()}


KEYS: list[tuple[Any, str | None]] = [
    ("u1", "u1"), (" lead", " lead"), ("ID", "ID"), ("1.0", "1.0"), (1, "1"), (1.0, "1"), (-0.0, "0"), (1.5, "1.5"), (1e22, "1" + "0" * 22),
    (12345678901234567890, "12345678901234567890"), (float("nan"), None), (float("inf"), None), (None, None),
    (True, "true"), (False, "false"),
    (Decimal("101"), "101"), (Decimal("1E+2"), "100"), (Decimal("1.50"), "1.5"), (Decimal("NaN"), None),
    (UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2"), "7d444840-9dc0-11d1-b245-5ffdce74fad2"), (b"u1", "u1"), (b"a\nb", "a\nb"), (b"", None),
    (b"\xff\xfe", "fffe"), (b"\x00" * 16, "00" * 16), (date(2023, 11, 14), "2023-11-14"), (MOMENT, "2023-11-14T22:13:20Z"),
    ({"id": 1}, "1"), ({"_id": {"$oid": "abc"}, "key": "k"}, "abc"), ({"id": {"x": 1}, "key": "k"}, "k"),
    ({"$oid": "abc"}, "abc"), ({"id": None}, None),
    ('{"id": 1, "name": "n"}', "1"), (' {"id": "a"}', "a"), ('{"name": "n"}', '{"name": "n"}'), ("{no JSON", "{no JSON"), ("[1]", "[1]"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), KEYS)
def test_a_key_has_one_text(value: Any, text: str | None) -> None:
    assert cells.key(value) == text


@pytest.mark.parametrize("value", [["x"], {"name": "n"}, {"id": {"x": 1}}, clock(12), OutOfRange()])
def test_what_is_no_key_is_told_by_what_it_is(value: Any) -> None:
    with pytest.raises(MistypedError, match="not a text or a number"):
        cells.key(value)


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "true", "True", "YES", b"true", Decimal(1), "t"])
def test_a_flag_that_is_true(value: Any) -> None:
    assert cells.flag(value) is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", "false", "No", "f", b"0"])
def test_a_flag_that_is_false(value: Any) -> None:
    assert cells.flag(value) is False


@pytest.mark.parametrize("value", [2, 0.7, "perhaps", [], {}])
def test_what_is_no_flag_is_told(value: Any) -> None:
    with pytest.raises(MistypedError):
        cells.flag(value)


def test_fields_within_fields_and_json_text_are_found() -> None:
    row = {"metadata": '{"user_id": "u", "deep": {"er": 1}}', "a": {"b.c": 2, "b": {"c": 3}}, "x.y": 4, "x": {"y": 5}, "list": [1]}
    assert [cells.at(row, path) for path in ("metadata.user_id", "metadata.deep.er", "a.b.c", "x.y", "list.0", "nothing", "a.nothing")] == [
        "u", 1, 2, 4, None, None, None,
    ]  # fmt: skip
