"""The judge that the profile names, and judging several recipes against the base."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.engines.base import ChatRequest
from rlhi_dagster.engines.calls import CallStats
from rlhi_dagster.evaluation.judges import ChatJudge, Judge, ReplyVerdict, TownJudge, judge_pairs
from rlhi_dagster.resources import Settings, Workers, asking
from rlhi_dagster.simulation import truth
from rlhi_dagster.training.artefacts import hub_model
from rlhi_dagster.training.recipes import BASE


def judge_of(context: dg.AssetExecutionContext, settings: Settings, workers: Workers, items: pl.DataFrame, spent: list[CallStats]) -> Judge:
    """The profile's judge over ``items`` (``EVAL_PROMPTS``); what its model calls cost is added to ``spent``.

    Raises:
        dg.Failure: The town's judge is asked about a source whose truth nobody knows.
    """
    profile = settings.profile
    if profile.evaluation.judge == "chat":
        assert profile.evaluation.judge_model
        model = hub_model(profile.evaluation.judge_model, profile.evaluation.judge_revision)
        ask = asking(context, workers, model, settings.sampling(temperature=0.0), "judge", spent)

        def chat(asked: list[list[dict[str, str]]]) -> list[str | None]:
            return [answer.text for answer in ask([ChatRequest(messages) for messages in asked])]

        return ChatJudge.with_default_prompt(model.identity, chat)
    if profile.truth is None:
        raise dg.Failure(
            "judge `town` knows only the simulated users: set evaluation.judge to `chat` in a profile for real logs", allow_retries=False
        )
    known = truth.preferences(profiles.project_path(profile.truth) / "preferences.parquet", profiles.salt(profile))
    asked = {
        row["prompt_id"]: (known[row["user_id"]], row["prompt"][-1]["content"]) for row in items.to_dicts() if row["user_id"] is not None
    }

    def score(prompt_id: str, reply: str) -> ReplyVerdict:
        found = truth.verdict(*asked[prompt_id], reply)
        return ReplyVerdict(preferences_met=found.preferences_met, is_malformed=found.is_malformed)

    return TownJudge(score)


def judge_recipes(items: pl.DataFrame, responses: pl.DataFrame, recipes: Sequence[str], judge: Judge) -> pl.DataFrame:
    """``JUDGEMENTS`` of each recipe against the base; ``responses`` holds theirs and the base's."""
    of_base = responses.filter(pl.col("recipe") == BASE)
    return pl.concat([judge_pairs(items, responses.filter(pl.col("recipe") == name), of_base, judge) for name in recipes])
