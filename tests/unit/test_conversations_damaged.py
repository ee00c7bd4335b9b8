"""Damaged Parquet and Arrow files, read column by column and value by value: every row is there, and the damage is told."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings, detect_kind, month_counts, parquet
from rlhi_dagster.conversations.sources.records import Broken

NOW = datetime(2024, 1, 1, tzinfo=UTC)
START = datetime(2023, 6, 1, tzinfo=UTC)
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def settings(location: Path, kind: SourceKind = SourceKind.MESSAGES) -> SourceSettings:
    return SourceSettings(name="s", kind=kind, location=str(location), assumed_start=START)


def run(location: Path) -> Ingested:
    source = settings(location, detect_kind(str(location)))
    return ingest(source, list(month_counts(source, now=NOW)), "salt", now=NOW)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"c{i}", "user": f"u{i}", "model": "m", "messages": [TALK[0] | {"content": f"a {i}"}, TALK[1]]} for i in range(count)]


def write(path: Path, count: int = 6, *, by_values: bool) -> Path:
    """A file of row groups of two rows, with messages as JSON text if it is to be read value by value."""
    found = rows(count)
    if by_values:
        found = [row | {"messages": json.dumps(row["messages"])} for row in found]
    pl.DataFrame(found).write_parquet(path, row_group_size=2, statistics=False)
    return path


def spoil(path: Path, column: str, *groups: int) -> None:
    """Overwrite a column in some row groups."""
    footer, content = pq.read_metadata(path), bytearray(path.read_bytes())
    for group in map(footer.row_group, groups):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.split(".")[0] == column:
                start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
                content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


@pytest.mark.parametrize("by_values", [False, True])
@pytest.mark.parametrize("column", ["id", "user", "model", "messages"])
@pytest.mark.parametrize("groups", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_rows_of_damaged_row_groups_are_quarantined_and_no_others(
    groups: tuple[int, ...], column: str, by_values: bool, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.parquet", by_values=by_values)
    assert bool(SourceRows(settings(path))._by_columns) is not by_values
    spoil(path, column, *groups)
    found = run(path)
    lost = [2 * group + row for group in groups for row in (0, 1)]
    assert sorted(found.conversations["conversation_id"]) == [f"c{number}" for number in range(6) if number not in lost]
    assert sorted(found.quarantine["row_number"]) == lost
    assert set(found.quarantine["reason"]) == {Reason.UNREADABLE_ROW_GROUP}
    assert all(
        any(f"row group {group} " in f"{detail} " or f"row group {group}:" in detail for group in groups)
        for detail in found.quarantine["detail"]
    )
    assert sum(found.rows_in.values()) == pq.read_metadata(path).num_rows


def test_a_damaged_beginning_hides_no_layout(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", 800, by_values=True)
    spoil(path, "messages", *range(150))
    assert detect_kind(str(path)) is SourceKind.MESSAGES
    (tmp_path / "b.jsonl").write_text("nonsense\n" * 500 + json.dumps(rows(1)[0]))
    assert detect_kind(str(tmp_path / "b.jsonl")) is SourceKind.MESSAGES


@pytest.mark.parametrize("by_values", [False, True])
@pytest.mark.parametrize("rest", [0, 1, 3, 7, 8, 100, -1, -4, -8, -100])
def test_a_parquet_file_without_its_footer_is_named(rest: int, by_values: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", by_values=by_values)
    path.write_bytes(path.read_bytes()[:rest])
    write(tmp_path / "b.parquet", by_values=by_values)
    for location in (path, tmp_path):
        with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet: "):
            month_counts(settings(location), now=NOW)


def test_a_page_whose_checksum_is_wrong_is_damage(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row | {"messages": json.dumps(row["messages"])} for row in rows(6)])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2, compression="none", use_dictionary=False, write_page_checksum=True)
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace(b"a 3", b"a 8"))  # another text, and nothing else wrong
    found = list(parquet.values(str(tmp_path / "a.parquet")))
    assert [isinstance(value, Broken) for value in found] == [False, False, True, True, False, False]


def arrow(path: Path, *, as_file: bool) -> Path:
    table = pa.Table.from_pylist(rows(6))
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("as_file", [False, True])
def test_an_arrow_file_that_is_cut_anywhere_is_read_as_far_as_it_goes(as_file: bool, tmp_path: Path) -> None:
    content = arrow(tmp_path / "a.arrow", as_file=as_file).read_bytes()
    numbers = []
    for end in range(len(content), 0, -97):
        (tmp_path / "a.arrow").write_bytes(content[:end])
        try:
            found = list(parquet.values(str(tmp_path / "a.arrow")))
        except ValueError as error:
            assert "a.arrow cannot be read as Arrow" in str(error)  # noqa: PT017 - whether it is raised depends on where the file ends
            numbers.append(0)
            continue
        whole = [value for value in found if not isinstance(value, Broken)]
        assert whole == rows(6)[: len(whole)]
        assert len(found) - len(whole) <= 1
        assert parquet.count(str(tmp_path / "a.arrow")) == len(found)
        numbers.append(len(whole))
    assert numbers == sorted(numbers, reverse=True)
    assert set(numbers) == {0, 2, 4, 6}


def test_the_damage_of_an_arrow_file_is_one_quarantined_row(tmp_path: Path) -> None:
    content = arrow(tmp_path / "a.arrow", as_file=False).read_bytes()
    (tmp_path / "a.arrow").write_bytes(content[: len(content) * 2 // 3])
    found = run(tmp_path / "a.arrow")
    assert (len(found.conversations), found.quarantine["reason"].to_list()) == (2, [Reason.UNREADABLE_ROW_GROUP])
    assert found.quarantine["detail"].to_list() == ["the file is damaged or cut off after part 1"]


BEYOND: dict[str, pa.Array] = {
    "a date": pa.array([10_000_000, 19_500], pa.date32()),
    "a time in seconds": pa.array([10**12, 1_690_000_000], pa.timestamp("s")),
    "a time in microseconds": pa.array([4 * 10**17, 1_690_000_000_000_000], pa.timestamp("us", "UTC")),
    "a time before year 1": pa.array([-(10**17), 1_690_000_000_000_000], pa.timestamp("us")),
}


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("column", ["created", "unread"])
def test_a_value_beyond_what_can_be_held_costs_its_own_row_and_only_where_it_is_read(name: str, column: str, tmp_path: Path) -> None:
    lists = [json.dumps(row["messages"]) for row in rows(2)]
    pq.write_table(pa.table({"id": ["c0", "c1"], "model": ["m", "m"], column: BEYOND[name], "messages": lists}), tmp_path / "a.parquet")
    found = run(tmp_path)
    assert found.conversations["conversation_id"].to_list() == (["c1"] if column == "created" else ["c0", "c1"])
    assert found.quarantine["detail"].to_list() == (["started_at: a value out of range, not a time"] if column == "created" else [])


def test_a_zone_that_nobody_knows_is_no_damage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2023, 11, 14, 22, 13, 20)  # noqa: DTZ001 - Arrow's zones are beside the moment
    zones = ("+05:30", "-0300", "Mars/Olympus", "UTC")
    for number, zone in enumerate(zones):
        times = pa.array([moment], pa.timestamp("ms")).cast(pa.timestamp("ms", zone))
        entries = pa.array([[TALK[0] | {"content": str(number)}, TALK[1]]])
        table = pa.table({"id": [f"c{number}"], "model": ["m"], "created": times, "messages": entries})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    found = run(tmp_path)
    assert found.conversations["started_at"].to_list() == [moment.replace(tzinfo=UTC)] * 4
    assert "panicked" not in capfd.readouterr().err


def test_a_date_is_its_midnight(tmp_path: Path) -> None:
    days = [date(2023, 11, 14) + timedelta(number) for number in range(2)]
    pq.write_table(pa.table({"id": ["a", "b"], "model": ["m"] * 2, "date": days, "messages": [TALK, TALK]}), tmp_path / "a.parquet")
    assert sorted(run(tmp_path).conversations["started_at"]) == [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days]
