"""How often users ask for another attempt with feedback: the paper's 26.51 % of user messages and 83.15 % after turn 5.

What belongs here: exact counts per cell and their intervals. What does not: labelling (``labels``).

The paper leaves its denominators open, so all readings are reported, with template traffic and without:

- ``user_messages``: of the user messages at that turn (``all``: opening requests included).
- ``follow_ups``: of the follow-ups at that turn. From turn 2 on every user message is a follow-up, so there both readings agree.
- ``conversations``: of the conversations that reach that turn, those with a re-attempt with feedback by then (``>5``: of those
  longer than five turns, with one anywhere; ``all``: of all conversations, with one anywhere).

Intervals: 95 % percentile bootstrap over users, because the messages of one user are not independent.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from rlhi_dagster.feedback import Feedback
from rlhi_dagster.tables import REATTEMPT_RATES

TURNS = ("all", "2", "3", "4", "5", ">5")
LONG = 5
RESAMPLES = 1_000


def reattempt_rates(turns: pl.LazyFrame, labels: pl.LazyFrame, seed: int = 0, resamples: int = RESAMPLES) -> pl.DataFrame:
    """Count every cell.

    Args:
        turns: Rows of ``tables.TURNS``.
        labels: Rows of ``tables.FEEDBACK_LABELS``, one for each turn after the first.
        seed: Seed of the bootstrap.
        resamples: Bootstrap resamples of the users.

    Returns:
        Rows of ``tables.REATTEMPT_RATES``: 6 turns x 3 denominators x 2 template filters. ``users`` counts the users with at least
        one item in the denominator; the interval is null where they are fewer than two.

    Raises:
        ValueError: A follow-up has no label.
    """
    messages = _messages(turns.lazy(), labels.lazy())
    kept = {"included": messages, "excluded": messages.filter(~pl.col("is_template"))}
    return REATTEMPT_RATES.conform(
        pl.concat(_cells(_user_sums(frame), seed, resamples).with_columns(templates=pl.lit(name)) for name, frame in kept.items())
    )


def _messages(turns: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
    is_reattempt = pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value
    messages = (
        turns.select("turn_id", "user_id", "conversation_id", "turn", "month", is_template=pl.col("template_id").is_not_null())
        .join(labels.select("turn_id", is_reattempt=is_reattempt), on="turn_id", how="left")
        .collect()
    )
    missing = messages.filter((pl.col("turn") > 1) & pl.col("is_reattempt").is_null())
    if len(missing):
        raise ValueError(f"{len(missing)} follow-up(s) have no label; earliest month: {missing['month'].sort()[0]}")
    return messages.with_columns(is_reattempt=(pl.col("turn") > 1) & pl.col("is_reattempt").fill_null(value=False))


def _user_sums(messages: pl.DataFrame) -> pl.DataFrame:
    """Per user, for each cell, the size of the denominator (``n/<denominator>/<turn>``) and of the numerator (``k/...``)."""
    turn, hit = pl.col("turn"), pl.col("is_reattempt")
    at = {"all": pl.lit(value=True), **{str(t): turn == t for t in range(2, LONG + 1)}, ">5": turn > LONG}
    by_message = messages.group_by("user_id").agg(
        *[(at[name]).sum().alias(f"n/user_messages/{name}") for name in TURNS if name != "all"],
        pl.len().alias("n/user_messages/all"),
        *[(at[name] & hit).sum().alias(f"k/user_messages/{name}") for name in TURNS],
        *[(at[name] & (turn > 1)).sum().alias(f"n/follow_ups/{name}") for name in TURNS],
        *[(at[name] & hit).sum().alias(f"k/follow_ups/{name}") for name in TURNS],
    )
    reached, first = pl.col("reached"), pl.col("first")
    in_scope = {"all": pl.lit(value=True), **{str(t): reached >= t for t in range(2, LONG + 1)}, ">5": reached > LONG}
    by_then = {str(t): (first <= t).fill_null(value=False) for t in range(2, LONG + 1)}
    so_far = {"all": first.is_not_null(), **by_then, ">5": first.is_not_null()}
    by_conversation = (
        messages.group_by("user_id", "conversation_id")
        .agg(reached=turn.max(), first=turn.filter(hit).min())
        .group_by("user_id")
        .agg(
            pl.len().alias("n/conversations/all"),
            *[in_scope[name].sum().alias(f"n/conversations/{name}") for name in TURNS if name != "all"],
            *[(in_scope[name] & so_far[name]).sum().alias(f"k/conversations/{name}") for name in TURNS],
        )
    )
    return by_message.join(by_conversation, on="user_id").sort("user_id")


def _cells(sums: pl.DataFrame, seed: int, resamples: int) -> pl.DataFrame:
    names = [(turn, denominator) for denominator in ("user_messages", "follow_ups", "conversations") for turn in TURNS]
    size = sums.select(f"n/{denominator}/{turn}" for turn, denominator in names).to_numpy().astype(np.float64)
    hits = sums.select(f"k/{denominator}/{turn}" for turn, denominator in names).to_numpy().astype(np.float64)
    n, users = size.sum(axis=0), (size > 0).sum(axis=0)
    low, high = _interval(hits, size, seed, resamples)
    rows = [
        {
            "turn": turn,
            "denominator": denominator,
            "value": hits[:, i].sum() / n[i] if n[i] else None,
            "n": int(n[i]),
            "users": int(users[i]),
            "ci_low": float(low[i]) if users[i] >= 2 else None,
            "ci_high": float(high[i]) if users[i] >= 2 else None,
        }
        for i, (turn, denominator) in enumerate(names)
    ]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64})


def _interval(hits: np.ndarray, size: np.ndarray, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """2.5 % and 97.5 % points of the ratio of column sums over resampled rows; a resample with an empty cell does not count there."""
    generator, users = np.random.default_rng(seed), len(size)
    both = np.concatenate([hits, size], axis=1)
    totals = np.zeros((resamples, both.shape[1]))
    for i in range(resamples if users else 0):
        totals[i] = np.bincount(generator.integers(0, users, users), minlength=users) @ both
    top, bottom = np.split(totals, 2, axis=1)
    ratios = np.ma.masked_invalid(np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0))
    points = [np.percentile(column.compressed(), (2.5, 97.5)) if column.count() else (np.nan, np.nan) for column in ratios.T]
    low, high = np.array(points).T
    return low, high
