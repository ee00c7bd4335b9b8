"""How often users ask for another attempt with feedback: the paper's 26.51 % of user messages and 83.15 % after turn 5.

What belongs here: exact counts per cell and their intervals. What does not: labelling (``labels``) and which reading comes nearest to the
paper (``readings``).

The paper leaves its denominators open, so all readings are reported, with template traffic and without:

- ``user_messages``: of the user messages (those at that turn; opening requests included where no turn is given).
- ``follow_ups``: of the follow-ups. From turn 2 on every user message is a follow-up, so there both readings agree.
- ``conversations``: of the conversations, those with at least one (at a turn: of those that reach it, those with one by then; ``>5``: of
  those longer than five turns, with one anywhere).
- ``users``: of the users with such a conversation, those with at least one in any of them.

Each for everything together, by turn, by month, by language and by model. Last words, which nobody answered, are messages like any other;
``unanswered`` says how many there are among what is counted.

Intervals: 95 %, with users as clusters, because the messages of one user are not independent, as ``base.intervals`` makes them. That needs
a few sums a cell, so millions of users cost a scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import polars as pl

from rlhi_dagster.base.intervals import POWERS, from_moments
from rlhi_dagster.base.tables import REATTEMPT_RATES
from rlhi_dagster.feedback import Feedback

LONG = 5
TURNS = (*(str(turn) for turn in range(2, LONG + 1)), f">{LONG}")
ALL = "all"
UNKNOWN = "unknown"


class Dimension(StrEnum):
    """What the cells of the table are told apart by."""

    ALL = "all"
    TURN = "turn"
    MONTH = "month"
    LANGUAGE = "language"
    MODEL = "model"


class Denominator(StrEnum):
    """Of what a rate is a share."""

    USER_MESSAGES = "user_messages"
    FOLLOW_UPS = "follow_ups"
    CONVERSATIONS = "conversations"
    USERS = "users"


_COLUMNS = (Dimension.MONTH, Dimension.LANGUAGE, Dimension.MODEL)
_MOMENTS = ("users", "unanswered", *POWERS)
_Moments = Sequence[float]
_NOTHING: _Moments = (0,) * len(_MOMENTS)


def reattempt_rates(conversations: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
    """Count every cell.

    Args:
        conversations: Rows of ``tables.CONVERSATIONS``; their messages are not read.
        labels: Rows of ``tables.FEEDBACK_LABELS``, one for each turn after the first.

    Returns:
        Rows of ``tables.REATTEMPT_RATES``: every dimension x its levels x 4 denominators x 2 template filters. ``users`` counts the users
        with at least one item in the denominator; the interval is null where they are fewer than two.

    Raises:
        ValueError: A follow-up has no label.
    """
    counted = _conversations(conversations.lazy(), labels.lazy())
    kept = {"included": counted, "excluded": counted.filter(~pl.col("is_template"))}
    rows = []
    for templates, frame in kept.items():
        sums = _sums(frame)
        for dimension, level in _levels(counted):  # a level that is all templates is there without them, too, with an n of 0
            for denominator in Denominator:
                cell = _rate(sums.get((dimension, level, denominator), _NOTHING))
                rows.append({"dimension": dimension, "level": level, "denominator": denominator, "templates": templates, **cell})
    return REATTEMPT_RATES.conform(pl.DataFrame(rows, schema=REATTEMPT_RATES.schema))


def _conversations(conversations: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
    """A row per conversation.

    ``user``, dimensions, ``is_template``, ``reached`` (its user messages), ``has_last_word``, ``hits``, ``first`` and hits by turn.
    """
    # Ids as 64-bit numbers: they are grouped and joined several times faster than texts.
    labelled = labels.select(pl.col("conversation_id").hash(seed=0).alias("conversation"), "turn", "label")
    turn = pl.col("turn")
    hits = (
        labelled.filter(pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value)
        .group_by("conversation")
        .agg(
            pl.len().cast(pl.Int64).alias("hits"),
            turn.min().alias("first"),
            *(_is_at(level, turn).cast(pl.Int64).sum().alias(f"hits at {level}") for level in TURNS),
        )
    )
    known = conversations.select(
        pl.col("conversation_id").hash(seed=0).alias("conversation"),
        pl.col("month").cast(pl.Categorical),
        pl.col("user_id").hash(seed=0).alias("user"),
        pl.col("language").fill_null(UNKNOWN).cast(pl.Categorical),
        pl.col("assistant").cast(pl.Categorical).alias("model"),
        pl.col("template_id").is_not_null().alias("is_template"),
        (pl.col("user_turns").cast(pl.Int64) + pl.col("has_last_word")).alias("reached"),
        "has_last_word",
    )
    counts = labelled.group_by("conversation").agg(pl.len().cast(pl.Int64).alias("labelled"))
    found = (
        known.join(counts, on="conversation", how="left")
        .join(hits, on="conversation", how="left")
        .with_columns(pl.col("labelled", "hits", *(f"hits at {level}" for level in TURNS)).fill_null(0))
        .collect(engine="streaming")
    )
    missing = found.filter(pl.col("labelled") != pl.col("reached") - 1)
    if len(missing):
        lost = int((missing["reached"] - 1 - missing["labelled"]).sum())
        raise ValueError(f"{lost} follow-up(s) have no label; earliest month: {min(missing['month'])}")
    return found.drop("conversation", "labelled")


def _is_at(level: str, turn: pl.Expr) -> pl.Expr:
    return turn > LONG if level == TURNS[-1] else turn == int(level)


def _levels(conversations: pl.DataFrame) -> list[tuple[Dimension, str]]:
    """Every level of every dimension."""
    known = {Dimension.ALL: [ALL], Dimension.TURN: list(TURNS)}
    known |= {dimension: sorted(conversations[dimension.value].unique()) for dimension in _COLUMNS}
    return [(dimension, level) for dimension, levels in known.items() for level in levels]


def _sums(conversations: pl.DataFrame) -> dict[tuple[Dimension, str, Denominator], _Moments]:
    """The moments of every cell that has a conversation."""
    frame = conversations.lazy()
    whole = {(Dimension.ALL, ALL): _counts(), **{(Dimension.TURN, level): _counts(level) for level in TURNS}}
    wide = {f"{dimension} {level} {name}": count for (dimension, level), counts in whole.items() for name, count in counts.items()}
    by_user = frame.group_by("user").agg(count.sum().alias(name) for name, count in wide.items())
    queries = [by_user.select(moment for dimension, level in whole for moment in _moments(f"{dimension} {level} "))]
    for dimension in _COLUMNS:
        level = pl.col(dimension.value).alias("level")
        by_user = frame.group_by(level, "user").agg(count.sum().alias(name) for name, count in _counts().items())
        queries.append(by_user.group_by("level").agg(_moments("")))
    whole_sums, *split_sums = pl.collect_all(queries)
    found = {
        (dimension, level, denominator): _pick(whole_sums.row(0, named=True), f"{dimension} {level} ", denominator)
        for dimension, level in whole
        for denominator in Denominator
    }
    for dimension, sums in zip(_COLUMNS, split_sums, strict=True):
        for row in sums.iter_rows(named=True):
            found |= {(dimension, row["level"], denominator): _pick(row, "", denominator) for denominator in Denominator}
    return found


def _counts(level: str | None = None) -> dict[str, pl.Expr]:
    """What a conversation adds to its user; at a turn if given.

    Messages, conversations, hits among the messages, whether it has one, and whether its last word is among them.
    """
    reached, first, last_word = pl.col("reached"), pl.col("first"), pl.col("has_last_word")
    hits = pl.col("hits" if level is None else f"hits at {level}")
    if level is None:
        messages, in_scope = reached, reached >= 1
        with_hit, unanswered = first.is_not_null(), last_word
    elif level == TURNS[-1]:
        messages, in_scope = (reached - LONG).clip(0), reached > LONG
        with_hit, unanswered = in_scope & first.is_not_null(), in_scope & last_word
    else:
        messages = in_scope = reached >= int(level)
        with_hit, unanswered = in_scope & (first <= int(level)).fill_null(value=False), (reached == int(level)) & last_word
    return {"messages": messages, "conversations": in_scope, "hits": hits, "with_hit": with_hit, "unanswered": unanswered}


def _moments(prefix: str) -> list[pl.Expr]:
    """Of each denominator, users with an item, and over users the sum of u and `intervals.Moments`: k of n are hits, u unanswered."""
    messages, conversations, hits, with_hit, unanswered = (
        pl.col(f"{prefix}{name}").cast(pl.Int64) for name in ("messages", "conversations", "hits", "with_hit", "unanswered")
    )
    # At a turn all user messages are follow-ups; over whole conversations all but the first of each are.
    follow_ups = messages - conversations if prefix in ("", f"{Dimension.ALL} {ALL} ") else messages
    pairs = {
        Denominator.USER_MESSAGES: (messages, hits, unanswered),
        Denominator.FOLLOW_UPS: (follow_ups, hits, unanswered),
        Denominator.CONVERSATIONS: (conversations, with_hit, unanswered),
        Denominator.USERS: tuple((count > 0).cast(pl.Int64) for count in (conversations, with_hit, unanswered)),
    }
    return [
        part.sum().alias(f"{prefix}{denominator} {name}")
        for denominator, (n, k, u) in pairs.items()
        for name, part in zip(_MOMENTS, (n > 0, u, *(n.cast(pl.Float64) ** i * k.cast(pl.Float64) ** j for i, j in POWERS)), strict=True)
    ]


def _pick(row: Mapping[str, float], prefix: str, denominator: Denominator) -> _Moments:
    return [row[f"{prefix}{denominator} {name}"] for name in _MOMENTS]


def _rate(moments: _Moments) -> dict[str, float | int | None]:
    """A cell from its moments; of a single user no interval."""
    users, unanswered, *powers = moments
    found = from_moments(int(users), dict(zip(POWERS, powers, strict=True)), is_share=True)
    low, high = (found.ci_low, found.ci_high) if users > 1 else (None, None)
    return {"value": found.value, "n": found.n, "unanswered": int(unanswered), "users": int(users), "ci_low": low, "ci_high": high}
