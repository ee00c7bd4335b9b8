"""The assets of reasoning and `reward_model_scores` in this process: canned answers in place of models, everything else as it is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.reasoning import prm800k, reasoning_errors, reasoning_pairs
from assets.training import prefers_preferred, reward_model_scores
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import REWRITES, USERS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.reasoning.math_answers import Grade, Solution, grade
from rlhi_dagster.simulation.town.arithmetic import prm800k as town_records
from rlhi_dagster.training.starting_models import HumanPreferences
from tests.built import built, playing, upstream

SHORT = "- Keep it short."


class Canned(Workers):
    """Remarks name the step, corrections are right unless told otherwise, and shorter replies have the higher reward."""

    def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> tuple[list[list[ChatAnswer]], CallStats]:
        ((model, requests),) = batches
        speak = {"users/one": self._remark, "policy": self._correction}[model.name]
        return [
            [ChatAnswer(speak(request), None, "stop", 9, 9, call_id=f"{model.name}-{n}") for n, request in enumerate(requests)]
        ], CallStats(requests=len(requests))

    def verify(self, context: Any, solutions: Sequence[Solution]) -> dict[Solution, Grade]:
        return {solution: grade(solution) for solution in solutions}

    def score(self, context: Any, model: Any, requests: Sequence[RewardRequest], engine: Any) -> tuple[list[RewardAnswer], CallStats]:
        return [self._reward(request) for request in requests], CallStats(requests=len(requests))

    @staticmethod
    def _remark(request: ChatRequest) -> str:
        text = request.messages[0]["content"]
        return f"Look at step {text.split(' is the first wrong step')[0].split()[-1]} again."

    @staticmethod
    def _correction(request: ChatRequest) -> str:
        problem = request.messages[0]["content"].removeprefix("What is ").removesuffix("?")
        total = sum(int(term) for term in problem.split(" + "))
        return f"{problem} = {total}\nAnswer: {total if total % 2 else 99}"

    @staticmethod
    def _reward(request: RewardRequest) -> RewardAnswer:
        wants_short = any(SHORT in message["content"] for message in request.messages)
        length = len(request.messages[-1]["content"])
        return RewardAnswer(float(-length if wants_short else length), None, 9)


@pytest.fixture
def resources(tmp_path: Path) -> dict[str, Any]:
    for name, manifest in {"policy": {}, "reward_model": {"method": "reward", "parameters": 1_100_000, "pairs": 40}}.items():
        folder = Path(Lake(root=str(tmp_path)).artefact_path(name))
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"model": {"name": name, "revision": "1", "path": "."}} | manifest))
    return {
        "io_manager": TableIOManager(root=str(tmp_path)),
        "lake": Lake(root=str(tmp_path)),
        "workers": Canned(tmp_path),
    }


@pytest.mark.parametrize("speaker", ["template", {"hub": f"users/one@{'1' * 40}"}])
def test_reasoning_from_records_to_verified_pairs(tmp_path: Path, resources: dict[str, Any], speaker: Any) -> None:
    file = tmp_path / "prm800k.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in town_records(60, 5)))
    sample = profiles.load("sample")
    chosen = sample.reasoning.model_copy(update={"prm800k": str(file), "errors": 20})
    profile = playing(sample, simulated_user=speaker).model_copy(update={"reasoning": chosen})
    assets = [*built(profile, prm800k, reasoning_errors, reasoning_pairs), *upstream(profile, "policy")]
    done = dg.materialize(assets, resources=resources | {"settings": Settings(profile)})
    is_model = speaker != "template"
    shown = {name: done.asset_materializations_for_node(name)[0].metadata for name in ("reasoning_errors", "reasoning_pairs")}
    assert (shown["reasoning_errors"]["records"].value, shown["reasoning_errors"]["error_rows"].value) == (60, 0)
    lake: Lake = resources["lake"]
    errors, pairs = lake.scan("reasoning_errors").collect(), lake.scan("reasoning_pairs").collect()
    assert set(errors["simulated_user"]) == {f"users/one@{'1' * 16}" if is_model else "template"}
    assert len(pairs) == len(errors) == 20
    is_odd = (
        pairs.join(errors, on="error_id", how="left", maintain_order="left").select(pl.col("answer").cast(pl.Int64) % 2 == 1).to_series()
    )
    assert pairs["is_kept"].to_list() == is_odd.to_list()
    assert 0 < shown["reasoning_pairs"]["kept_pairs"].value == int(is_odd.sum()) < 20
    assert set(pairs["call_ids"].list.len()) == {2 if is_model else 1}


def rewrites(users: int) -> pl.DataFrame:
    """Of each user an opening request, whose short rewrite suits those who want it short (even ones), a long one the others."""
    row = dict.fromkeys(REWRITES.columns) | {"month": "2023-04", "strategy": "feedback", "feedback": "another length", "model": "m"}
    row |= {"prompt": [{"role": "user", "content": "How do tulips grow?"}], "persona_line_ids": [], "call_ids": [], "is_off_policy": False}
    row |= {"is_repaired": False, "mentions_feedback": False, "meets_feedback": 1.0, "pair_judge": "rule", "follow_up_applies": True}
    short = "Tulips grow from bulbs in the spring."
    long = f"{short} Plant them in autumn, as deep as three bulbs are high."
    rows = []
    for user in range(users):
        wants_short = user % 2 == 0
        sides = {"rewrite": short, "original": long} if wants_short else {"rewrite": long, "original": short}
        ids = {"rewrite_id": f"r{user}", "turn_id": f"t{user}", "user_id": f"u{user}", "persona": SHORT if wants_short else ""}
        rows.append(row | ids | sides)
    return pl.DataFrame(rows, schema=REWRITES.schema, orient="row")


def test_the_reward_models_scores(tmp_path: Path, resources: dict[str, Any]) -> None:
    ranked = [{side: f"\n\nHuman: {n}\n\nAssistant: {side} is shorter" for side in ("rejected", "chosen")} for n in range(9)]
    lines = [json.dumps(row) for row in [*ranked, {"chosen": "no dialogue", "rejected": "no dialogue"}]]
    (tmp_path / "garden.jsonl").write_text("\n".join(lines))
    sample = profiles.load("sample")
    reward = sample.reward.model_copy(
        update={"human_preferences": (HumanPreferences(name="garden", location=str(tmp_path / "garden.jsonl")),)}
    )
    profile = sample.model_copy(update={"reward": reward, "validation_fraction": 0.5})

    users = [dict.fromkeys(USERS.columns) | {"user_id": f"u{user}", "split_group": f"u{user}"} for user in range(120)]
    resources["lake"].write("rewrites", rewrites(120), ["2023-04"])
    resources["lake"].write("users", pl.DataFrame(users, schema=USERS.schema, orient="row"))
    assets = [*built(profile, reward_model_scores, prefers_preferred), *upstream(profile, "rewrites", "users", "reward_model")]
    done = dg.materialize(assets, resources=resources | {"settings": Settings(profile)})
    scores = {(row["pairs"], row["condition"]): row for row in resources["lake"].scan("reward_model_scores").collect().to_dicts()}
    own, shuffled, none = (scores["rewrite_pairs", condition] for condition in ("own", "shuffled", "none"))
    assert own["value"] == 1.0
    assert 30 < own["users"] < 90
    assert own["n"] == shuffled["n"] == none["n"]
    assert shuffled["ci_high"] < 1.0
    assert 0.3 < none["value"] < 0.7
    assert (scores["garden", "none"]["value"], scores["garden", "none"]["n"]) == (0.0, 9)
    shown = done.asset_materializations_for_node("reward_model_scores")[0].metadata
    assert shown["accuracy/rewrite_pairs/own"].value == 1.0
    assert "1.1 million parameters" in str(shown["backbone"].value)
    (check,) = done.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (True, dg.AssetCheckSeverity.WARN)
