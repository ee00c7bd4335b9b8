"""A plan: which partitions it takes, what it says of those that cannot be planned, and its run in the UI, the job `forecast`."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.launching import command
from rlhi_dagster.cli import planning as shown
from rlhi_dagster.engines.forecast import Forecast
from rlhi_dagster.engines.model_settings import ModelSettings
from rlhi_dagster.graph.planning import Plan, Planner
from rlhi_dagster.profiles import Profile
from tests.built import playing

COMMIT = "1" * 40


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """The sample, of which nothing is made, with a language model as the simulated user."""
    return playing(profiles.load("sample", environment={"RLHI_DATA": str(tmp_path)}), simulated_user={"hub": f"users/one@{COMMIT}"})


def plan(profile: Profile, names: list[str], first: str | None = None, last: str | None = None) -> list[Plan]:
    return definitions.plan(profile, names, first, last)


@pytest.mark.parametrize(
    ("names", "first", "last", "message"),
    [
        (
            ["feedback_labels", "responses"],
            "garbage",
            "garbage",
            r"garbage is no partition of feedback_labels, responses; partitions are 2023-04\.\.\.",
        ),
        (["feedback_labels"], "2023-04", "2923-01", r"2923-01 is no partition of feedback_labels; partitions are 2023-04\.\.\."),
        (["feedback_labels"], "base", "base", "base is no partition of feedback_labels"),
        (["personas"], "2023-04", "2023-04", "2023-04 is no partition of personas; partitions are none: these assets are not partitioned"),
    ],
)
def test_a_range_that_is_no_partition_is_refused(profile: Profile, names: list[str], first: str, last: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(profile, names, first, last)


def test_a_plan_tells_missing_tables_from_other_partitions(profile: Profile) -> None:
    labels, responses = plan(profile, ["feedback_labels", "responses"])
    assert labels.note == f"turns has not been materialized; run: {command('turns')}"
    assert responses.note.startswith("eval_prompts has not been materialized; run: ")
    labels, responses = plan(profile, ["feedback_labels", "responses"], "2023-04", "2023-05")
    assert labels.note == f"turns lacks the partition(s) 2023-04, 2023-05; run: {command('turns', ['2023-04', '2023-05'])}"
    assert plan(profile, ["responses"], "dpo_rewrites", "base")[0].note == "not planned: dpo_rewrites comes after base"
    assert responses.note == "not planned: it is partitioned by recipe, and 2023-04...2023-05 is not"


def test_a_plan_does_not_convert_a_gguf_file(profile: Profile, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    workers = Planner(profile, definitions.build(profile), definitions.resources(profile))._planning()["workers"]
    with pytest.raises(ValueError, match="not planned: the worker 'convert' has to run before"):
        workers.find(dg.build_asset_context(), ModelSettings(gguf=str(file)))


def test_programs_get_the_fields_of_a_forecast_or_why_there_is_none() -> None:
    known = Plan("rewrites", Forecast(10, 4, 800, 200, None, 1.5, "nothing measured yet"))
    first, second = shown.records([known, Plan("responses", None, "eval_prompts has not been materialized")])
    assert first == {"asset": "rewrites", "requests": 10, "missing": 4, "prompt_tokens": 800, "completion_tokens": 200} | {
        "seconds": None,
        "cost_usd": 1.5,
        "basis": "nothing measured yet",
    }
    assert second == {"asset": "responses", "note": "eval_prompts has not been materialized"}


def launched(profile: Profile, instance: dg.DagsterInstance, **config: object) -> dg.ExecuteInProcessResult:
    job = definitions.build(profile, "mine").resolve_job_def("mine__forecast")
    return job.execute_in_process(instance=instance, run_config={"ops": {"mine__plan": {"config": config}}}, raise_on_error=False)


def test_the_job_forecast_shows_a_plan_asks_nobody_and_writes_no_table(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhi_dagster.graph.pipes.run", lambda *_: pytest.fail("a worker was started"))
    (told,) = plan(profile, ["reasoning_errors"])
    assert told.forecast is not None
    assert told.forecast.missing == told.forecast.requests > 0
    with dg.DagsterInstance.ephemeral() as instance:
        done = launched(profile, instance, assets=["responses", "reasoning_errors"])
        assert done.success
        (observed,) = instance.fetch_observations(dg.AssetKey(["mine", "reasoning_errors"]), limit=9).records
    assert observed.asset_observation is not None
    assert observed.asset_observation.description == str(told.forecast)
    assert observed.asset_observation.metadata["forecast/missing"].value == told.forecast.missing
    (event,) = [each for each in done.all_events if each.event_type_value == "STEP_OUTPUT"]
    shown = event.step_output_data.metadata
    assert (shown["missing"].value, shown["assets_not_planned"].value) == (told.forecast.missing, 1)
    assert f"| missing | {told.forecast.missing} |" in shown["calls"].value
    assert "responses: eval_prompts has not been materialized; run: " in shown["measured_on"].value
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_forecast_of_what_asks_no_model_fails_with_the_names_of_those_that_do(profile: Profile) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        (failed,) = [each for each in launched(profile, instance, assets=["users"]).all_events if each.event_type_value == "STEP_FAILURE"]
    assert failed.step_failure_data.user_failure_data
    told = failed.step_failure_data.user_failure_data.description
    assert told.startswith("users: no such asset, or it calls no model; those that do are ")
