"""User-guided rewrites: a reply that drew a re-attempt with feedback is written again, with the feedback in view.

Strategy ``feedback``: the policy continues the dialogue after the follow-up; that continuation is the rewrite. Chosen = rewrite,
rejected = original; the pair's prompt ends before the original, so what is learnt is to get it right the first time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.tables import REWRITE_PAIRS, REWRITES

STRATEGY = "feedback"
_CLARIFIES = re.compile(r"\bI meant\b|\bI was asking (?:about|for)\b|\bquise decir\b|\bme refer[íi]a a\b", re.IGNORECASE)

Snapshot = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
"""``personas.snapshots.personas_at``: adds ``persona`` and ``persona_line_ids`` to rows with ``user_id`` and ``asked_at``."""


def criticised(
    chat: pl.DataFrame,
    labels: pl.DataFrame,
    users: pl.DataFrame,
    personas: pl.DataFrame,
    min_probability: float,
    snapshot: Snapshot,
    *,
    logged_where_inapplicable: bool,
) -> pl.DataFrame:
    """Replies of training users that drew a re-attempt with feedback, with the persona as of the request.

    Args:
        chat: ``WILDLLAMACHAT`` of whole conversations.
        labels: ``FEEDBACK_LABELS`` of the same conversations.
        users: ``USERS``.
        personas: ``PERSONAS``.
        min_probability: Least ``reattempt_probability``.
        snapshot: See ``Snapshot``.
        logged_where_inapplicable: Where the criticism does not fit the regenerated reply, take the logged reply that drew it.

    Returns:
        Columns of ``REWRITES`` up to ``feedback``, plus ``follow_up_applies``, ``is_off_policy``, ``persona`` and ``persona_line_ids``;
        one row a reply.
    """
    is_feedback = (pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value) & (pl.col("reattempt_probability") >= min_probability)
    feedback = labels.filter(is_feedback).select(follow_up_id="turn_id")
    texts = chat.select(follow_up_id="turn_id", feedback="prompt")
    takes_logged = pl.lit(logged_where_inapplicable) & pl.col("follow_up_applies").eq_missing(False)
    asked = pl.concat_list("history", pl.struct(role=pl.lit("user"), content="prompt"))
    rows = (
        chat.filter(pl.col("reply").is_not_null())
        .join(feedback, on="follow_up_id", how="semi")
        .join(texts, on="follow_up_id", how="inner")
        .join(users.filter(pl.col("split") == "train"), on="user_id", how="semi")
        .select(
            "turn_id",
            "user_id",
            "month",
            "follow_up_id",
            "asked_at",
            pl.lit(STRATEGY).alias("strategy"),
            asked.alias("prompt"),
            pl.when(takes_logged).then("logged_reply").otherwise("reply").alias("original"),
            "feedback",
            "follow_up_applies",
            takes_logged.alias("is_off_policy"),
        )
        .sort("turn_id")
    )
    return snapshot(personas, rows)


def rewrite_request(row: Mapping[str, Any]) -> ChatRequest:
    """What the policy is asked: the dialogue up to and with the feedback."""
    said = [{"role": "assistant", "content": row["original"]}, {"role": "user", "content": row["feedback"]}]
    return ChatRequest([*row["prompt"], *said])


def rewrites(rows: pl.DataFrame, answers: list[ChatAnswer], model: str) -> pl.DataFrame:
    """``REWRITES`` from criticised replies and their answers, in the same order; a reply cut off at the limit is an error."""
    cut = ["cut_off_at_max_new_tokens" if answer.finish_reason == "length" else answer.error for answer in answers]
    texts = [None if error else answer.text for error, answer in zip(cut, answers, strict=True)]
    ids = [digest_of("rewrite", turn_id, STRATEGY) for turn_id in rows["turn_id"]]
    return REWRITES.conform(
        rows.with_columns(
            rewrite_id=pl.Series(ids, dtype=pl.String()),
            rewrite=pl.Series(texts, dtype=pl.String()),
            error=pl.Series(cut, dtype=pl.String()),
            model=pl.lit(model),
        )
    )


def rewrite_pairs(rewritten: pl.DataFrame, *, drops_inapplicable: bool) -> pl.DataFrame:
    """Judge each rewrite as a pair.

    Drop reasons, the first that applies: ``rewrite_failed``; ``clarifies_request`` (the follow-up says what was meant, which the trained
    model cannot know); ``feedback_does_not_apply``; ``empty_rewrite``; ``identical_sides``.

    Returns:
        ``REWRITE_PAIRS``, one row a rewrite.
    """
    chosen, rejected = (pl.col(name).str.replace_all(r"\s+", " ").str.strip_chars() for name in ("rewrite", "original"))
    clarifies = pl.col("feedback").map_elements(lambda text: bool(_CLARIFIES.search(text)), return_dtype=pl.Boolean())
    reason = (
        pl.when(pl.col("rewrite").is_null())
        .then(pl.lit("rewrite_failed"))
        .when(clarifies)
        .then(pl.lit("clarifies_request"))
        .when(pl.lit(drops_inapplicable) & pl.col("follow_up_applies").eq_missing(False))
        .then(pl.lit("feedback_does_not_apply"))
        .when(chosen == "")
        .then(pl.lit("empty_rewrite"))
        .when(chosen == rejected)
        .then(pl.lit("identical_sides"))
    )
    pairs = rewritten.with_columns(
        pair_id=pl.col("rewrite_id"),
        chosen=pl.col("rewrite").fill_null(""),
        rejected=pl.col("original"),
        drop_reason=reason,
    )
    return REWRITE_PAIRS.conform(pairs.with_columns(is_kept=pl.col("drop_reason").is_null()))
