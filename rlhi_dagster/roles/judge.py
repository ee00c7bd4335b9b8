"""The judges that the profile names, and judging several recipes against the base."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.evaluation.judges import BY_REFERENCE, ChatJudge, Judge, ReplyVerdict, TownJudge, judge_pairs
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.profiles import Profile
from rlhi_dagster.simulation import truth
from rlhi_dagster.training.recipes import BASE


def judges(calls: Calls, profile: Profile, items: pl.DataFrame) -> list[Judge]:
    """The profile's judges over ``items`` (``EVAL_PROMPTS``), in its order.

    Raises:
        dg.Failure: The town's judge is asked about a source whose truth nobody knows.
    """
    models = iter(calls.all_asked("judge", temperature=0.0))
    return [
        _town(profile, items) if player.program else ChatJudge.with_default_prompt((model := next(models)).model.identity, model)
        for player in profile.players("judge")
    ]


def judge_recipes(items: pl.DataFrame, responses: pl.DataFrame, recipes: Sequence[str], judges: Sequence[Judge]) -> pl.DataFrame:
    """``JUDGEMENTS`` of each recipe against the base, by each judge; ``responses`` holds theirs and the base's.

    Items with a known answer need no judge, so they go with the first one alone.
    """
    without_answer = items.filter(~pl.col("benchmark").is_in([name.value for name in BY_REFERENCE]))
    found = []
    for judge, shown in zip(judges, [items, *[without_answer] * (len(judges) - 1)], strict=True):
        known = responses.join(shown, on="prompt_id", how="semi")
        found += [judge_pairs(shown, known.filter(recipe=name), known.filter(recipe=BASE), judge) for name in recipes]
    return pl.concat(found)


def _town(profile: Profile, items: pl.DataFrame) -> Judge:
    if profile.truth is None:
        raise dg.Failure(
            "judge `town` knows only the simulated users: name a chat model as models.judge in a profile for real logs", allow_retries=False
        )
    known = truth.preferences(profiles.project_path(profile.truth) / "preferences.parquet", profiles.salt(profile))
    asked = {
        row["prompt_id"]: (known[row["user_id"]], row["prompt"][-1]["content"]) for row in items.to_dicts() if row["user_id"] is not None
    }

    def score(prompt_id: str, reply: str) -> ReplyVerdict:
        found = truth.verdict(*asked[prompt_id], reply)
        return ReplyVerdict(preferences_met=found.preferences_met, is_malformed=found.is_malformed)

    return TownJudge(score)
