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
from rlhi_dagster.cli import dagster_home, ranges
from rlhi_dagster.conversations.sources.files import find
from rlhi_dagster.graph import jobs
from rlhi_dagster.graph.automation import (
    LogFile,
    daily_logs,
    daily_observation,
    enough_new_pairs,
    new_log_files,
    source_months,
    weekly_preference_data,
)
from rlhi_dagster.graph.declare import Place, _target
from rlhi_dagster.graph.partitions import add_months, against_base, months, partitions_of_run, range_tags, recipes
from tests.built import knowing

STATES = [LogFile("a.parquet", 10, 1), LogFile("b.parquet", 20, 2)]
MONTHS_OF = {"a.parquet": ["2023-04"], "b.parquet": ["2023-05", "2023-04"], "c.parquet": ["2023-06", "2022-01"]}
MONTHS = months()
PLACE = Place(profiles.load("sample"))
JOB = jobs.preference_data(PLACE)


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
    partition_range = ranges.written(ranges.months(ranges.home_in_use(), print))
    loaded: Any = definitions.defs()
    instance = dg.DagsterInstance.get()
    if name == "new_log_files":
        sensor = loaded.resolve_sensor_def(name)
        with dg.build_sensor_context(instance=instance, definitions=loaded) as looking:
            job, requests = sensor.job.name, sensor(looking).run_requests
    else:
        schedule = loaded.resolve_schedule_def(name)
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 5, 3, tzinfo=UTC)) as ticking:
            job, requests = schedule.job.name, [schedule(ticking)]
    (request,) = requests
    assert job == "preference_data"
    assert request.partition_key is None
    assert request.tags == launched_by_hand(job, partition_range, monkeypatch) == range_tags("2023-04", "2023-09")


def test_schedule_asks_for_every_month_of_the_source_once_a_week() -> None:
    schedule = weekly_preference_data(PLACE, JOB, lambda: ["2023-04", "2023-06", "2023-08"])
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2023, 9, 4, 3, tzinfo=UTC)) as context,
    ):
        request = schedule(context)
        assert (request.run_key, request.tags) == ("2023-09-04", range_tags("2023-04", "2023-08"))
        assert known(instance) == ["2023-04", "2023-06", "2023-08"]


def test_the_daily_schedule_asks_for_labels_and_a_source_without_files_is_the_reason_for_no_run(tmp_path: Path) -> None:
    schedule = daily_logs(PLACE, jobs.logs(PLACE), lambda: find(str(tmp_path / "*.parquet")))
    assert (schedule.job.name, schedule.cron_schedule, schedule.default_status) == ("logs", "0 2 * * *", dg.DefaultScheduleStatus.STOPPED)
    with dg.build_schedule_context(scheduled_execution_time=datetime(2023, 9, 4, 2, tzinfo=UTC)) as context:
        assert isinstance(schedule(context), dg.SkipReason)
    observing = daily_observation(PLACE, jobs.observe_sources(PLACE, ["wildchat"]))
    assert (observing.job.name, observing.default_status) == ("observe_sources", dg.DefaultScheduleStatus.STOPPED)


def test_training_is_asked_for_once_there_are_a_tenth_more_pairs() -> None:
    def tick(pairs: int | None, cursor: str | None) -> tuple[list[str | None], str | None]:
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            outcome = enough_new_pairs(PLACE, jobs.training(PLACE), lambda: pairs, ["base", "dpo", "sft"])(context)
            if isinstance(outcome, dg.SensorResult):
                assert [each.tags for each in outcome.run_requests] == [range_tags("base", "sft")]
                return [each.run_key for each in outcome.run_requests], outcome.cursor
            return [], context.cursor

    assert tick(None, None) == ([], None)
    assert tick(100, None) == ([], "100"), "what is there when it is started is not new"
    assert tick(109, "100") == ([], "100")
    assert tick(110, "100") == (["100-110"], "110")
    assert tick(110, "100") == (["100-110"], "110"), "a repeated tick asks for the same run"
    assert tick(110, "110") == ([], "110")
    assert tick(50, "110") == ([], "110")


@pytest.mark.parametrize("is_sound", [True, False])
def test_a_cheap_table_is_made_again_once_what_it_rests_on_is_new_and_sound(is_sound: bool) -> None:
    """Of two months one is made; so ``users``, which rests on all of them, waits."""
    location, key, month = definitions.build(PLACE.profile), dg.AssetKey("conversations"), "2023-05"
    with dg.instance_for_test() as instance:

        def requested(cursor: Any) -> tuple[list[str], Any]:
            chosen = dg.AssetSelection.assets("turns", "users")
            found = dg.evaluate_automation_conditions(location, instance, asset_selection=chosen, cursor=cursor)
            return [each.key.to_user_string() for each in found.results if each.true_subset.size], found.cursor

        add_months(instance, MONTHS, ["2023-04", month])
        names, cursor = requested(None)
        assert names == [], "nothing is there to make them of"
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=month))
        for check, passed in (("matches_table", True), ("rows_are_conserved", is_sound)):
            target = _target(instance, key, month)
            found = dg.AssetCheckEvaluation(key, check, passed, target_materialization_data=target, blocking=True, partition=month)
            instance.report_runless_asset_event(found)
        names, cursor = requested(cursor)
        assert names == (["turns"] if is_sound else [])
        assert requested(cursor)[0] == [], "a repeated tick asks for nothing more"


def known(instance: dg.DagsterInstance) -> list[str]:
    """Months that are partitions."""
    return list(MONTHS.get_partition_keys(dynamic_partitions_store=instance))


def test_automation_is_stopped_until_someone_starts_it() -> None:
    schedule = weekly_preference_data(PLACE, JOB, list)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == "0 3 * * 1"
    assert schedule.execution_timezone == "UTC"
    assert new_log_files(PLACE, JOB, list, MONTHS_OF.__getitem__).default_status is dg.DefaultSensorStatus.STOPPED


def look(files: list[LogFile], cursor: str | None, asked: list[str] | None = None) -> dg.SensorResult | dg.SkipReason:
    """Evaluate the sensor once; ``asked`` collects the files whose months it looked up."""

    def months_of(name: str) -> list[str]:
        if asked is not None:
            asked.append(name)
        return MONTHS_OF[name]

    with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        outcome = new_log_files(PLACE, JOB, lambda: files, months_of)(context)
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
    before = json.dumps({"files": {"c.parquet": [1, 1, ["2023-09"]]}, "asked": "once"})
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
    with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance) as context:
        skipped = new_log_files(PLACE, JOB, lambda: find(location), MONTHS_OF.__getitem__)(context)  # type: ignore[arg-type,return-value]
        assert isinstance(skipped, dg.SkipReason)
        assert (skipped.skip_message or "").endswith(f"matches the location {location}")
        with pytest.raises(ValueError, match="Expecting value"):
            new_log_files(PLACE, JOB, lambda: json.loads("?"), MONTHS_OF.__getitem__)(context)


def test_removed_file_is_forgotten_without_a_run() -> None:
    first = look(STATES, None)
    assert isinstance(first, dg.SensorResult)
    outcome = look(STATES[:1], first.cursor)
    assert isinstance(outcome, dg.SensorResult)
    assert not outcome.run_requests
    assert json.loads(outcome.cursor or "")["files"] == {"a.parquet": [10, 1, ["2023-04"]]}


def test_a_file_that_is_put_back_is_asked_for_again_and_a_repeated_tick_is_not() -> None:
    first = look(STATES, None)
    assert isinstance(first, dg.SensorResult)
    without = look(STATES[:1], first.cursor)
    assert isinstance(without, dg.SensorResult)
    back, again = look(STATES, without.cursor), look(STATES, without.cursor)
    assert isinstance(back, dg.SensorResult)
    assert isinstance(again, dg.SensorResult)
    keys = [outcome.run_requests[0].run_key for outcome in (first, back, again)]
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize(
    "cursor",
    [
        "not json",
        "[1]",
        '{"a.parquet": [10, 1, []]}',
        '{"files": {"a.parquet": 3}, "asked": ""}',
        '{"files": {"a.parquet": [1, 1, [7]]}, "asked": ""}',
    ],
)
def test_bad_cursor_starts_over_and_asks_for_the_same_runs(cursor: str) -> None:
    first, again = look(STATES, None), look(STATES, cursor)
    assert isinstance(first, dg.SensorResult)
    assert isinstance(again, dg.SensorResult)
    assert [request.run_key for request in again.run_requests] == [request.run_key for request in first.run_requests]
    assert again.cursor == first.cursor


def test_months_are_those_that_were_found_in_the_order_of_the_calendar() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert add_months(instance, MONTHS, ["2023-06", "2023-05"]) == ["2023-05", "2023-06"]
        assert add_months(instance, MONTHS, ["2023-06", "2023-08"]) == ["2023-08"]
        assert add_months(instance, MONTHS, ["2022-12"]) == ["2022-12"]
        assert add_months(instance, MONTHS, ["2022-12"]) == []
        assert known(instance) == ["2022-12", "2023-05", "2023-06", "2023-08"]
        tags = range_tags("2022-12", "2023-06")
        assert partitions_of_run(tags, MONTHS, instance) == ["2022-12", "2023-05", "2023-06"]
        with pytest.raises(ValueError, match="YYYY-MM"):
            add_months(instance, MONTHS, ["2023-4"])
        add_months(instance, months(["mine"]), ["2024-01"])
        assert known(instance)[-1] == "2023-08", "pipelines in one instance have months of their own"


def test_what_was_made_of_a_month_stays_its_own_when_an_earlier_month_is_added() -> None:
    @dg.asset(partitions_def=MONTHS)
    def logs() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        add_months(instance, MONTHS, ["2023-05"])
        dg.materialize([logs], instance=instance, partition_key="2023-05")
        add_months(instance, MONTHS, ["2023-04"])
        assert instance.get_materialized_partitions(dg.AssetKey("logs")) == {"2023-05"}


def test_new_months_become_partitions_without_a_run_and_the_source_is_read_once() -> None:
    reads: list[int] = []

    def find_months() -> list[str]:
        reads.append(1)
        return ["2023-04", "2023-06"]

    def tick(files: list[LogFile], cursor: str | None) -> dg.SensorResult | dg.SkipReason:
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            outcome = source_months(PLACE, lambda: files, find_months)(context)
        assert isinstance(outcome, dg.SensorResult | dg.SkipReason)
        return outcome

    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(STATES, None)
        assert isinstance(first, dg.SensorResult)
        assert not first.run_requests
        assert known(instance) == ["2023-04", "2023-06"]
        assert isinstance(tick(STATES, first.cursor), dg.SkipReason)
        assert len(reads) == 1
        assert isinstance(tick(STATES[:1], first.cursor), dg.SensorResult)
        assert isinstance(tick([], None), dg.SkipReason), "a hub is not read unasked"
        assert len(reads) == 2


def test_rlhi_months_makes_the_sources_months_partitions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("RLHI_PROFILE", "RLHI_SOURCE", "DAGSTER_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))
    assert ranges.written(ranges.months(ranges.home_in_use(), print)) == "2023-04...2023-09"
    with dg.DagsterInstance.from_config(str(dagster_home.home())) as instance:
        assert known(instance) == ["2023-04", "2023-05", "2023-06", "2023-07", "2023-08", "2023-09"]


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
    with knowing("2023-04", "2023-05", "2023-06", "2023-07") as instance:
        tags = {"dagster/asset_partition_range_start": "2023-05", "dagster/asset_partition_range_end": "2023-07"}
        assert partitions_of_run(tags, MONTHS, instance) == ["2023-05", "2023-06", "2023-07"]
        assert partitions_of_run({"dagster/partition": "2023-05"}, MONTHS, instance) == ["2023-05"]
        assert partitions_of_run({}, MONTHS, instance) is None
        assert partitions_of_run(tags, None, instance) is None
