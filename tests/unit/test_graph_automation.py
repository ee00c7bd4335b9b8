"""Schedule and sensor launch what `make demo` launches, the sensor once for what is new; partitions map as documented."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster_dg_cli.cli.launch import launch_command

from rlhi_dagster import definitions, profiles
from rlhi_dagster.cli import main
from rlhi_dagster.conversations.sources.files import find
from rlhi_dagster.graph import jobs
from rlhi_dagster.graph.automation import LogFile, new_log_files, weekly_preference_data
from rlhi_dagster.graph.declare import Place
from rlhi_dagster.graph.partitions import against_base, months, partitions_of_run, range_tags, recipes

STATES = [LogFile("a.parquet", 10, 1), LogFile("b.parquet", 20, 2)]
MONTHS_OF = {"a.parquet": ["2023-04"], "b.parquet": ["2023-05", "2023-04"], "c.parquet": ["2023-06", "2022-01"]}
MONTHS = months("2023-04")
JOB = jobs.preference_data(Place(profiles.load("sample")))


def range_of(outcome: dg.SensorResult | dg.SkipReason) -> tuple[str, str]:
    """First and last month of the one run that the sensor asks for."""
    assert isinstance(outcome, dg.SensorResult)
    (request,) = outcome.run_requests
    assert request.partition_key is None
    first, last = (request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
    return first, last


def launched_by_hand(job: str, partition_range: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Tags of the run that ``dg launch`` would execute."""
    found: dict[str, str] = {}

    def execute(_job: Any, _instance: Any, _config: Any, tags: Mapping[str, str], *_: Any) -> Any:
        found.update(tags)
        return type("Result", (), {"success": True})

    monkeypatch.setattr("dagster._cli.job.do_execute_command", execute)
    monkeypatch.chdir(profiles.ROOT)
    arguments = ["--job", job, "--partition-range", partition_range]
    done = CliRunner().invoke(launch_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return found


@pytest.mark.parametrize("name", ["new_log_files", "weekly_preference_data"])
def test_sensor_and_schedule_launch_what_make_demo_launches(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("RLHI_PROFILE", "RLHI_SOURCE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    loaded: Any = definitions.defs()
    if name == "new_log_files":
        sensor = loaded.resolve_sensor_def(name)
        with dg.build_sensor_context(definitions=loaded) as looking:
            job, requests = sensor.job.name, sensor(looking).run_requests
    else:
        schedule = loaded.resolve_schedule_def(name)
        with dg.build_schedule_context(scheduled_execution_time=datetime(2026, 1, 5, 3, tzinfo=UTC)) as ticking:
            job, requests = schedule.job.name, [schedule(ticking)]
    (request,) = requests
    assert job == "preference_data"
    assert request.partition_key is None
    assert request.tags == launched_by_hand(job, main.months(), monkeypatch) == range_tags("2023-04", "2023-09")


def test_schedule_asks_for_every_month_of_the_source_once_a_week() -> None:
    schedule = weekly_preference_data(JOB, lambda: ("2023-04", "2023-08"))
    with dg.build_schedule_context(scheduled_execution_time=datetime(2023, 9, 4, 3, tzinfo=UTC)) as context:
        request = schedule(context)
    assert (request.run_key, request.tags) == ("2023-09-04", range_tags("2023-04", "2023-08"))


def test_automation_is_stopped_until_someone_starts_it() -> None:
    schedule = weekly_preference_data(JOB, lambda: ("2023-04", "2023-04"))
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == "0 3 * * 1"
    assert schedule.execution_timezone == "UTC"
    assert new_log_files(JOB, list, MONTHS_OF.__getitem__, MONTHS).default_status is dg.DefaultSensorStatus.STOPPED


def look(files: list[LogFile], cursor: str | None, asked: list[str] | None = None) -> dg.SensorResult | dg.SkipReason:
    """Evaluate the sensor once; ``asked`` collects the files whose months it looked up."""

    def months_of(name: str) -> list[str]:
        if asked is not None:
            asked.append(name)
        return MONTHS_OF[name]

    with dg.build_sensor_context(cursor=cursor) as context:
        outcome = new_log_files(JOB, lambda: files, months_of, MONTHS)(context)
    assert isinstance(outcome, dg.SensorResult | dg.SkipReason)
    return outcome


def test_sensor_asks_for_every_month_in_one_run_when_a_file_is_new_or_changed() -> None:
    first = look(STATES, None)
    assert isinstance(first, dg.SensorResult)
    assert range_of(first) == ("2023-04", "2023-05")
    assert isinstance(look(list(reversed(STATES)), first.cursor), dg.SkipReason)

    asked: list[str] = []
    grown = look([STATES[0], LogFile("b.parquet", 21, 3), LogFile("c.parquet", 5, 3)], first.cursor, asked)
    assert isinstance(grown, dg.SensorResult)
    assert asked == ["b.parquet", "c.parquet"]
    assert range_of(grown) == ("2023-04", "2023-06"), "the earlier months too: what is trained on the new one scores them anew"
    assert grown.run_requests[0].run_key != first.run_requests[0].run_key

    later = look([*STATES, LogFile("c.parquet", 5, 3)], first.cursor)
    assert range_of(later) == ("2023-04", "2023-06"), "though only the last month has a new file"


def test_changed_file_asks_for_the_months_it_held_before_too() -> None:
    before = json.dumps({"c.parquet": [1, 1, ["2023-09"]]})
    assert range_of(look([LogFile("c.parquet", 2, 2)], before)) == ("2023-06", "2023-09")


def test_file_with_nothing_but_months_that_are_no_partitions_asks_for_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    first = look(STATES, None)
    assert isinstance(first, dg.SensorResult)
    monkeypatch.setitem(MONTHS_OF, "old.parquet", ["2022-01"])
    outcome = look([*STATES, LogFile("old.parquet", 1, 1)], first.cursor)
    assert isinstance(outcome, dg.SensorResult)
    assert not outcome.run_requests


def test_a_source_without_files_is_the_reason_for_no_run_and_a_bug_is_none(tmp_path: Path) -> None:
    location = str(tmp_path / "*.parquet")
    with dg.build_sensor_context(cursor="{}") as context:
        skipped = new_log_files(JOB, lambda: find(location), MONTHS_OF.__getitem__, MONTHS)(context)  # type: ignore[arg-type,return-value]
        assert isinstance(skipped, dg.SkipReason)
        assert (skipped.skip_message or "").endswith(f"matches the location {location}")
        with pytest.raises(ValueError, match="Expecting value"):
            new_log_files(JOB, lambda: json.loads("?"), MONTHS_OF.__getitem__, MONTHS)(context)


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
