"""Finding, recognising and scanning the files of a source."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import huggingface_hub
import polars as pl
import pydantic
import pytest

from rlhi_dagster.conversations import sources
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, detect_kind, month_counts, read, scan_rows, source_files

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
    assert scan_rows(settings(tmp_path)).collect()["source_file"].to_list() == ["a.parquet", "b.parquet", "deep/c.parquet"]
    assert scan_rows(settings(every[2])).collect()["source_file"].to_list() == ["c.parquet"]


@pytest.mark.parametrize("location", ["nothing/*.parquet", "nothing.parquet", "nothing/"])
def test_a_location_without_files_is_named(location: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"location {tmp_path}/{location}".replace("*", r"\*")):
        source_files(settings(f"{tmp_path}/{location}"))


@pytest.mark.parametrize(
    ("location", "pattern"),
    [("hf://datasets/o/d/data/t-*.parquet", "datasets/o/d/data/t-*.parquet"), ("hf://datasets/o/d", "datasets/o/d/**/*.parquet")],
)
def test_files_on_the_hub_are_listed_there(location: str, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Hub:
        def glob(self, path: str) -> list[str]:
            asked.append(path)
            return ["datasets/o/d/data/t-2.parquet", "datasets/o/d/data/t-1.parquet"]

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    assert source_files(settings(location)) == ["hf://datasets/o/d/data/t-1.parquet", "hf://datasets/o/d/data/t-2.parquet"]
    assert asked == [pattern]


def test_kinds_are_told_by_their_columns(tmp_path: Path) -> None:
    wildchat(START).write_parquet(tmp_path / "w.parquet")
    realhumaneval(0.0).write_parquet(tmp_path / "r.parquet")
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "x.parquet")
    assert detect_kind(str(tmp_path / "w.parquet")) is SourceKind.WILDCHAT
    assert detect_kind(str(tmp_path / "r.parquet")) is SourceKind.REALHUMANEVAL
    with pytest.raises(ValueError, match=r"wildchat: conversation_hash.*realhumaneval: conversation_id.*it has text"):
        detect_kind(str(tmp_path / "x.parquet"))


def test_rows_are_numbered_per_file_and_missing_columns_are_null(tmp_path: Path) -> None:
    wildchat(START, None).write_parquet(tmp_path / "a.parquet")
    wildchat(START).write_parquet(tmp_path / "b.parquet")
    rows = scan_rows(settings(tmp_path), now=NOW).collect()
    assert rows.select("source_file", "row_number").rows() == [("a.parquet", 0), ("a.parquet", 1), ("b.parquet", 0)]
    assert rows.select("user_key", "language", "is_toxic").null_count().row(0) == (3, 3, 3)
    assert rows["messages"].dtype == sources.ROW_MESSAGES
    assert rows["started_at"].to_list() == [START, None, START]
    assert rows["is_start_assumed"].to_list() == [False, True, False]


def test_times_without_zone_are_utc_and_others_are_converted(tmp_path: Path) -> None:
    wildchat(datetime(2023, 4, 1), dtype=pl.Datetime("ms")).write_parquet(tmp_path / "naive.parquet")  # noqa: DTZ001
    wildchat(datetime(2023, 4, 1, tzinfo=UTC), dtype=pl.Datetime("ns", "Asia/Tokyo")).write_parquet(tmp_path / "tokyo.parquet")
    rows = scan_rows(settings(tmp_path), now=NOW).collect()
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
    assert "PROJECT 1/4 COLUMNS" in scan_rows(source).select("month").explain()


def test_seconds_of_a_study_count_from_the_assumed_start(tmp_path: Path) -> None:
    realhumaneval(0.0, 90.25, None, float("nan"), float("inf")).write_parquet(tmp_path / "r.parquet")
    rows = scan_rows(settings(tmp_path, SourceKind.REALHUMANEVAL), now=NOW).collect()
    assert rows["started_at"].to_list()[:4] == [START, START.replace(minute=1, second=30, microsecond=250_000), None, None]
    assert rows["started_at"][4].year > 2050
    assert rows["is_start_assumed"].all()
    assert rows["month"].unique().to_list() == ["2023-06"]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    for frame, complaint in (
        (wildchat(START).drop("model"), "must have the column.s. model"),
        (wildchat(START).with_columns(conversation=pl.lit("[]")), "conversation is String"),
        (wildchat(START).with_columns(timestamp=pl.lit("2023")), "timestamp is String"),
        (wildchat(START).with_columns(toxic=pl.lit("no")), "toxic is String"),
    ):
        frame.write_parquet(path)
        with pytest.raises(ValueError, match=f"bad.parquet: .*{complaint}"):
            scan_rows(settings(tmp_path))
    path.write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read as Parquet"):
        detect_kind(str(tmp_path))


def test_a_file_with_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    wildchat(START).write_parquet(tmp_path / "good.parquet")
    bad = tmp_path / "worse.parquet"
    wildchat(START).with_columns(model=pl.lit("gpt-x")).write_parquet(bad, compression="uncompressed", statistics=False)
    bad.write_bytes(bad.read_bytes().replace(b"gpt-x", b"gpt-\xff"))
    with pytest.raises(ValueError, match=r"worse\.parquet cannot be decoded"):
        read(scan_rows(settings(tmp_path)), settings(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [{"assumed_start": datetime(2023, 6, 1)}, {"assumed_start": datetime(2020, 1, 1, tzinfo=UTC)}, {"max_messages": 1}, {"path": "x"}],  # noqa: DTZ001
)
def test_settings_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(changes))):
        settings("x", **changes)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in SourceSettings.model_fields.values())
