"""User-based rewards: N replies to an opening request, sampled with the persona in view and scored by a reward model.

Each candidate is scored three times: under the user's own persona, under another user's (``shuffled``) and under none. What changes
between the three is what the persona contributes.

What belongs here: which requests, what is asked, and the tables of candidates and rewards. What does not: which candidates become a pair
(``reward_pairs``) and what the persona does to their order (``reward_order``).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from rlhi_dagster.base.tables import CANDIDATE_REWARDS, CANDIDATES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona
from rlhi_dagster.personas.donors import donors
from rlhi_dagster.preferences.rewrites import Snapshot


def opening_requests(
    turns: pl.DataFrame,
    users: pl.DataFrame,
    personas: pl.DataFrame,
    most: int | None,
    seed: int,
    snapshot: Snapshot,
    *,
    with_persona_only: bool,
) -> pl.DataFrame:
    """Opening requests of training users outside template traffic, with the persona of the moment.

    Args:
        turns: ``TURNS``.
        users: ``USERS``.
        personas: ``PERSONAS``.
        most: At most this many a month, those with the smallest digest of id and seed; ``None`` for all.
        seed: Changes which ones.
        snapshot: See ``Snapshot``.
        with_persona_only: Leave out requests of users of whom nothing was known yet.

    Returns:
        turn_id, user_id, month, asked_at, prompt (messages), persona, persona_line_ids; sorted by ``turn_id``.
    """
    opening = (
        turns.filter((pl.col("turn") == 1) & pl.col("template_id").is_null())
        .join(users.filter(pl.col("split") == "train"), on="user_id", how="semi")
        .select("turn_id", "user_id", "month", "asked_at", prompt=pl.concat_list(pl.struct(role=pl.lit("user"), content="prompt")))
    )
    known = snapshot(personas, opening)
    if with_persona_only:
        known = known.filter(pl.col("persona") != "")
    drawn = known.with_columns(draw=pl.Series([digest_of(turn_id, seed) for turn_id in known["turn_id"]], dtype=pl.String()))
    if most is not None:
        drawn = drawn.filter(pl.col("draw").rank("ordinal").over("month") <= most)
    return drawn.drop("draw").sort("turn_id")


def candidate_requests(requests: pl.DataFrame, count: int) -> list[ChatRequest]:
    """``count`` samples of each request with its persona, request by request."""
    seen = (with_persona(row["prompt"], row["persona"]) for row in requests.to_dicts())
    return [ChatRequest(messages, index) for messages in seen for index in range(count)]


def candidates(requests: pl.DataFrame, answers: Sequence[ChatAnswer], count: int, model: str) -> pl.DataFrame:
    """``CANDIDATES`` from requests and the answers to ``candidate_requests``; a reply cut off at the limit is an error."""
    indices = pl.DataFrame({"sample_index": range(count)}, schema={"sample_index": pl.Int32()})
    repeated = requests.join(indices, how="cross", maintain_order="left_right")
    errors = [answer.failure for answer in answers]
    texts = [None if error else answer.text for error, answer in zip(errors, answers, strict=True)]
    return CANDIDATES.conform(
        repeated.with_columns(
            candidate_id=pl.format("{}#{}", "turn_id", "sample_index"),
            reply=pl.Series(texts, dtype=pl.String()),
            error=pl.Series(errors, dtype=pl.String()),
            model=pl.lit(model),
            call_id=pl.Series([answer.call_id or None for answer in answers], dtype=pl.String()),
        )
    )


def conditioned(sampled: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Every candidate under every persona condition.

    Args:
        sampled: ``CANDIDATES``; rows without a reply are left out.
        seed: Of the donors.

    Returns:
        candidate_id, turn_id, month, condition, persona_user_id, seen (the persona shown), prompt, reply.
    """
    rows = sampled.filter(pl.col("reply").is_not_null())
    given = donors(rows.unique("turn_id").select("turn_id", "user_id", "month", "persona"), seed)
    base = rows.select("candidate_id", "turn_id", "month", "user_id", "prompt", "reply", "persona")
    own = base.with_columns(condition=pl.lit("own"), persona_user_id=pl.col("user_id"), seen=pl.col("persona"))
    none = base.with_columns(condition=pl.lit("none"), persona_user_id=pl.lit(None, dtype=pl.String()), seen=pl.lit(""))
    shuffled = base.join(given, on="turn_id", how="inner").with_columns(condition=pl.lit("shuffled"))
    shuffled = shuffled.rename({"donor_user_id": "persona_user_id", "donor_persona": "seen"})
    columns = ["candidate_id", "turn_id", "month", "condition", "persona_user_id", "seen", "prompt", "reply"]
    return pl.concat([frame.select(columns) for frame in (own, shuffled, none)]).sort("candidate_id", "condition")


def reward_requests(rows: pl.DataFrame, placement: PersonaPlacement) -> list[RewardRequest]:
    """What the reward model sees of each row of ``conditioned``, with the persona where it expects one."""
    return [
        RewardRequest([*with_persona(row["prompt"], row["seen"], placement), {"role": "assistant", "content": row["reply"]}])
        for row in rows.to_dicts()
    ]


def candidate_rewards(rows: pl.DataFrame, answers: Sequence[RewardAnswer], reward_model: str) -> pl.DataFrame:
    """``CANDIDATE_REWARDS`` from rows of ``conditioned`` and the answers to ``reward_requests``."""
    return CANDIDATE_REWARDS.conform(
        rows.with_columns(
            reward=pl.Series([answer.reward for answer in answers], dtype=pl.Float64()),
            error=pl.Series([answer.error for answer in answers], dtype=pl.String()),
            reward_model=pl.lit(reward_model),
            call_id=pl.Series([answer.call_id or None for answer in answers], dtype=pl.String()),
        )
    )
