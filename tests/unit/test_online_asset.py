"""The assets as a run materializes them: rounds, the policies between, and the checkpoint of the last round."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import online as module
from assets import training
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.launching import command
from rlhi_dagster.base.tables import FOLLOW_UP_EXAMPLES, PERSONAS, PREFERENCE_PAIRS, THUMB_EXAMPLES, TURNS, USERS
from rlhi_dagster.engines.base import ChatAnswer, RewardAnswer
from rlhi_dagster.engines.models import MANIFEST, ModelRef
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.resources import TrainingRun, Workers
from rlhi_dagster.training.manifest_checks import chosen_likelihood_holds, nothing_lost, step0_loss_is_ln2
from tests.built import built, upstream

NOON = datetime(2023, 4, 2, 12, tzinfo=UTC)
RECIPE = "dpo_rewards_online"
REQUESTS, COUNT = 12, 10


def manifest(folder: Path, name: str, revision: str, **facts: Any) -> dict[str, Any]:
    told = {"model": {"name": name, "revision": revision, "path": "."}, "method": "none", "seconds": 1.0, **facts}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(told))
    return told


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(root=str(tmp_path / "lake"))
    manifest(lake.artefact_path("policy"), "town-policy", "p1")
    manifest(lake.artefact_path("reward_model"), "town-reward", "r1")
    pairs = [
        dict.fromkeys(PREFERENCE_PAIRS.columns)
        | {"pair_id": f"{source}-{number:02d}", "source": source, "split": "validation" if number % 6 == 0 else "train", "is_kept": True}
        | {"turn_id": f"t{number:02d}:0", "user_id": f"u{number}", "asked_at": NOON, "persona": f"- likes {number}", "persona_line_ids": []}
        | {"prompt": [{"role": "user", "content": f"Tell me about the river number {number}, please"}], "chosen": "a", "rejected": "b"}
        for source in ("rewards", "rewrites", "rewrites_from_scratch", "rewards_none", "rewards_shuffled")
        for number in range(REQUESTS)
    ]
    lake.write("preference_pairs", pl.DataFrame(pairs, schema=PREFERENCE_PAIRS.schema, orient="row"))
    users = [dict.fromkeys(USERS.columns) | {"user_id": f"u{number}", "split": "train"} for number in range(REQUESTS)]
    lake.write("thumb_examples", THUMB_EXAMPLES.empty())
    lake.write("follow_up_examples", FOLLOW_UP_EXAMPLES.empty())
    lake.write("users", pl.DataFrame(users, schema=USERS.schema, orient="row"))
    lake.write("personas", PERSONAS.empty())
    lake.write("turns", TURNS.empty(), ["2023-04"])
    return lake


SAMPLE = profiles.load("sample")
CANDIDATES = SAMPLE.candidates.model_copy(update={"count": 6, "min_margin": 0.5})
PROFILE = SAMPLE.model_copy(update={"candidates": CANDIDATES, "project_recipes": None})


def workers(lake: Lake, asked: list[str], runs: list[TrainingRun]) -> Workers:
    class FakeWorkers(Workers):
        def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> tuple[list[list[ChatAnswer]], CallStats]:
            ((model, requests),) = batches
            asked.append(model.identity)
            said = [f"{each.sample_index} of {model.name} to {each.messages[-1]['content']}" for each in requests]
            return [[ChatAnswer(text, None, "stop", 1, 1, call_id="c") for text in said]], CallStats(requests=len(requests))

        def score(self, context: Any, model: Any, requests: Any, engine: Any) -> tuple[list[RewardAnswer], CallStats]:
            return [RewardAnswer(float(each.messages[-1]["content"].split()[0]), None, 1, call_id="r") for each in requests], CallStats()

        def train(self, context: Any, given: Sequence[TrainingRun]) -> dict[str, dict[str, Any]]:
            runs.extend(given)
            facts = {"method": "dpo", "step0_loss": 0.6931, "chosen": {"of": 1}, "steps": [], "pairs_too_long": 0}
            facts |= {"settings": {"max_displacement": 0.2}, "validation": {"displacement": 0.1}}
            return {
                run.name: manifest(run.out, f"rlhi-{run.name}", "w1", data=dict(run.origin), trained_rows=len(run.rows), **facts)
                for run in given
            }

    return FakeWorkers(Path(lake.root).parent)


def materialize(lake: Lake, names: list[str], partition: str = RECIPE) -> tuple[dg.ExecuteInProcessResult, list[str], list[TrainingRun]]:
    asked: list[str] = []
    runs: list[TrainingRun] = []
    checked = [*module.table_checks, module.precedes, *module.pairs_are_sound, *module.manifests_are_sound, module.forgotten]
    outcome = dg.materialize(
        [
            *built(PROFILE, module.online_rounds, training.checkpoints, *checked),
            *upstream(PROFILE, "policy", "reward_model", "preference_pairs", "thumb_examples", "follow_up_examples"),
            *upstream(PROFILE, "users", "personas", "turns"),
        ],
        selection=dg.AssetSelection.assets(*names),
        partition_key=partition,
        resources={
            "io_manager": TableIOManager(root=lake.root),
            "settings": Settings(PROFILE),
            "lake": lake,
            "workers": workers(lake, asked, runs),
        },
        raise_on_error=False,
    )
    return outcome, asked, runs


ROUNDS = ["online_candidates", "online_pairs", "online_policies"]


def failed(outcome: dg.ExecuteInProcessResult) -> list[str]:
    return [each.check_name for each in outcome.get_asset_check_evaluations() if not each.passed]


def message(outcome: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in outcome.all_events if event.is_step_failure]
    return str(event.step_failure_data.error)


def test_the_rounds_give_tables_and_a_policy_and_the_checkpoint_is_the_last_ones(lake: Lake) -> None:
    outcome, asked, runs = materialize(lake, [*ROUNDS, "checkpoints"])
    assert outcome.success
    assert failed(outcome) == []
    assert len(outcome.get_asset_check_evaluations()) == 11
    assert asked == ["town-policy@p1", f"rlhi-{RECIPE}-round-1@w1"]
    first, last = runs
    assert [(run.name, run.model.identity) for run in runs if run.model] == [
        (f"{RECIPE}-round-1", "town-policy@p1"),
        (RECIPE, f"rlhi-{RECIPE}-round-1@w1"),
    ]
    pairs = lake.scan("online_pairs").collect()
    kept = pairs.filter("is_kept", split="train")
    assert len(kept) == COUNT
    for number, run in enumerate((first, last), 1):
        assert set(run.rows["pair_id"]) == set(kept.filter(round=number)["pair_id"])
        assert set(run.validation["pair_id"]) == set(pairs.filter("is_kept", split="validation", round=number)["pair_id"])  # type: ignore[index]
        assert {row[0]["role"] for row in run.rows["prompt"].to_list()} == {"system"}
    assert (last.out, last.settings) == (lake.artefact_path("checkpoints", RECIPE), PROFILE.dpo_on_rewards)


def test_without_a_persona_the_rounds_and_the_checkpoint_show_none(lake: Lake) -> None:
    outcome, asked, runs = materialize(lake, [*ROUNDS, "checkpoints"], "dpo_rewards_online_no_persona")
    assert outcome.success
    assert failed(outcome) == []
    assert asked == ["town-policy@p1", "rlhi-dpo_rewards_online_no_persona-round-1@w1"]
    assert [run.extra["persona"] for run in runs] == ["none", "none"]
    assert sum(len(run.rows) for run in runs) == COUNT
    assert {message["role"] for run in runs for row in run.rows["prompt"].to_list() for message in row} == {"user"}
    assert {source for run in runs for source in run.origin["by_source"]} == {"rewards_none"}


def test_a_recipe_without_rounds_asks_nothing_and_has_empty_tables(lake: Lake) -> None:
    outcome, asked, runs = materialize(lake, ROUNDS, "dpo_rewrites")
    assert outcome.success
    assert failed(outcome) == []
    assert (asked, runs) == ([], [])
    assert lake.scan("online_pairs", ["dpo_rewrites"]).collect().is_empty()
    assert materialize(lake, ["checkpoints"], "dpo_rewrites")[0].success


def test_without_a_pair_nothing_is_asked_or_trained(lake: Lake) -> None:
    pairs = lake.scan("preference_pairs").collect()
    lake.write("preference_pairs", pairs.with_columns(is_kept=pl.col("source") != "rewards"))
    for names in (ROUNDS, ["checkpoints"]):
        outcome, asked, runs = materialize(lake, names)
        assert f"recipe {RECIPE}: no kept training pair of source rewards; see the drop reasons in reward_pairs" in message(outcome)
        assert (asked, runs) == ([], [])


def test_a_policy_that_is_not_there_is_told_in_one_sentence(lake: Lake) -> None:
    (lake.artefact_path("policy") / MANIFEST).unlink()
    outcome, _, _ = materialize(lake, ROUNDS)
    data = outcome.failure_data_for_node("online_rounds")
    assert data
    assert data.user_failure_data
    assert (data.user_failure_data.description or "").endswith(f"(manifest.json is missing); run: {command('policy')}")


def test_a_checkpoint_is_not_trained_on_the_candidates_of_another_policy(lake: Lake) -> None:
    materialize(lake, ROUNDS)
    manifest(lake.artefact_path("online_policies", f"{RECIPE}-round-1"), f"rlhi-{RECIPE}-round-1", "w2")
    outcome, _, runs = materialize(lake, ["checkpoints"])
    assert f"last round is not of rlhi-{RECIPE}-round-1@w2; run: {command('online_pairs', [RECIPE])}" in message(outcome)
    assert runs == []


def test_the_policies_between_the_rounds_are_checked(lake: Lake) -> None:
    materialize(lake, ROUNDS)
    folder = lake.artefact_path("online_policies", f"{RECIPE}-round-1")
    told = json.loads((folder / MANIFEST).read_text())
    assert ModelRef.from_manifest(folder).identity == f"rlhi-{RECIPE}-round-1@w1"
    (folder / MANIFEST).write_text(json.dumps(told | {"step0_loss": 0.9, "trained_rows": 1, "validation": {"displacement": 0.3}}))
    found = module._manifests(lake, PROFILE.arms, [RECIPE])
    assert not step0_loss_is_ln2(found).passed
    assert not nothing_lost(found).passed
    assert not chosen_likelihood_holds(found).passed
    (folder / MANIFEST).unlink()
    assert not step0_loss_is_ln2(module._manifests(lake, PROFILE.arms, None)).passed
