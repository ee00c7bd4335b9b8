"""The users behind the conversations, and which of them are held out.

What belongs here: counting per user and the split. What does not: how a user is recognised (``ingest``), and what they prefer
(``rlhi_dagster.personas``).
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import polars as pl

from rlhi_dagster.tables import USERS


class Split(StrEnum):
    """What a user's conversations may be used for."""

    TRAIN = "train"
    HELD_OUT = "held_out"


def split_of(user_id: str, held_out_fraction: float) -> Split:
    """The split of a user: a function of the id alone, so it neither changes as data grows nor depends on other users.

    A larger fraction only adds held-out users.

    Raises:
        ValueError: ``held_out_fraction`` is not between 0 and 1.
    """
    if not 0 <= held_out_fraction <= 1:
        raise ValueError(f"held_out_fraction is {held_out_fraction}, not between 0 and 1")
    digest = hashlib.blake2b(user_id.encode(), digest_size=8, person=b"split").digest()
    return Split.HELD_OUT if int.from_bytes(digest) < held_out_fraction * 2**64 else Split.TRAIN


def users(conversations: pl.DataFrame | pl.LazyFrame, held_out_fraction: float) -> pl.DataFrame:
    """Count conversations and messages per user (`tables.USERS`).

    Args:
        conversations: Rows of `tables.CONVERSATIONS` or of `tables.TURNS`; of the latter, the time of the opening request stands for
            the start of the conversation.
        held_out_fraction: Share of users held out, 0 to 1.
    """
    frame = conversations.lazy()
    if "turn_id" in frame.collect_schema():
        frame = frame.group_by("conversation_id", "user_id").agg(pl.col("asked_at").min().alias("started_at"), pl.len().alias("user_turns"))
    counted = (
        frame.group_by("user_id")
        .agg(
            pl.len().alias("conversations"),
            pl.col("user_turns").cast(pl.Int64).sum().alias("user_messages"),
            pl.col("started_at").min().alias("first_seen"),
            pl.col("started_at").max().alias("last_seen"),
        )
        .collect(engine="streaming")
    )
    splits = pl.Series("split", [split_of(user_id, held_out_fraction) for user_id in counted["user_id"]], dtype=pl.String)
    return USERS.conform(counted.with_columns(splits))
