"""From labels and messages to complaints: what was said, of which request, and whether it was settled later.

What belongs here: finding a complaint's messages. What does not: what it wishes (``kinds``, ``clusters``).

A complaint is a follow-up labelled `reattempt_with_feedback`. The request that it is about is the latest message before it that opens a
task: the conversation's first one, or one labelled `new_request`; the message just before it may itself be a complaint ("shorter").
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.feedback import Feedback

_REATTEMPTS = [Feedback.REATTEMPT_WITH_FEEDBACK.value, Feedback.REATTEMPT_WITHOUT_FEEDBACK.value]


def complaints(labels: pl.LazyFrame, turns: pl.LazyFrame) -> pl.DataFrame:
    """Every complaint with its messages.

    Args:
        labels: Rows of ``tables.FEEDBACK_LABELS``, one for each turn after the first.
        turns: Rows of ``tables.TURNS``.

    Returns:
        ``turn_id``, ``conversation_id``, ``user_id``, ``month``, ``asked_at``, ``text``, ``previous_prompt``, ``request`` and
        ``is_resolved`` (see ``tables.UNMET_WISHES``), sorted by ``turn_id``.
    """
    is_again = pl.col("label").is_in(_REATTEMPTS)
    ends = labels.group_by("conversation_id").agg(last="turn", settled=pl.col("turn").filter(~is_again).max())
    ends = ends.with_columns(pl.col("last").list.max())
    found = labels.filter(pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value).select("turn_id", "conversation_id", "turn")
    said = turns.join(found, on="conversation_id", how="semi")
    tasks = said.join(labels.select("turn_id", "label"), on="turn_id", how="left").filter(
        (pl.col("turn") == 1) | (pl.col("label") == Feedback.NEW_REQUEST.value)
    )
    own = said.select("turn_id", "user_id", "month", "asked_at", is_answered=pl.col("reply").is_not_null(), text="prompt")
    before = said.select("conversation_id", turn=pl.col("turn") + 1, previous_prompt="prompt")
    placed, opened = pl.collect_all(
        [
            found.join(ends, on="conversation_id").join(own, on="turn_id").join(before, on=["conversation_id", "turn"]).sort("turn"),
            tasks.select("conversation_id", "turn", request="prompt").sort("turn"),
        ]
    )
    settled, is_last = pl.col("settled") > pl.col("turn"), pl.col("last") == pl.col("turn")
    is_resolved = pl.when(settled.fill_null(value=False)).then(True).when(is_last & pl.col("is_answered")).then(None).otherwise(False)
    return (
        placed.join_asof(opened, on="turn", by="conversation_id", allow_exact_matches=False, check_sortedness=False)
        .with_columns(is_resolved.alias("is_resolved"))
        .select("turn_id", "conversation_id", "user_id", "month", "asked_at", "text", "previous_prompt", "request", "is_resolved")
        .sort("turn_id")
    )
