"""Conversations seen as turns: a user message and the reply to it.

What belongs here: numbering and timing turns. What does not: repairing message lists (``ingest``), which is why this module can rely on
strict alternation.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import TURNS


def turns(conversations: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Split accepted conversations into turns (`tables.TURNS`).

    ``asked_at`` is the time of the user message; if only the reply has one (WildChat), that; if neither has, the start of the
    conversation + (turn - 1) s. Within a conversation it is made strictly increasing: at least 1 s after the turn before. The reply's
    time is an upper bound of the moment the user asked, so nothing learned from a message becomes usable before it was written.

    Raises:
        ValueError: A conversation does not alternate user and assistant; the message names it.
    """
    kept = conversations.lazy().select("conversation_id", "user_id", "month", "started_at", "template_id", "messages").collect()
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
    expected = pl.when(pl.col("position") % 2 == 0).then(pl.lit("user")).otherwise(pl.lit("assistant"))
    closes = pl.col("conversation_id").ne(pl.col("conversation_id").shift(-1)).fill_null(True)
    bad = flat.filter(pl.col("role").ne_missing(expected) | (closes & (pl.col("position") % 2 == 0)))
    if len(bad):
        raise ValueError(f"conversation {bad['conversation_id'][0]} does not alternate user and assistant messages")
    replies = flat.gather_every(2, offset=1).select(
        pl.col("message_id").alias("reply_id"), pl.col("content").alias("reply"), pl.col("sent_at").alias("replied_at")
    )
    paired = pl.concat([flat.gather_every(2), replies], how="horizontal").with_columns((pl.col("position") // 2 + 1).alias("turn"))
    second = pl.duration(seconds=pl.col("turn") - 1)
    known = pl.coalesce("sent_at", "replied_at", pl.col("started_at") + second)
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
