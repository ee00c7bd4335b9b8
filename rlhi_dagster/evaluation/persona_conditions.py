"""Evaluation items once more, under another persona: what of a gain is personal, and what a cold start costs.

What belongs here: another user's persona, none, and the user's own cut to the first conversations, for items that UserEval has chosen. What
does not: choosing the items (``user_eval``) and the numbers (``scores``).

The judge is told of the evaluated user the same under every condition (``known_of_user``).
"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from rlhi_dagster.base.tables import EVAL_PROMPTS
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.evaluation import COLD_START, Benchmark
from rlhi_dagster.evaluation.settings import EvaluationSettings
from rlhi_dagster.evaluation.user_eval import Snapshot, latest

SHUFFLED, EMPTY, CUT = "shuffled", "empty", "cut"
_TRIES = 20
"""Users who are asked for their persona before an item goes without a stranger's."""


def asked_again(
    items: pl.DataFrame, opened: pl.DataFrame, personas: pl.DataFrame, settings: EvaluationSettings, snapshot: Snapshot, seed: int
) -> pl.DataFrame:
    """The items that UserEval has beside those of its choice, as the settings say."""
    # Without a persona there is nothing to take away.
    shown = items.filter(pl.col("benchmark") == Benchmark.USER_EVAL.value, pl.col("persona") != "")
    chosen = latest(shown, settings.other_personas_per_user, "turn_id")
    found = [cold_start(items, opened, personas, settings.cold_start_per_user, snapshot)]
    if SHUFFLED in settings.personas:
        found.append(shuffled(chosen, personas, opened["user_id"].unique().to_list(), snapshot, seed))
    if EMPTY in settings.personas:
        found.append(without(chosen))
    return pl.concat(found)


def without(items: pl.DataFrame) -> pl.DataFrame:
    """The items without a persona."""
    nothing = pl.DataFrame({"persona": "", "persona_line_ids": [[]]}, schema_overrides={"persona_line_ids": pl.List(pl.String)})
    none = items.select("turn_id", persona_user_id=pl.lit(None, dtype=pl.String)).join(nothing, how="cross")
    return _again(items, none, EMPTY, Benchmark.USER_EVAL_EMPTY)


def shuffled(items: pl.DataFrame, personas: pl.DataFrame, users: Collection[str], snapshot: Snapshot, seed: int) -> pl.DataFrame:
    """The items with the persona that another user had at the same moment: the next user, in an order drawn by ``seed``, whose differs.

    Args:
        items: ``EVAL_PROMPTS`` of first requests.
        personas: ``PERSONAS``.
        users: Who lends personas; the evaluated users are among them.
        snapshot: Gives the persona as of a moment.
        seed: Of the order.

    Returns:
        ``EVAL_PROMPTS``; an item of whose possible lenders none has another persona is missing.
    """
    order = sorted(users, key=lambda user: digest_of("lender", user, seed))
    place = {user: number for number, user in enumerate(order)}
    left, found = items, [EVAL_PROMPTS.empty()]
    for step in range(1, min(len(order), _TRIES + 1)):
        lenders = [order[(place[user] + step) % len(order)] for user in left["user_id"]]
        moments = left.select("turn_id", "asked_at").with_columns(user_id=pl.Series(lenders, dtype=pl.String()))
        lent = snapshot(personas, moments).rename({"user_id": "persona_user_id"}).drop("asked_at")
        fits = lent.join(left.select("turn_id", own="persona"), on="turn_id").filter(
            pl.col("persona") != "", pl.col("persona") != pl.col("own")
        )
        found.append(_again(left.join(fits, on="turn_id", how="semi"), fits.drop("own"), SHUFFLED, Benchmark.USER_EVAL_SHUFFLED))
        left = left.join(fits, on="turn_id", how="anti")
        if left.is_empty():
            break
    return pl.concat(found)


def cold_start(items: pl.DataFrame, opened: pl.DataFrame, personas: pl.DataFrame, per_user: int, snapshot: Snapshot) -> pl.DataFrame:
    """The latest items of users with a long history, once for each k of `COLD_START`, as if only k of their conversations were known.

    So every stratum has the same requests of the same users, and only what is known of them differs. The persona is that of the moment at
    which conversation k + 1 began.

    Args:
        items: ``EVAL_PROMPTS`` of first requests.
        opened: As `user_eval.openings` gives them: every conversation of these users.
        personas: ``PERSONAS``.
        per_user: Most requests a user gets; 0 for none.
        snapshot: Gives the persona as of a moment.
    """
    long = items.filter(pl.col("benchmark") == Benchmark.USER_EVAL.value, pl.col("earlier_conversations") >= max(COLD_START))
    chosen = latest(long, per_user, "turn_id")
    begun = opened.sort("user_id", "asked_at", "conversation_id").with_columns(number=pl.int_range(pl.len()).over("user_id"))
    found = [EVAL_PROMPTS.empty()]
    for known, benchmark in COLD_START.items():
        until = begun.filter(pl.col("number") == known).select("user_id", "asked_at")
        moments = chosen.select("turn_id", "user_id").join(until, on="user_id", how="inner")
        seen = snapshot(personas, moments).select(
            "turn_id", "persona", "persona_line_ids", persona_user_id=pl.when(pl.col("persona") != "").then("user_id")
        )
        found.append(_again(chosen, seen, CUT, benchmark))
    return pl.concat(found)


def _again(items: pl.DataFrame, seen: pl.DataFrame, condition: str, benchmark: Benchmark) -> pl.DataFrame:
    """The items under a name of their own, with what is seen of a persona: ``turn_id`` and the three columns of it."""
    shown = items.drop("persona", "persona_line_ids", "persona_user_id").join(seen, on="turn_id", how="inner", validate="1:1")
    return EVAL_PROMPTS.conform(
        shown.with_columns(
            prompt_id=pl.format("{}:{}", pl.lit(benchmark.value), "turn_id"),
            benchmark=pl.lit(benchmark.value),
            persona_condition=pl.lit(condition),
        )
    )
