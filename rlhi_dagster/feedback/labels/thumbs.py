"""How the labels of follow-ups go with the thumbs that users gave to the replies before them.

What belongs here: thumbs as a measure of the labeller, which cost nobody anything. What does not: labels given by annotators
(``agreement``), and thumbs as training examples (``rlhi_dagster.training.thumbs``).

Of a user who puts a thumb down and then writes, the follow-up should more often be a re-attempt with feedback than that of a user who puts
a thumb up. Where that is not so, either the labels are wrong or thumbs mean something else here.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.conversations.sources.records import FeedbackKind, Giver
from rlhi_dagster.feedback import Feedback

ENOUGH = 20
"""Follow-ups with a thumb, of re-attempts with feedback and of the others, from which on something is said."""


def latest_thumbs(explicit_feedback: pl.LazyFrame) -> pl.LazyFrame:
    """The end users' thumbs, of several on one reply the latest: ``turn_id`` and ``value``.

    Args:
        explicit_feedback: ``EXPLICIT_FEEDBACK``.
    """
    return (
        explicit_feedback.filter(pl.col("kind") == FeedbackKind.THUMB.value, pl.col("giver") == Giver.END_USER.value)
        .sort("given_at", "feedback_id", nulls_last=False)
        .group_by("turn_id")
        .agg(pl.col("value").last())
    )


def thumbs(labels: pl.LazyFrame, explicit_feedback: pl.LazyFrame, turns: pl.LazyFrame) -> pl.DataFrame:
    """Labelled follow-ups whose reply before has a thumb of the end user: ``user_id``, ``label`` and ``is_down``.

    Args:
        labels: ``FEEDBACK_LABELS``.
        explicit_feedback: ``EXPLICIT_FEEDBACK``; of several thumbs on one reply the latest counts.
        turns: ``TURNS``.
    """
    given = turns.select("turn_id", "conversation_id", "user_id", next_turn=pl.col("turn") + 1)
    placed = given.join(latest_thumbs(explicit_feedback), on="turn_id")
    return (
        labels.select("conversation_id", "turn", "label")
        .join(placed, left_on=["conversation_id", "turn"], right_on=["conversation_id", "next_turn"])
        .select("user_id", "label", is_down=pl.col("value") < 0)
        .sort("label", "user_id", "is_down")
        .collect()
    )


def by_label(found: pl.DataFrame) -> pl.DataFrame:
    """Share of thumbs down by label, with 95 % intervals over users: ``label``, ``n``, ``users``, ``down``, ``ci_low``, ``ci_high``."""
    rows = []
    for (label,), of_label in found.group_by("label", maintain_order=True):
        share = estimate(of_label["is_down"].cast(pl.Float64), of_label["user_id"], is_share=True)
        rows.append((label, share.n, share.clusters, share.value, share.ci_low, share.ci_high))
    schema = {"label": pl.String, "n": pl.Int64, "users": pl.Int64, "down": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def labels_go_with_thumbs(labels: pl.LazyFrame, explicit_feedback: pl.LazyFrame, turns: pl.LazyFrame) -> Finding:
    """Thumbs down come before re-attempts with feedback more often than before other follow-ups, as far as there are enough thumbs.

    Args:
        labels: ``FEEDBACK_LABELS``.
        explicit_feedback: ``EXPLICIT_FEEDBACK``.
        turns: ``TURNS``.
    """
    found = thumbs(labels, explicit_feedback, turns)
    is_complaint = pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value
    sides = {name: found.filter(side) for name, side in (("complaints", is_complaint), ("others", ~is_complaint))}
    shares = {name: estimate(side["is_down"].cast(pl.Float64), side["user_id"], is_share=True) for name, side in sides.items()}
    numbers = {
        "follow_ups_with_thumb": len(found),
        "down_before_complaints": shares["complaints"].value,
        "down_before_others": shares["others"].value,
        "by_label": by_label(found),
    }
    if min(share.n for share in shares.values()) < ENOUGH:
        return Finding(True, {**numbers, "said": f"fewer than {ENOUGH} thumbs on a side: nothing can be said"})
    complaints, others = shares["complaints"], shares["others"]
    holds = complaints.ci_low is not None and others.ci_high is not None and complaints.ci_low > others.ci_high
    clear = "labels and thumbs agree" if holds else "labels and thumbs do not agree: look at both before you trust either"
    return Finding(holds, {**numbers, "said": clear})
