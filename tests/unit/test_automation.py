"""The schedule asks for the months of the week before; the sensor asks once for what is new; partitions map as documented."""

import json
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from rlhi_dagster.automation import LogFile, new_log_files, weekly_preference_data
from rlhi_dagster.partitions import against_base, months, months_between, partitions_of_run, recipes

STATES = [LogFile("a.parquet", 10, 1), LogFile("b.parquet", 20, 2)]
MONTHS_OF = {"a.parquet": ["2023-04"], "b.parquet": ["2023-05", "2023-04"], "c.parquet": ["2023-06", "2022-01"]}
MONTHS = months("2023-04")


def keys_of(requests: list[dg.RunRequest]) -> list[str | None]:
    return [request.partition_key for request in requests]


@pytest.mark.parametrize(
    ("tick", "expected"),
    [
        (datetime(2023, 5, 15, 3, tzinfo=UTC), ["2023-W19:2023-05"]),
        (datetime(2023, 5, 8, 3, tzinfo=UTC), ["2023-W18:2023-05"]),
        (datetime(2023, 7, 3, 3, tzinfo=UTC), ["2023-W26:2023-06", "2023-W26:2023-07"]),
        (datetime(2024, 1, 1, 3, tzinfo=UTC), ["2023-W52:2023-12"]),
    ],
)
def test_schedule_asks_once_for_each_month_of_the_seven_days_before(tick: datetime, expected: list[str]) -> None:
    with dg.build_schedule_context(scheduled_execution_time=tick) as context:
        requests = list(weekly_preference_data(context))
    assert [request.run_key for request in requests] == expected
    assert keys_of(requests) == [key.split(":")[1] for key in expected]


def test_automation_is_stopped_until_someone_starts_it() -> None:
    assert weekly_preference_data.default_status is dg.DefaultScheduleStatus.STOPPED
    assert weekly_preference_data.cron_schedule == "0 3 * * 1"
    assert weekly_preference_data.execution_timezone == "UTC"
    assert new_log_files(list, MONTHS_OF.__getitem__, MONTHS).default_status is dg.DefaultSensorStatus.STOPPED


def look(files: list[LogFile], cursor: str | None, asked: list[str] | None = None) -> dg.SensorResult | dg.SkipReason:
    """Evaluate the sensor once; ``asked`` collects the files whose months it looked up."""

    def months_of(name: str) -> list[str]:
        if asked is not None:
            asked.append(name)
        return MONTHS_OF[name]

    with dg.build_sensor_context(cursor=cursor) as context:
        outcome = new_log_files(lambda: files, months_of, MONTHS)(context)
    assert isinstance(outcome, dg.SensorResult | dg.SkipReason)
    return outcome


def test_sensor_asks_for_each_month_once_then_only_for_what_changed() -> None:
    first = look(STATES, None)
    assert isinstance(first, dg.SensorResult)
    assert keys_of(first.run_requests) == ["2023-04", "2023-05"]
    assert isinstance(look(list(reversed(STATES)), first.cursor), dg.SkipReason)

    asked: list[str] = []
    grown = look([STATES[0], LogFile("b.parquet", 21, 3), LogFile("c.parquet", 5, 3)], first.cursor, asked)
    assert isinstance(grown, dg.SensorResult)
    assert asked == ["b.parquet", "c.parquet"]
    assert keys_of(grown.run_requests) == ["2023-04", "2023-05", "2023-06"]
    assert {request.run_key for request in grown.run_requests}.isdisjoint(request.run_key for request in first.run_requests)


def test_changed_file_asks_for_the_months_it_held_before_too() -> None:
    before = json.dumps({"c.parquet": [1, 1, ["2023-09"]]})
    outcome = look([LogFile("c.parquet", 2, 2)], before)
    assert isinstance(outcome, dg.SensorResult)
    assert keys_of(outcome.run_requests) == ["2023-06", "2023-09"]


def test_removed_file_is_forgotten_without_a_run() -> None:
    first = look(STATES, None)
    assert isinstance(first, dg.SensorResult)
    outcome = look(STATES[:1], first.cursor)
    assert isinstance(outcome, dg.SensorResult)
    assert not outcome.run_requests
    assert json.loads(outcome.cursor or "") == {"a.parquet": [10, 1, ["2023-04"]]}


@pytest.mark.parametrize("cursor", ["not json", "[1]", '{"a.parquet": 3}', '{"a.parquet": [1, 1, [7]]}'])
def test_bad_cursor_starts_over_and_asks_for_the_same_runs(cursor: str) -> None:
    first, again = look(STATES, None), look(STATES, cursor)
    assert isinstance(first, dg.SensorResult)
    assert isinstance(again, dg.SensorResult)
    assert [request.run_key for request in again.run_requests] == [request.run_key for request in first.run_requests]
    assert again.cursor == first.cursor


def test_months_are_open_ended_and_include_the_current_one() -> None:
    keys = months("2023-04").get_partition_keys(current_time=datetime(2023, 7, 2, tzinfo=UTC))
    assert keys == ["2023-04", "2023-05", "2023-06", "2023-07"]
    with pytest.raises(ValueError, match="YYYY-MM"):
        months("2023-4-1")
    assert months_between(date(2023, 11, 30), date(2024, 1, 1)) == ["2023-11", "2023-12", "2024-01"]


def test_recipes_include_base_and_depend_on_it() -> None:
    names = ["base", "dpo", "sft"]
    upstream = against_base(names).get_upstream_mapped_partitions_result_for_partitions(
        recipes(names).subset_with_partition_keys(["dpo"]), recipes(names), recipes(names)
    )
    assert set(upstream.partitions_subset.get_partition_keys()) == {"base", "dpo"}
    for bad in (["dpo"], ["base", "base"]):
        with pytest.raises(ValueError, match="include 'base'"):
            recipes(bad)


def test_partitions_of_a_run_come_from_its_tags() -> None:
    definition = months("2023-04")
    tags = {"dagster/asset_partition_range_start": "2023-05", "dagster/asset_partition_range_end": "2023-07"}
    assert partitions_of_run(tags, definition) == ["2023-05", "2023-06", "2023-07"]
    assert partitions_of_run({"dagster/partition": "2023-05"}, definition) == ["2023-05"]
    assert partitions_of_run({}, definition) is None
    assert partitions_of_run(tags, None) is None
