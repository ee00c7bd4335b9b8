"""WildLlamaChat: user messages kept, assistant replies regenerated turn by turn on the regenerated history.

Turn by turn is our choice; the paper does not say.

What belongs here: the table, whether a kept follow-up still fits the regenerated reply (its user criticised another text), and how often it
does not. What does not: who decides that (``pair_judge``) and what becomes of a follow-up that does not fit (``rewrites``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.base.tables import WILDLLAMACHAT
from rlhi_dagster.engines.base import ChatAnswer, Messages
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.aspects import requests
from rlhi_dagster.preferences.pair_judge import FollowUp, PairJudge

_OF_TURN = ("turn_id", "conversation_id", "user_id", "month", "turn", "asked_at", "prompt", "follow_up_id", "follow_up")
MISMATCHES_SCHEMA = {
    "of": pl.String(),
    "follow_ups": pl.Int64(),
    "untold": pl.Int64(),
    "mismatched": pl.Int64(),
    "mismatch_fraction": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "users": pl.Int64(),
}


def user_messages(turns: pl.DataFrame) -> dict[str, list[str]]:
    """The user's messages of each conversation in ``turns`` that got a reply, in order: a last word is given none here either."""
    ordered = turns.drop_nulls("reply").sort("conversation_id", "turn").group_by("conversation_id", maintain_order=True).agg("prompt")
    return dict(zip(ordered["conversation_id"].to_list(), ordered["prompt"].to_list(), strict=True))


def wildllamachat(
    turns: pl.DataFrame,
    labels: pl.DataFrame,
    answers: Mapping[str, Sequence[ChatAnswer]],
    model: str,
    judge: PairJudge,
    min_probability: float,
) -> pl.DataFrame:
    """Put the regenerated replies beside the logged ones, and say where a follow-up's criticism fits the regenerated one.

    Only re-attempts with feedback criticise; of the other follow-ups nothing is asked, and of replies that could not be regenerated.

    Args:
        turns: ``TURNS`` of whole conversations.
        labels: ``FEEDBACK_LABELS`` of the same.
        answers: One answer per message in ``user_messages``, by conversation.
        model: Identity of the model that answered.
        judge: Decides.
        min_probability: Least ``reattempt_probability`` of a follow-up that counts as feedback.

    Returns:
        ``WILDLLAMACHAT``, one row a turn that got a reply.
    """
    chat = pl.DataFrame(_regenerated(turns, answers, model), schema=WILDLLAMACHAT.schema)
    return WILDLLAMACHAT.conform(_with_verdicts(chat, feedback_ids(labels, min_probability), judge))


def feedback_ids(labels: pl.DataFrame, min_probability: float) -> pl.Series:
    """Follow-ups (``turn_id``) that are re-attempts with feedback with at least this probability."""
    is_feedback = (pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value) & (pl.col("reattempt_probability") >= min_probability)
    return labels.filter(is_feedback)["turn_id"]


def mismatches(chat: pl.DataFrame) -> pl.DataFrame:
    """How often the criticism does not fit the regenerated reply: over all, by judge, and by aspect of the wish.

    The aspects are those that the lexicon reads in the follow-up: one with several counts under each, one with none under `no wish read`.

    Args:
        chat: ``WILDLLAMACHAT`` of whole conversations.

    Returns:
        of (``all``, ``judge <name>`` or ``wish <aspect>``), follow_ups (those that were judged), untold (those of which the judge could not
        tell), mismatched, mismatch_fraction (of those it could tell), ci_low, ci_high (95 %, clustered by user), users; ``all`` first.
    """
    judged = chat.filter(pl.col("applies_judge").is_not_null())
    wishes = [[str(asked.aspect) for asked in requests(text)] or ["no wish read"] for text in judged["follow_up"]]
    by_wish = judged.with_columns(wish=pl.Series(wishes, dtype=pl.List(pl.String()))).explode("wish", empty_as_null=True)
    groups = [("all", judged)]
    groups += [(f"judge {name}", group) for (name,), group in judged.sort("turn_id").group_by("applies_judge", maintain_order=True)]
    groups += [(f"wish {name}", group) for (name,), group in by_wish.sort("wish", "turn_id").group_by("wish", maintain_order=True)]
    return pl.DataFrame([_mismatch(of, rows) for of, rows in groups], schema=MISMATCHES_SCHEMA)


def _mismatch(of: str, judged: pl.DataFrame) -> dict[str, Any]:
    told = judged.drop_nulls("follow_up_applies")
    mismatched = (~told["follow_up_applies"]).cast(pl.Float64)
    found = estimate(mismatched, told["user_id"], is_share=True)
    counts = {"of": of, "follow_ups": len(judged), "untold": len(judged) - len(told), "mismatched": int(mismatched.sum())}
    return {**counts, "mismatch_fraction": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high, "users": found.clusters}


def _regenerated(turns: pl.DataFrame, answers: Mapping[str, Sequence[ChatAnswer]], model: str) -> list[dict[str, Any]]:
    """Rows of ``WILDLLAMACHAT`` without verdicts."""
    rows = []
    following = turns.sort("conversation_id", "turn").with_columns(
        pl.col(name).shift(-1).over("conversation_id").alias(next_one)
        for name, next_one in (("turn_id", "follow_up_id"), ("prompt", "follow_up"))
    )
    for (conversation_id,), group in following.drop_nulls("reply").group_by("conversation_id", maintain_order=True):
        history: Messages = []
        for turn, answer in zip(group.to_dicts(), answers[str(conversation_id)], strict=True):
            rows.append(
                {
                    **dict.fromkeys(WILDLLAMACHAT.columns),
                    **{name: turn[name] for name in _OF_TURN},
                    "history": list(history),
                    "logged_reply": turn["reply"],
                    "reply": answer.text,
                    "error": answer.error,
                    "model": model,
                    "call_id": answer.call_id or None,
                }
            )
            history += [{"role": "user", "content": turn["prompt"]}, {"role": "assistant", "content": answer.text or ""}]
    return rows


def _with_verdicts(chat: pl.DataFrame, feedback: pl.Series, judge: PairJudge) -> pl.DataFrame:
    asked = chat.filter(pl.col("follow_up_id").is_in(feedback.implode()) & pl.col("reply").is_not_null()).sort("turn_id")
    items = [
        FollowUp([*row["history"], {"role": "user", "content": row["prompt"]}], row["reply"], row["logged_reply"], row["follow_up"])
        for row in asked.to_dicts()
    ]
    verdicts = judge.applies(items) if items else []
    given = asked.select("turn_id").with_columns(
        follow_up_applies=pl.Series([verdict.holds for verdict in verdicts], dtype=pl.Boolean()),
        applies_probability=pl.Series([verdict.probability for verdict in verdicts], dtype=pl.Float64()),
        applies_judge=pl.lit(judge.name),
        applies_call_id=pl.Series([next(iter(verdict.call_ids), None) for verdict in verdicts], dtype=pl.String()),
    )
    return chat.drop(set(given.columns) - {"turn_id"}).join(given, on="turn_id", how="left", validate="1:1")
