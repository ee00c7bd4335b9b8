"""Best against worst candidate of a request, as preference pairs.

What belongs here: ranking, ties, length penalty and margin. What does not: sampling and scoring candidates (``candidates``).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from rlhi_dagster.base.tables import REWARD_PAIRS
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.preferences.settings import CandidateSettings

CONDITIONS = ("own", "shuffled", "none")
"""Whose persona the reward model saw: the user's own, another user's, nobody's."""

_RANKED = ("candidate_id", "reply", "reward", "penalised", "call_id", "reward_call_id")
_SHARED = ("user_id", "month", "asked_at", "prompt", "persona", "persona_line_ids", "model")


def reward_pairs(sampled: pl.DataFrame, rewards: pl.DataFrame, settings: CandidateSettings) -> pl.DataFrame:
    """The pairs of `ranked_pairs` under every condition, as ``REWARD_PAIRS``."""
    return REWARD_PAIRS.conform(ranked_pairs(sampled, rewards, settings, CONDITIONS))


def ranked_pairs(sampled: pl.DataFrame, rewards: pl.DataFrame, settings: CandidateSettings, conditions: Sequence[str]) -> pl.DataFrame:
    """Best against worst distinct reply of each request under each condition, by reward minus length penalty.

    With ``pairs_per_request`` above 1 also the second best against the second worst, and so on, while there are replies left.

    Drop reasons: ``too_few_replies`` (fewer than two distinct scored replies; both sides are empty), ``no_other_user`` (the same, because
    nobody else's persona was there to shuffle), ``margin_too_small``.

    Args:
        sampled: ``CANDIDATES``.
        rewards: ``CANDIDATE_REWARDS`` of the same.
        settings: Penalty per 1,000 characters, tie rule, least margin (of the penalised rewards) and pairs per request.
        conditions: Of ``CONDITIONS`` those that are wanted.

    Returns:
        The columns of ``REWARD_PAIRS`` and ``rank`` (0: best against worst), at least one row for each request and condition. ``persona``
        is the user's own under every condition: it is what the trained policy will see.
    """
    ranked = _ranked(sampled, rewards, settings, conditions)
    enough, margin = pl.col("replies") >= 2, pl.col("chosen_penalised") - pl.col("rejected_penalised")
    pairs = pl.concat(
        ranked.filter((pl.lit(rank) == 0) | (pl.col("replies") >= 2 * (rank + 1)))
        .with_columns(
            pl.when(enough).then(pl.col(name).list.get(place, null_on_oob=True)).alias(f"{side}_{name}")
            for side, place in (("chosen", rank), ("rejected", -1 - rank))
            for name in _RANKED
        )
        .with_columns(rank=pl.lit(rank))
        for rank in range(settings.pairs_per_request)
    )
    reason = (
        pl.when(~enough & pl.col("is_unscored"))
        .then(pl.lit("no_other_user"))
        .when(~enough)
        .then(pl.lit("too_few_replies"))
        .when(margin < settings.min_margin)
        .then(pl.lit("margin_too_small"))
    )
    ids = [digest_of("reward_pair", *row) for row in pairs.select("turn_id", "condition", "rank", "model", "reward_model").iter_rows()]
    calls = [f"{side}_{name}" for name in ("call_id", "reward_call_id") for side in ("chosen", "rejected")]
    return pairs.with_columns(
        pair_id=pl.Series(ids, dtype=pl.String()),
        chosen=pl.col("chosen_reply").fill_null(""),
        rejected=pl.col("rejected_reply").fill_null(""),
        chosen_id="chosen_candidate_id",
        rejected_id="rejected_candidate_id",
        call_ids=pl.concat_list(calls).list.drop_nulls(),
        drop_reasons=pl.concat_list(reason).list.drop_nulls(),
    ).with_columns(is_kept=pl.col("drop_reasons").list.len() == 0)


def _ranked(sampled: pl.DataFrame, rewards: pl.DataFrame, settings: CandidateSettings, conditions: Sequence[str]) -> pl.DataFrame:
    """Each request under each condition, with its distinct scored replies from the best to the worst as lists."""
    requests = sampled.sort("turn_id", "sample_index").unique("turn_id", keep="first", maintain_order=True)
    wanted = requests.select("turn_id", *_SHARED).join(pl.DataFrame({"condition": list(conditions)}), how="cross")
    asked = rewards.select("turn_id", "condition").unique()
    unscored = asked.filter(condition="own").join(asked.filter(condition="shuffled"), on="turn_id", how="anti")
    unscored = unscored.select("turn_id", condition=pl.lit("shuffled"), is_unscored=pl.lit(True))
    scored = rewards.drop_nulls("reward").select("candidate_id", "condition", "reward", "reward_model", reward_call_id="call_id")
    penalised = pl.col("reward") - settings.length_penalty * pl.col("reply").str.len_chars() / 1_000
    by_tie = {"shorter": ["characters", "sample_index"], "first": ["sample_index"]}[settings.ties]
    lists = (
        sampled.select("candidate_id", "turn_id", "sample_index", "reply", "call_id")
        .join(scored, on="candidate_id", how="inner")
        .with_columns(penalised=penalised, characters=pl.col("reply").str.len_chars())
        .sort("turn_id", "condition", "sample_index")
        .unique(["turn_id", "condition", "reply"], keep="first", maintain_order=True)
        .sort("turn_id", "condition", "penalised", *by_tie, descending=[False, False, True, *(False for _ in by_tie)])
        .group_by("turn_id", "condition", maintain_order=True)
        .agg(*_RANKED, pl.col("reward_model").first(), replies=pl.len())
    )
    found = wanted.join(lists, on=["turn_id", "condition"], how="left").join(unscored, on=["turn_id", "condition"], how="left")
    return found.with_columns(pl.col("replies").fill_null(0), pl.col("is_unscored").fill_null(False))
