"""Conversations seen as turns: a user message and the reply to it, which a last word has not got.

What belongs here: numbering and timing turns, and what was said before a reply. What does not: repairing message lists (``ingest``), which
is why this module can rely on strict alternation.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import TURNS


def turns(conversations: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Split accepted conversations into turns (`tables.TURNS`).

    ``asked_at`` is the time of the user message; if only the reply has one (WildChat), that; if neither has, the start of the
    conversation + (turn - 1) s. Within a conversation it is made strictly increasing: at least 1 s after the turn before. The reply's
    time is an upper bound of the moment the user asked, so nothing learned from a message becomes usable before it was written.
    Of a last word without a time only a lower bound is known, 1 s after all that is known of the conversation: see `timed`.

    Raises:
        ValueError: A conversation does not alternate user and assistant, or has no reply; the message names it.
    """
    columns = ("conversation_id", "user_id", "month", "started_at", "ended_at", "template_id", "messages")
    kept = conversations.lazy().select(columns).collect()
    message = pl.col("messages").struct
    flat = (
        kept.filter(pl.col("messages").list.len() > 0)
        .explode("messages")
        .select(
            pl.exclude("messages"),
            message.field("message_id"),
            message.field("role"),
            message.field("content"),
            message.field("sent_at"),
            pl.int_range(pl.len()).over("conversation_id").alias("position"),
        )
    )
    is_request = pl.col("position") % 2 == 0
    expected = pl.when(is_request).then(pl.lit("user")).otherwise(pl.lit("assistant"))
    closes = pl.col("conversation_id").ne(pl.col("conversation_id").shift(-1)).fill_null(True)
    bad = flat.filter(pl.col("role").ne_missing(expected) | (closes & (pl.col("position") == 0)))
    if len(bad):
        raise ValueError(f"conversation {bad['conversation_id'][0]} does not alternate user and assistant messages")
    names = {"message_id": "reply_id", "content": "reply", "sent_at": "replied_at"}
    replies = (pl.when(~closes).then(pl.col(name).shift(-1)).alias(reply) for name, reply in names.items())
    paired = flat.with_columns(*replies, turn=pl.col("position") // 2 + 1, is_last_word=closes & is_request).filter(is_request)
    second = pl.duration(seconds=pl.col("turn") - 1)
    at_least = pl.when("is_last_word").then(pl.col("ended_at") + pl.duration(seconds=1)).otherwise(pl.col("started_at") + second)
    known = pl.coalesce("sent_at", "replied_at", at_least)
    # x_i = max(known_i, x_(i-1) + 1 s) has the closed form below: subtract i seconds, take the running maximum, add them back.
    asked_at = (known - second).cum_max().over("conversation_id") + second
    return TURNS.conform(
        paired.select(
            pl.col("message_id").alias("turn_id"),
            "conversation_id",
            "user_id",
            "month",
            "turn",
            asked_at.alias("asked_at"),
            pl.col("content").alias("prompt"),
            "reply_id",
            "reply",
            "template_id",
        )
    )


def said_before(turns: pl.LazyFrame, wanted: pl.LazyFrame) -> pl.LazyFrame:
    """What was said up to the reply of some turns, as it was logged.

    Args:
        turns: Rows of `tables.TURNS`, of whole conversations.
        wanted: ``turn_id``, ``conversation_id`` and ``turn`` of the turns.

    Returns:
        ``turn_id``, and ``messages`` from the first one to the turn's user message.
    """
    user, reply = (pl.struct(role=pl.lit(role), content=column) for role, column in (("user", "prompt"), ("assistant", "reply")))
    return (
        turns.join(wanted.select("conversation_id", last="turn_id", last_turn="turn"), on="conversation_id")
        .filter(pl.col("turn") <= pl.col("last_turn"))
        .sort("last", "turn")
        .group_by("last", maintain_order=True)
        .agg(pl.concat_list(user, reply).explode().alias("messages"))
        .select(turn_id="last", messages=pl.col("messages").list.head(pl.col("messages").list.len() - 1))
    )


def timed(turns: pl.LazyFrame, conversations: pl.LazyFrame) -> pl.LazyFrame:
    """Turns of which it is known that the user had asked by ``asked_at``: all but last words without a time of their own.

    Args:
        turns: Rows of `tables.TURNS`.
        conversations: Rows of `tables.CONVERSATIONS`, of which those with a last word are read.
    """
    last = conversations.filter("has_last_word").select(pl.col("messages").list.last().struct.unnest())
    untimed = last.filter(pl.col("sent_at").is_null()).select(pl.col("message_id").alias("turn_id"))
    return turns.join(untimed, on="turn_id", how="anti")
