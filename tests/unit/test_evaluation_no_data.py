"""A recipe that had nothing to train on: no replies, no verdicts, no scores, and the report says why; the others have theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import evaluation
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import JUDGE_CALIBRATION, PERSONAS, TURNS
from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.evaluation.benchmarks import safety
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.reasoning.problems import arithmetic_prompts
from rlhi_dagster.report.data import ReportData
from rlhi_dagster.report.page import render
from rlhi_dagster.report.write import checkpoint_manifests
from rlhi_dagster.training import artefacts
from tests.built import built, playing, upstream

PROFILE = profiles.load("sample").model_copy(update={"project_recipes": None})
WHY = "recipe kto_thumbs: 0 thumbs up and 0 thumbs down to train on, and KTO needs both"


class Answering(Workers):
    """Answers as many models as it is asked for, and says 1 to everything."""

    def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> tuple[list[list[ChatAnswer]], CallStats]:
        return [[ChatAnswer("Answer: 1", None, "stop", 1, 1, call_id="c") for _ in requests] for _, requests in batches], CallStats()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(root=str(tmp_path / "lake"))
    artefacts.refer(made.artefact_path("checkpoints", "base"), ModelRef("tiny", "r1", None), "none")
    artefacts.leave_empty(made.artefact_path("checkpoints", "kto_thumbs"), WHY)
    made.write("eval_prompts", pl.concat([arithmetic_prompts(3, 7), safety.load(2)]))
    made.write("judge_calibration", JUDGE_CALIBRATION.empty())
    made.write("personas", PERSONAS.empty())
    made.write("turns", TURNS.empty(), ["2023-04"])
    return made


def run(lake: Lake, recipe: str) -> dg.ExecuteInProcessResult:
    """Answers, verdicts and scores of a recipe, with their checks."""
    checks = [each for each in evaluation.table_checks if each.asset in ("responses", "judgements", "scores")]
    return dg.materialize(
        [
            *built(
                PROFILE, evaluation.responses, evaluation.judgements, evaluation.scores, *checks, evaluation.balanced, evaluation.intact
            ),
            *upstream(PROFILE, "eval_prompts", "checkpoints", "judge_calibration", "reward_model"),
        ],
        partition_key=recipe,
        resources={
            "io_manager": TableIOManager(root=lake.root),
            "settings": Settings(PROFILE),
            "lake": lake,
            "workers": Answering(Path(lake.root).parent),
        },
        raise_on_error=False,
    )


def test_a_recipe_without_data_is_passed_over_to_the_end(lake: Lake) -> None:
    assert run(lake, "base").success
    result = run(lake, "kto_thumbs")
    assert result.success
    assert [each.check_name for each in result.get_asset_check_evaluations() if not each.passed] == []
    for name in ("responses", "judgements", "scores"):
        assert lake.scan(name, ["kto_thumbs"]).collect().is_empty()
        assert not lake.scan(name, ["base"]).collect().is_empty()
    manifests = checkpoint_manifests(lake, PROFILE)
    assert manifests["kto_thumbs"]["method"] == "no data"
    page = render(ReportData(recipes=PROFILE.arms, checkpoints=manifests))
    assert "no data" in page
    assert WHY in page


def test_what_was_trained_before_goes(lake: Lake) -> None:
    folder = lake.artefact_path("checkpoints", "kto_thumbs")
    (folder / "model.safetensors").write_bytes(b"old")
    artefacts.leave_empty(folder, WHY)
    assert [file.name for file in folder.iterdir()] == ["manifest.json"]


def test_safety_is_scored_beside_the_rest_and_not_judged(lake: Lake) -> None:
    assert run(lake, "base").success
    assert lake.scan("judgements").collect()["benchmark"].unique().to_list() == ["arithmetic"]
    by_rule = lake.scan("scores").filter(judge=safety.RULE).select("benchmark", "metric", "value", "n").collect()
    assert set(by_rule.rows()) == {
        ("safety", "refusals_kept", 0.0, 2),
        ("safety", "over_refusals", 0.0, 2),
        ("safety", "sycophancy", 0.0, 2),
        ("safety", "truth_kept", 0.0, 2),
        ("all_replies", "toxicity", 0.0, 9),
    }


def test_judges_are_calibrated_and_one_that_fails_is_said_to_have_failed(lake: Lake, tmp_path: Path) -> None:
    """A judge that always says A, on its way through the assets."""
    said = [{side: f"\n\nHuman: Tea?\n\nAssistant: {side} {n}" for side in ("chosen", "rejected")} for n in range(8)]
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, said)))
    chosen = PROFILE.evaluation.model_copy(update={"calibration": {"people": str(tmp_path / "people.jsonl")}, "calibration_pairs": 6})
    profile = playing(PROFILE, judge={"hub": f"a/b@{'1' * 40}"}).model_copy(update={"evaluation": chosen})

    class Judging(Answering):
        """Says A where it has a choice."""

        def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> tuple[list[list[ChatAnswer]], CallStats]:
            return [[ChatAnswer("A", None, "stop", 1, 1, call_id="c") for _ in requests] for _, requests in batches], CallStats()

    assert run(lake, "base").success
    tables = [each for each in evaluation.table_checks if each.asset in ("judge_calibration", "judge_quality")]
    given = {
        "io_manager": TableIOManager(root=lake.root),
        "settings": Settings(profile),
        "lake": lake,
        "workers": Judging(Path(lake.root).parent),
    }
    made = [
        *built(profile, evaluation.judge_calibration, evaluation.judge_quality, *tables),
        *upstream(profile, "judgements", "reward_model"),
    ]
    assert dg.materialize(made, resources=given).success
    assert len(lake.scan("judge_calibration").collect()) == 6 * 2 * 3
    quality = lake.scan("judge_quality").collect()
    figures = dict(quality.filter(judge=f"a/b@{'1' * 16}").select("figure", "value").rows())
    assert (figures["accuracy"], figures["position_bias"], figures["obedience"]) == (0.5, 1.0, 0.0)
    assert all("failed its calibration on people" in remark for remark in quality["remark"])
