"""The judges that the profile names, judging several recipes against the base, and what those that know the truth say could be reached."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.tables import JUDGEMENTS, SCORES
from rlhi_dagster.engines.base import RewardRequest
from rlhi_dagster.engines.model_settings import Player
from rlhi_dagster.evaluation import Criterion
from rlhi_dagster.evaluation.ceiling import ceiling
from rlhi_dagster.evaluation.judges import BY_REFERENCE, ChatJudge, Judge, ReplyVerdict, RewardJudge, TruthJudge, judge_pairs
from rlhi_dagster.feedback import Aspect
from rlhi_dagster.graph.model_calls import Asked, Calls
from rlhi_dagster.personas.cited import lines_alone
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.profiles import Profile
from rlhi_dagster.simulation import Verdict
from rlhi_dagster.simulation.town import style
from rlhi_dagster.simulation.town import truth as town
from rlhi_dagster.simulation.village import preferences as village_preferences
from rlhi_dagster.simulation.village import truth as village
from rlhi_dagster.training.recipes import BASE

_CHOICES: Mapping[str, Mapping[Aspect, Sequence[str]]] = {
    "town": {Aspect(aspect): values for aspect, values in style.VALUES.items()},
    "village": village_preferences.VALUES,
}
"""By simulation, what its users can want of each aspect of a reply."""


def judges(calls: Calls, profile: Profile, items: pl.DataFrame) -> list[Judge]:
    """The profile's judges over ``items`` (``EVAL_PROMPTS``), in its order.

    Raises:
        dg.Failure: A judge that knows a simulation's truth is asked about a source whose truth nobody knows.
    """
    return [
        _knowing(player.program, profile, items) if player.program else _model(calls, profile, player)
        for player in profile.players("judge")
    ]


def model_judges(calls: Calls, profile: Profile) -> list[Judge]:
    """Those of the profile's judges that are models, and so can judge any pair, each asked for its overall preference alone."""
    return [_model(calls, profile, player, [Criterion.OVERALL]) for player in profile.players("judge") if not player.program]


def judge_recipes(items: pl.DataFrame, responses: pl.DataFrame, recipes: Sequence[str], judges: Sequence[Judge]) -> pl.DataFrame:
    """``JUDGEMENTS`` of each recipe against the base, by each judge; ``responses`` holds theirs and the base's.

    Items with a known answer need no judge, so they go with the first one alone.
    """
    without_answer = items.filter(~pl.col("benchmark").is_in([name.value for name in BY_REFERENCE]))
    found = [JUDGEMENTS.empty()]
    for judge, shown in zip(judges, [items, *[without_answer] * (len(judges) - 1)], strict=True):
        known = responses.join(shown, on="prompt_id", how="semi")
        found += [judge_pairs(shown, known.filter(recipe=name), known.filter(recipe=BASE), judge) for name in recipes]
    return pl.concat(found)


def ceilings(profile: Profile, items: pl.DataFrame, judgements: pl.DataFrame) -> pl.DataFrame:
    """What could be reached of the scores that judges give who know what users want; no row where no judge does.

    Args:
        profile: Names the judges.
        items: ``EVAL_PROMPTS``.
        judgements: ``JUDGEMENTS``; of the base's requests those that a judge measured are those that the ceiling is of, and without the
            base there is none.

    Returns:
        ``SCORES`` under the base's name, which is no recipe's result (`Metric.ALL_PREFERENCES_MET_CEILING`).
    """
    found = [SCORES.empty()]
    for program in (player.program for player in profile.players("judge") if player.program):
        measured = judgements.filter(recipe=BASE, judge=program).filter(pl.col("preferences_met").is_not_null())
        asked = items.join(measured, on="prompt_id", how="semi")
        if asked.is_empty():
            continue
        rows = ceiling(asked, _wanted(program, *_truth(program, profile), asked.to_dicts()), _CHOICES[program])
        found.append(SCORES.conform(rows.with_columns(recipe=pl.lit(BASE), judge=pl.lit(program))))
    return pl.concat(found)


def _model(calls: Calls, profile: Profile, player: Player, criteria: Collection[Criterion] = tuple(Criterion)) -> Judge:
    """A chat model, or the reward model, which sees the user's lines where the profile's reward model sees the persona."""
    model, placement = calls.find(player), profile.reward.persona_placement
    if player.owner != "reward":
        return ChatJudge.with_default_prompts(model.identity, Asked(calls, player, model, 0.0), criteria)

    def shown(item: Mapping[str, Any], reply: str) -> RewardRequest:
        persona = lines_alone(item["known_of_user"] or "")
        return RewardRequest([*with_persona(item["prompt"], persona, placement), {"role": "assistant", "content": reply}])

    return RewardJudge(model.identity, lambda requests: calls.score(model, requests, player), shown)


def _knowing(program: str, profile: Profile, items: pl.DataFrame) -> Judge:
    """The judge that knows the hidden preferences of the town's or the village's users."""
    file, salt = _truth(program, profile)
    asked = [row for row in items.to_dicts() if row["user_id"] is not None]
    verdicts = (_in_town if program == "town" else _in_village)(file, salt, asked)

    def score(prompt_id: str, reply: str) -> ReplyVerdict:
        found = verdicts[prompt_id](reply)
        return ReplyVerdict(found.preferences_met, found.is_malformed) if found else ReplyVerdict()

    return TruthJudge(score, program)


def _truth(program: str, profile: Profile) -> tuple[Path, str]:
    """The file of hidden preferences, and the salt of the users in it."""
    if profile.truth is None:
        raise dg.Failure(
            f"judge `{program}` knows only the simulated users: name a chat model as models.judge in a profile for real logs",
            allow_retries=False,
        )
    return profiles.project_path(profile.truth) / "preferences.parquet", profiles.salt(profile)


def _wanted(program: str, file: Path, salt: str, asked: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[Aspect, str]]:
    """What its user wants of the reply, by item."""
    if program == "town":
        styles = town.preferences(file, salt)
        return {row["prompt_id"]: {aspect: styles[row["user_id"]].value(aspect) for aspect in _CHOICES["town"]} for row in asked}
    known = village.preferences(file, salt)
    return {row["prompt_id"]: village.preference_at(known[row["user_id"]], row["asked_at"]) for row in asked}


def _in_town(file: Path, salt: str, asked: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[str], Verdict | None]]:
    """What the town says of a reply, by item."""
    known = town.preferences(file, salt)
    return {row["prompt_id"]: partial(town.verdict_on, known[row["user_id"]], row["prompt"]) for row in asked}


def _in_village(file: Path, salt: str, asked: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[str], Verdict | None]]:
    """What the village says of a reply, by item: users change their minds."""
    known = village.preferences(file, salt)
    return {
        row["prompt_id"]: partial(
            village.verdict, village.preference_at(known[row["user_id"]], row["asked_at"]), row["prompt"][-1]["content"]
        )
        for row in asked
    }
