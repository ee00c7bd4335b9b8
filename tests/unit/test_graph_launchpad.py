"""What a person sets for one run: a limit keeps the answers that it allows, writes no table of a part, and is gone in the next run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import reasoning
from rlhi_dagster import definitions, profiles
from rlhi_dagster.engines.base import ChatRequest, RewardRequest, Sampling
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.graph import pipes
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import Profile
from tests import snapshot
from tests.built import built, playing

COMMIT = "1" * 40
MODEL = ModelRef("writers/one", COMMIT)
SAMPLING = Sampling(0.0, 1.0, 16, 0)


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "run", snapshot.Workers(snapshot.Engine(["Yes.", "No."])).run)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """The sample with a language model as the simulated user, who is asked once an erroneous solution."""
    return playing(profiles.load("sample", environment={"RLHI_DATA": str(tmp_path)}), simulated_user={"hub": f"users/one@{COMMIT}"})


def kept(root: Path) -> int:
    """Answers in the store, of any kind and model."""
    return sum(pl.read_parquet(file).height for file in (root / "responses").rglob("segment-*.parquet"))


def made(profile: Profile, limit: int, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    config = {"ops": {"reasoning_errors": {"config": {"limit": limit}}}}
    made = built(profile, reasoning.prm800k, reasoning.reasoning_errors)
    given = definitions.resources(profile)
    return dg.materialize(made, config, instance, given, selection=["reasoning_errors"], raise_on_error=False)


def forecast(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What the asset's page shows of the calls that the latest run was going to make."""
    (latest,) = instance.fetch_observations(dg.AssetKey("reasoning_errors"), limit=1).records
    assert latest.asset_observation
    return {name: value.value for name, value in latest.asset_observation.metadata.items()}


def told(done: dg.ExecuteInProcessResult) -> str:
    (failed,) = [each for each in done.all_events if each.event_type_value == "STEP_FAILURE"]
    assert failed.step_failure_data.user_failure_data
    return str(failed.step_failure_data.user_failure_data.description)


def test_a_limited_run_keeps_its_answers_and_leaves_the_table_to_one_without_limit(profile: Profile) -> None:
    table = profile.root / "lake" / "reasoning_errors"
    for answers in (5, 10):
        with dg.DagsterInstance.ephemeral() as instance:
            done = made(profile, 5, instance)
            assert forecast(instance)["forecast/missing"] == 5
        assert told(done).startswith("this run's limit of 5 answers is used up: they are kept, and no table was written. Left: ")
        assert kept(profile.root) == answers
        assert not list(table.glob("*.parquet"))
    assert "measured yet" not in told(made(profile, 5)), "what is left is forecast from the answers that there are"
    done = made(profile, 0)
    assert done.success
    (event,) = done.asset_materializations_for_node("reasoning_errors")
    rows = event.metadata["dagster/row_count"].value
    assert kept(profile.root) == rows > 15
    assert event.metadata["calls/answered"].value == rows - 15


def test_a_limit_that_is_enough_changes_nothing(profile: Profile) -> None:
    assert made(profile, 10_000).success
    assert list((profile.root / "lake" / "reasoning_errors").glob("*.parquet"))


def test_a_limit_below_nothing_is_refused(profile: Profile) -> None:
    (failed,) = [each for each in made(profile, -1).all_events if each.event_type_value == "STEP_FAILURE"]
    assert failed.step_failure_data.error
    assert "greater than or equal to 0" in failed.step_failure_data.error.to_string()
    assert kept(profile.root) == 0


def asked(message: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": message}]


def chat(workers: Workers, context: dg.AssetExecutionContext, profile: Profile) -> Any:
    other, requests = ModelRef("writers/two", COMMIT), [ChatRequest(asked(f"Question {n}")) for n in range(3)]
    return workers.chat(context, [(MODEL, requests), (other, requests)], profile.engine, SAMPLING)


def replay(workers: Workers, context: dg.AssetExecutionContext, profile: Profile) -> Any:
    dialogues = {"long": ["a", "b", "c"], "next": ["d", "e"], "last": ["f"]}
    return workers.replay(context, MODEL, dialogues, profile.engine, SAMPLING)


def score(workers: Workers, context: dg.AssetExecutionContext, profile: Profile) -> Any:
    return workers.score(context, MODEL, [RewardRequest(asked(f"Reply {n}")) for n in range(6)], profile.engine)


def embed(workers: Workers, context: dg.AssetExecutionContext, _: Profile) -> Any:
    return workers.embed(context, MiniLM.name, [f"text {n}" for n in range(6)])


@pytest.mark.parametrize("ask", [chat, replay, score, embed])
def test_every_way_to_ask_stops_at_the_limit_of_all_calls_of_the_step(ask: Callable[..., Any], profile: Profile) -> None:
    """Six answers are wanted each time; the two that something else has asked for before count, too."""

    @dg.asset
    def step(context: dg.AssetExecutionContext) -> None:
        workers = Workers(profile.root, profile.limits).of("step", limit=4)
        workers.score(context, ModelRef("reward/one", COMMIT), [RewardRequest(asked(text)) for text in "xy"], profile.engine)
        ask(workers, context, profile)

    for answers in (4, 6, 8):  # the first two are there from then on
        done = dg.materialize([step], raise_on_error=False)
        assert kept(profile.root) == min(answers + (2 if answers > 4 else 0), 8)
        assert done.success == (kept(profile.root) == 8)
