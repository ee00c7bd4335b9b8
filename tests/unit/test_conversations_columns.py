"""Reading column by column gives exactly what reading value by value gives."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings
from rlhi_dagster.conversations.sources.cells import ABSENT, WHITE

NOW = datetime(2024, 1, 1, tzinfo=UTC)
START = datetime(2023, 6, 1, tzinfo=UTC)
QUIET = [HealthCheck.function_scoped_fixture]


def rows(location: Path, kind: SourceKind, *, by_values: bool) -> pl.DataFrame:
    source = SourceRows(SourceSettings(name="s", kind=kind, location=str(location), assumed_start=START), now=NOW)
    if by_values:
        source.__dict__["_by_columns"] = {}
    else:
        assert source._by_columns
    return source.collect(lambda scanned: scanned).sort("source_file", "row_number")


def assert_same(frame: pl.DataFrame, kind: SourceKind, folder: Path) -> None:
    for file in folder.glob("*.parquet"):
        file.unlink()
    frame.write_parquet(folder / "a.parquet")
    assert_frame_equal(rows(folder, kind, by_values=False), rows(folder, kind, by_values=True))


SPACES = st.text(st.sampled_from(WHITE), max_size=2)
OBJECTS = st.sampled_from(
    ['{"id": 7}', '{"id": null}', '{"name": "n"}', '{"id": {"x": 1}}', "{broken", '{"_id": " "}', '{"id": "a"} ', "{}", "[1]"]
)
WORDS = st.sampled_from([*ABSENT, *(word.upper() for word in ABSENT), "a", "A b", "1", "1.0", "é"]) | OBJECTS | st.text(max_size=4)
TEXTS = st.none() | st.tuples(SPACES, WORDS, SPACES).map("".join)
ROLES = st.none() | st.tuples(
    SPACES, st.sampled_from(["user", "USER", "Assistant", "gpt", "tool", "system", "developer", "narrator", ""]), SPACES
).map("".join)
CONTENTS = TEXTS | st.sampled_from(
    ["<think>hm</think>4", "</think>x", "<think>cut", "  <think>a</think>  b <think>c</think>", "a\n\nb", "[image]"]
)
MOMENTS = st.none() | st.datetimes(datetime(2022, 1, 1), datetime(2025, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
UNITS = st.sampled_from([pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "Europe/Oslo")])
KEY_TYPES = st.sampled_from([pl.String(), pl.Categorical(), pl.Int64(), pl.UInt16(), pl.Int8(), pl.Null()])


def keys(draw: Any, dtype: pl.DataType, count: int) -> pl.Series:
    cells = TEXTS if dtype in (pl.String, pl.Categorical) else st.none() if dtype == pl.Null else st.none() | st.integers(0, 100)
    return pl.Series(draw(st.lists(cells, min_size=count, max_size=count)), dtype=dtype)


def times(draw: Any, count: int) -> pl.Series:
    dtype = draw(UNITS)
    cells = draw(st.lists(MOMENTS, min_size=count, max_size=count))
    moments = pl.Series(cells, dtype=pl.Datetime("us", "UTC"))
    zoned = moments.dt.replace_time_zone(None) if dtype.time_zone is None else moments.dt.convert_time_zone(dtype.time_zone)
    return zoned.cast(dtype)


def conversations(draw: Any, count: int, names: tuple[str, str], *, are_unlike: bool) -> pl.Series:
    """Lists of messages; if they are unlike, none can be the beginning of another."""
    has_time = draw(st.booleans())
    role, content = names
    lists = []
    for number in range(count):
        messages = draw(st.none() | st.lists(st.fixed_dictionaries({role: ROLES, content: CONTENTS, "timestamp": MOMENTS}), max_size=4))
        if are_unlike and messages:
            messages[0] = messages[0] | {role: "user", content: f"{number} {messages[0][content]}"}
        lists.append(messages)
    fields = {role: pl.String(), content: pl.String()} | ({"timestamp": pl.Datetime("us", "UTC")} if has_time else {})
    kept = [entries and [{name: entry[name] for name in fields} for entry in entries] for entries in lists]
    return pl.Series(kept, dtype=pl.List(pl.Struct(fields)))


def optional(draw: Any, columns: dict[str, Any]) -> dict[str, pl.Series]:
    """Some of the columns."""
    return {name: make() for name, make in columns.items() if draw(st.booleans())}


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
@given(data=st.data(), count=st.integers(1, 5))
def test_lists_of_messages(data: st.DataObject, count: int, tmp_path: Path) -> None:
    draw = data.draw
    name, names = draw(
        st.sampled_from([("messages", ("role", "content")), ("conversations", ("from", "value")), ("chat", ("author", "text"))])
    )
    columns = optional(
        draw,
        {
            **{
                key: lambda: keys(draw, draw(KEY_TYPES), count) for key in ("id", "conversation_id", "user", "user_id", "model", "language")
            },
            **{key: lambda: times(draw, count) for key in ("created", "created_at", "timestamp")},
            "toxic": lambda: pl.Series(draw(st.lists(st.none() | st.booleans(), min_size=count, max_size=count)), dtype=pl.Boolean),
            "metadata": lambda: pl.DataFrame({"user_id": keys(draw, draw(KEY_TYPES), count), "timestamp": times(draw, count)}).to_struct(),
            "other": lambda: pl.Series(range(count)),
        },
    )
    columns = {key: column.alias(key) for key, column in columns.items() if key not in ("conversation_id",)}
    assert_same(pl.DataFrame(columns | {name: conversations(draw, count, names, are_unlike=True)}), SourceKind.MESSAGES, tmp_path)


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
@given(data=st.data(), count=st.integers(1, 5))
def test_wildchat(data: st.DataObject, count: int, tmp_path: Path) -> None:
    draw = data.draw
    client = {"accept-language": pl.String(), "user-agent": draw(st.sampled_from([pl.String(), pl.Int64(), pl.Null()]))}
    headers = st.none() | st.fixed_dictionaries(
        {
            name: st.none() if dtype == pl.Null else st.none() | (st.integers(0, 9) if dtype == pl.Int64 else TEXTS)
            for name, dtype in client.items()
        }
    )
    columns = optional(
        draw,
        {
            "model": lambda: keys(draw, draw(KEY_TYPES), count),
            "timestamp": lambda: times(draw, count),
            "hashed_ip": lambda: keys(draw, pl.String(), count),
            "header": lambda: pl.Series(draw(st.lists(headers, min_size=count, max_size=count)), dtype=pl.Struct(client)),
            "language": lambda: keys(draw, pl.String(), count),
            "toxic": lambda: pl.Series(draw(st.lists(st.none() | st.booleans(), min_size=count, max_size=count)), dtype=pl.Boolean),
            "openai_moderation": lambda: pl.Series([[{"flagged": True}]] * count),
        },
    )
    own = {
        "conversation_hash": keys(draw, draw(KEY_TYPES), count),
        "conversation": conversations(draw, count, ("role", "content"), are_unlike=False),
    }
    assert_same(pl.DataFrame(own | columns), SourceKind.WILDCHAT, tmp_path)


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
@given(data=st.data(), count=st.integers(1, 5))
def test_lmsys(data: st.DataObject, count: int, tmp_path: Path) -> None:
    draw = data.draw
    verdict = st.none() | st.fixed_dictionaries({"flagged": st.none() | st.booleans(), "score": st.none() | st.floats(0, 1)})
    verdicts = draw(st.lists(st.none() | st.lists(verdict, max_size=3), min_size=count, max_size=count))
    own = {
        "conversation_id": keys(draw, draw(KEY_TYPES), count),
        "conversation": conversations(draw, count, ("role", "content"), are_unlike=False),
        "openai_moderation": pl.Series(verdicts, dtype=pl.List(pl.Struct({"flagged": pl.Boolean(), "score": pl.Float64()}))),
    }
    flags = st.lists(st.none() | st.booleans(), min_size=count, max_size=count)
    columns = optional(
        draw, {"model": lambda: keys(draw, draw(KEY_TYPES), count), "toxic": lambda: pl.Series(draw(flags), dtype=pl.Boolean)}
    )
    assert_same(pl.DataFrame(own | columns), SourceKind.LMSYS, tmp_path)


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
@given(data=st.data(), count=st.integers(1, 5))
def test_realhumaneval(data: st.DataObject, count: int, tmp_path: Path) -> None:
    draw = data.draw
    dtype = draw(st.sampled_from([pl.Float64(), pl.Float32(), pl.Int64(), pl.UInt8(), pl.Null()]))
    numbers = st.floats(width=32) if dtype.is_float() else st.integers(0, 200) if dtype.is_integer() else st.none()
    seconds = draw(st.lists(st.none() | numbers, min_size=count, max_size=count))
    own = {
        "conversation_id": keys(draw, pl.String(), count),
        "user_id": keys(draw, draw(KEY_TYPES), count),
        "model": keys(draw, pl.String(), count),
        "start_seconds": pl.Series(seconds, dtype=dtype),
        "conversation": conversations(draw, count, ("role", "content"), are_unlike=False),
    }
    if dtype == pl.Null:
        own["start_seconds"] = pl.Series([None] * count, dtype=pl.Float64)
    assert_same(pl.DataFrame(own), SourceKind.REALHUMANEVAL, tmp_path)
