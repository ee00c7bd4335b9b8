"""Finding, recognising and scanning the files of a source."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import huggingface_hub
import polars as pl
import pyarrow.parquet as pq
import pydantic
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import (
    SourceKind,
    SourceRows,
    SourceSettings,
    detect_kind,
    file_version,
    month_counts,
    source_files,
)
from rlhi_dagster.conversations.sources.records import ROW_MESSAGES

START = datetime(2023, 6, 1, tzinfo=UTC)
NOW = datetime(2024, 1, 1, tzinfo=UTC)
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def wildchat(*times: datetime | None, dtype: pl.DataType | None = None) -> pl.DataFrame:
    frame = pl.DataFrame({"timestamp": pl.Series(times, dtype=dtype or pl.Datetime("us", "UTC"))}).with_row_index("conversation_hash")
    return frame.with_columns(pl.lit("gpt-4").alias("model"), pl.Series("conversation", [TALK] * len(times)))


def realhumaneval(*seconds: float | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "conversation_id": [f"c{i}" for i in range(len(seconds))],
            "user_id": ["u"] * len(seconds),
            "model": ["m"] * len(seconds),
            "start_seconds": pl.Series(seconds, dtype=pl.Float64),
            "conversation": [TALK] * len(seconds),
        }
    )


def settings(location: Path | str, kind: SourceKind = SourceKind.WILDCHAT, **changes: object) -> SourceSettings:
    return SourceSettings(name="s", kind=kind, location=str(location), assumed_start=changes.pop("assumed_start", START), **changes)


def scan_rows(source: SourceSettings) -> pl.DataFrame:
    return SourceRows(source, now=NOW).collect(lambda rows: rows).sort("source_file", "row_number")


def test_files_are_found_by_path_folder_and_glob(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "deep/c.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        wildchat(START).write_parquet(tmp_path / name)
    (tmp_path / "readme.txt").touch()
    every = [str(tmp_path / name) for name in ("a.parquet", "b.parquet", "deep/c.parquet")]
    assert source_files(settings(tmp_path)) == every
    assert source_files(settings(f"{tmp_path}/*.parquet")) == every[:2]
    assert source_files(settings(f"{tmp_path}/**/c.parquet")) == every[2:]
    assert source_files(settings(every[1])) == every[1:2]
    assert scan_rows(settings(tmp_path))["source_file"].to_list() == ["a.parquet", "b.parquet", "deep/c.parquet"]
    assert scan_rows(settings(every[2]))["source_file"].to_list() == ["c.parquet"]


@pytest.mark.parametrize("pattern", ["{}", "{}/*", "{}/**", "{}/**/*", "{}/**/*.parquet"])
def test_links_between_folders_bring_no_file_twice(pattern: str, tmp_path: Path) -> None:
    for name in ("logs/a.parquet", "logs/sub/b.parquet", "elsewhere/c.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        wildchat(START).write_parquet(tmp_path / name)
    logs = tmp_path / "logs"
    for link, to in (("back", logs), ("sub/up", logs), ("linked", tmp_path / "elsewhere")):
        (logs / link).symlink_to(to)
    found = [file.removeprefix(f"{logs}/") for file in source_files(settings(pattern.format(logs)))]
    assert found == ["a.parquet", "linked/c.parquet", "sub/b.parquet"]


@pytest.mark.parametrize("location", ["nothing/*.parquet", "nothing.parquet", "nothing/"])
def test_a_location_without_files_is_named(location: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"location {tmp_path}/{location}".replace("*", r"\*")):
        source_files(settings(f"{tmp_path}/{location}"))


@pytest.mark.parametrize(
    ("location", "pattern"),
    [("hf://datasets/o/d/data/t-*.parquet", "datasets/o/d/data/t-*.parquet"), ("hf://datasets/o/d", "datasets/o/d/**/*")],
)
def test_files_on_the_hub_are_listed_there(location: str, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Hub:
        def glob(self, path: str) -> list[str]:
            asked.append(path)
            return ["datasets/o/d/README.md", "datasets/o/d/data/t-2.parquet", "datasets/o/d/data/t-1.parquet"]

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    assert source_files(settings(location)) == ["hf://datasets/o/d/data/t-1.parquet", "hf://datasets/o/d/data/t-2.parquet"]
    assert asked == [pattern]


def test_a_files_version_follows_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}")
    before = file_version(str(file))
    file.touch()
    assert file_version(str(file)) == before
    file.write_text("[]")
    assert file_version(str(file)) != before

    class Hub:
        def info(self, path: str) -> dict[str, str]:
            return {"hf://datasets/o/d/t.parquet": {"name": "datasets/o/d/t.parquet", "blob_id": "5f3a"}}[path]

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    assert file_version("hf://datasets/o/d/t.parquet") == "5f3a"


def test_kinds_are_told_by_their_columns(tmp_path: Path) -> None:
    wildchat(START).write_parquet(tmp_path / "w.parquet")
    realhumaneval(0.0).write_parquet(tmp_path / "r.parquet")
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "x.parquet")
    assert detect_kind(str(tmp_path / "w.parquet")) is SourceKind.WILDCHAT
    assert detect_kind(str(tmp_path / "r.parquet")) is SourceKind.REALHUMANEVAL
    with pytest.raises(
        ValueError, match=r"x\.parquet has objects with text\. Looked for wildchat: conversation_hash.*realhumaneval: conversation_id"
    ):
        detect_kind(str(tmp_path / "x.parquet"))


def test_rows_are_numbered_per_file_and_missing_columns_are_null(tmp_path: Path) -> None:
    wildchat(START, None).write_parquet(tmp_path / "a.parquet")
    wildchat(START).write_parquet(tmp_path / "b.parquet")
    rows = scan_rows(settings(tmp_path))
    assert rows.select("source_file", "row_number").rows() == [("a.parquet", 0), ("a.parquet", 1), ("b.parquet", 0)]
    assert rows.select("user_key", "language", "is_toxic").null_count().row(0) == (3, 3, 3)
    assert rows["messages"].dtype == ROW_MESSAGES
    assert rows["started_at"].to_list() == [START, None, START]
    assert rows["is_start_assumed"].to_list() == [False, True, False]


def test_times_without_zone_are_utc_and_others_are_converted(tmp_path: Path) -> None:
    wildchat(datetime(2023, 4, 1), dtype=pl.Datetime("ms")).write_parquet(tmp_path / "naive.parquet")  # noqa: DTZ001
    wildchat(datetime(2023, 4, 1, tzinfo=UTC), dtype=pl.Datetime("ns", "Asia/Tokyo")).write_parquet(tmp_path / "tokyo.parquet")
    rows = scan_rows(settings(tmp_path))
    assert rows["started_at"].to_list() == [datetime(2023, 4, 1, tzinfo=UTC)] * 2
    assert rows["month"].to_list() == ["2023-04"] * 2


def test_months_are_counted_without_reading_messages(tmp_path: Path) -> None:
    times = [
        datetime(2023, 9, 1, tzinfo=UTC),
        datetime(2023, 4, 30, 23, tzinfo=UTC),
        None,
        datetime(1970, 1, 1, tzinfo=UTC),
        NOW.replace(year=2025),
    ]
    wildchat(*times).write_parquet(tmp_path / "a.parquet")
    source = settings(tmp_path)
    counts = month_counts(source, now=NOW)
    assert list(counts.items()) == [("2023-04", 1), ("2023-06", 3), ("2023-09", 1)]
    assert "PROJECT 1/4 COLUMNS" in SourceRows(source, now=NOW).scan().select("month").explain()


def test_seconds_of_a_study_count_from_the_assumed_start(tmp_path: Path) -> None:
    realhumaneval(0.0, 90.25, None, float("nan"), float("inf")).write_parquet(tmp_path / "r.parquet")
    rows = scan_rows(settings(tmp_path, SourceKind.REALHUMANEVAL))
    assert rows["started_at"].to_list()[:4] == [START, START.replace(minute=1, second=30, microsecond=250_000), None, None]
    assert rows["started_at"][4].year > 2050
    assert rows["is_start_assumed"].all()
    assert rows["month"].unique().to_list() == ["2023-06"]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read as Parquet"):
        detect_kind(str(tmp_path))
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read as Parquet"):
        month_counts(settings(tmp_path))


def damaged(path: Path, column: str, *, row_group: int = 1) -> None:
    """Write a file of three row groups of two rows, one in a month, and overwrite a column of one of them."""
    times = [datetime(2023, month, 3, tzinfo=UTC) for month in (4, 5, 4, 5, 4, 5)]
    wildchat(*times).write_parquet(path, row_group_size=2, statistics=False)
    group = pq.read_metadata(path).row_group(row_group)
    content = bytearray(path.read_bytes())
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema.split(".")[0] == column:
            start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
            content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("column", "months"),
    [("conversation", ["2023-04", "2023-05"]), ("model", ["2023-04", "2023-05"]), ("timestamp", ["2023-06", "2023-06"])],
)
def test_rows_of_a_damaged_row_group_are_still_there(column: str, months: list[str], tmp_path: Path) -> None:
    damaged(tmp_path / "bad.parquet", column)
    wildchat(START).write_parquet(tmp_path / "good.parquet")
    source = settings(tmp_path)
    rows = SourceRows(source, now=NOW).collect(lambda rows: rows).sort("source_file", "row_number")
    assert rows["row_number"].to_list() == [0, 1, 2, 3, 4, 5, 0]
    unreadable = rows.filter(pl.col("unreadable").is_not_null())
    assert unreadable["row_number"].to_list() == [2, 3]
    assert unreadable["unreadable"].unique().to_list() == [Reason.UNREADABLE_ROW_GROUP]
    assert unreadable["unreadable_detail"].unique().to_list() == [f"row group 1: cannot decode {column}"]
    assert unreadable["month"].to_list() == months  # of their times, if these can be decoded
    sound = rows.filter(pl.col("unreadable").is_null())
    assert sound["messages"].list.len().to_list() == [2] * 5
    assert month_counts(source, now=NOW) == dict(rows.group_by("month").len().sort("month").iter_rows())


def test_a_damaged_column_that_is_not_needed_does_no_harm(tmp_path: Path) -> None:
    damaged(tmp_path / "bad.parquet", "conversation")
    assert month_counts(settings(tmp_path), now=NOW) == {"2023-04": 3, "2023-05": 3}


def test_a_query_that_fails_without_damage_fails(tmp_path: Path) -> None:
    wildchat(START).write_parquet(tmp_path / "good.parquet")
    with pytest.raises(pl.exceptions.ComputeError):
        SourceRows(settings(tmp_path)).collect(lambda rows: rows.select(pl.col("assistant").str.to_integer()))


def test_columns_can_be_named_differently(tmp_path: Path) -> None:
    wildchat(START).with_columns(ip=pl.lit("x")).rename({"conversation_hash": "key"}).write_parquet(tmp_path / "a.parquet")
    rows = scan_rows(settings(tmp_path, fields={"conversation_id": "key", "user": "ip"}))
    assert rows.select("conversation_id", "user_key").rows() == [("0", "x")]
    with pytest.raises(ValueError, match=r"no file has the column tongue, which the settings name for language"):
        scan_rows(settings(tmp_path, fields={"language": "tongue"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"assumed_start": datetime(2023, 6, 1)},  # noqa: DTZ001
        {"assumed_start": datetime(2020, 1, 1, tzinfo=UTC)},
        {"max_messages": 1},
        {"path": "x"},
        {"fields": {"x": "y"}},
    ],
)
def test_settings_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(changes))):
        settings("x", **changes)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in SourceSettings.model_fields.values())
