"""The lake's files: paths, atomic writes by partition, scans that say what is missing, and DuckDB as a reader."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from rlhi_dagster.base.failures import NotMadeError, message
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TURNS, USERS, Table


def fill(table: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(table.columns), **record} for record in records], schema=table.schema)


def turns(*ids_and_months: tuple[str, str | None]) -> pl.DataFrame:
    asked_at = datetime(2023, 4, 1, tzinfo=UTC)
    return fill(TURNS, [{"turn_id": turn_id, "month": month, "asked_at": asked_at} for turn_id, month in ids_and_months])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def test_paths_stay_inside_the_lake(lake: Lake) -> None:
    root = Path(lake.root)
    assert lake.table_path("users") == root / "users" / "table.parquet"
    assert lake.table_path("turns", "2023-04") == root / "turns" / "2023-04.parquet"
    assert lake.artefact_path("checkpoints", "sft") == root / "checkpoints" / "sft"
    assert lake.artefact_path("report") == root / "report"
    for name in ("", "..", "a/b"):
        with pytest.raises(ValueError, match="leave the lake"):
            lake.table_path("turns", name)


def test_write_splits_by_partition_and_keeps_a_month_without_rows(lake: Lake) -> None:
    files = lake.write("turns", turns(("b:0", "2023-06"), ("a:0", "2023-04")), ["2023-04", "2023-05", "2023-06"])
    assert [(file.partition, file.rows) for file in files] == [("2023-04", 1), ("2023-05", 0), ("2023-06", 1)]
    assert lake.partitions_present("turns") == ["2023-04", "2023-05", "2023-06"]
    assert lake.scan("turns", ["2023-05"]).collect().schema == TURNS.schema
    assert lake.scan("turns").collect()["turn_id"].to_list() == ["a:0", "b:0"]


@pytest.mark.parametrize("stray", ["2023-07", None])
def test_row_outside_the_partitions_is_refused_before_anything_is_written(lake: Lake, stray: str | None) -> None:
    with pytest.raises(ValueError, match=rf"turns: 1 rows have a month outside 2023-04: {stray} \(1\)"):
        lake.write("turns", turns(("a:0", "2023-04"), ("b:0", stray)), ["2023-04"])
    assert lake.partitions_present("turns") == []


def test_write_refuses_unknown_tables_missing_columns_and_wrong_partitioning(lake: Lake) -> None:
    with pytest.raises(ValueError, match="nonsense is not a table"):
        lake.write("nonsense", turns())
    with pytest.raises(ValueError, match="lacks the column"):
        lake.write("turns", turns(("a:0", "2023-04")).drop("prompt"), ["2023-04"])
    with pytest.raises(ValueError, match="turns is partitioned by month, but was given none"):
        lake.write("turns", turns())
    with pytest.raises(ValueError, match="users is not partitioned, but was given partitions"):
        lake.write("users", USERS.empty(), ["2023-04"])


def test_failed_write_leaves_the_old_file_and_no_debris(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write("users", fill(USERS, [{"user_id": "old"}]))

    def half_written(self: pq.ParquetWriter, rows: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", half_written)
    with pytest.raises(OSError, match="disk full"):
        lake.write("users", fill(USERS, [{"user_id": "new"}]))
    assert [path.name for path in lake.table_path("users").parent.iterdir()] == ["table.parquet"]
    assert lake.scan("users").collect()["user_id"].to_list() == ["old"]


def test_same_rows_in_another_order_have_the_same_bytes_and_digest(lake: Lake) -> None:
    rows = turns(("b:0", "2023-04"), ("a:0", "2023-04"))
    (first,) = lake.write("turns", rows, ["2023-04"])
    content = first.path.read_bytes()
    (second,) = lake.write("turns", rows.reverse(), ["2023-04"])
    assert second.content_sha256 == first.content_sha256
    assert second.path.read_bytes() == content


def test_scan_says_what_is_missing_and_how_to_make_it(lake: Lake) -> None:
    def told(asset: str, partitions: list[str] | None = None) -> str:
        with pytest.raises(NotMadeError) as raised:
            lake.scan(asset, partitions)
        return message(raised.value)

    launch = 'run: DAGSTER_HOME="$(rlhi home)" dg launch --assets'
    assert told("users") == f"users has not been materialized; {launch} users"
    assert told("turns") == f'turns has not been materialized; {launch} turns --partition-range "$(rlhi months)"'
    lake.write("turns", turns(), ["2023-04"])
    lacks = "turns lacks the partition(s) 2023-05, 2023-06"
    assert told("turns", ["2023-06", "2023-04", "2023-05"]) == f"{lacks}; {launch} turns --partition-range 2023-05...2023-06"


def test_partitions_are_read_in_order_however_they_are_given(lake: Lake) -> None:
    lake.write("turns", turns(("a:0", "2023-04"), ("b:0", "2023-05"), ("c:0", "2023-06")), ["2023-04", "2023-05", "2023-06"])
    assert lake.scan("turns", ["2023-06", "2023-04", "2023-05"]).collect()["month"].to_list() == ["2023-04", "2023-05", "2023-06"]


def test_duckdb_reads_a_view_per_table_and_exports_them(lake: Lake, tmp_path: Path) -> None:
    lake.write("turns", turns(("a:0", "2023-04"), ("b:0", "2023-05")), ["2023-04", "2023-05"])
    lake.write("users", fill(USERS, [{"user_id": "u"}]))
    with lake.connect() as connection:
        assert connection.execute("SELECT month, count(*) FROM turns GROUP BY month ORDER BY month").fetchall() == [
            ("2023-04", 1),
            ("2023-05", 1),
        ]
    exported = tmp_path / "it's here" / "rlhi.duckdb"
    for _ in range(2):
        assert lake.export_duckdb(exported) == ["turns", "users"]
    assert [path.name for path in exported.parent.iterdir()] == ["rlhi.duckdb"]
    with pytest.raises(ValueError, match=f"there is no table in {tmp_path}/none"):
        Lake(root=str(tmp_path / "none")).export_duckdb(exported)
    assert [path.name for path in exported.parent.iterdir()] == ["rlhi.duckdb"]
    with duckdb.connect(str(exported), read_only=True) as database:
        assert database.execute("SELECT count(*) FROM turns").fetchone() == (2,)
