"""The users behind the conversations.

What belongs here: counting per user, and signs that a fingerprint is more than one person. What does not: how a user is recognised
(``ingest``), who trains and who is evaluated (``splits``), and what they prefer (``rlhi_dagster.personas``).
"""

from __future__ import annotations

from enum import StrEnum

import polars as pl

from rlhi_dagster.base.tables import USERS
from rlhi_dagster.conversations.splits import SplitSettings, split_groups, split_of

MANY_LANGUAGES = 3
MANY_DEVICES = 5
MANY_SIMULTANEOUS = 3
"""From where on a count is a sign; our choices: two languages or two open conversations are common for one person."""


class MergeSign(StrEnum):
    """Why several people may share a fingerprint; a sign is no proof."""

    LANGUAGES = "languages"
    """Conversations in at least `MANY_LANGUAGES` languages."""
    DEVICES = "devices"
    """At least `MANY_DEVICES` fingerprints at one of its addresses: an office, a school, a relay."""
    SIMULTANEOUS = "simultaneous"
    """At least `MANY_SIMULTANEOUS` conversations open at one moment."""


def users(conversations: pl.DataFrame | pl.LazyFrame, shares: SplitSettings) -> pl.DataFrame:
    """Count conversations and messages per user, and look for signs of several people (`tables.USERS`).

    Args:
        conversations: Rows of `tables.CONVERSATIONS`; their messages are not read.
        shares: Of groups of users (`splits.split_groups`).
    """
    columns = ("user_id", "address_id", "started_at", "ended_at", "is_start_assumed", "language", "user_turns")
    frame = conversations.lazy().select(columns)
    counted = frame.group_by("user_id").agg(
        pl.len().alias("conversations"),
        pl.col("user_turns").cast(pl.Int64).sum().alias("user_messages"),
        pl.col("started_at").min().alias("first_seen"),
        pl.col("started_at").max().alias("last_seen"),
        pl.col("language").drop_nulls().n_unique().alias("languages"),
    )
    found = (
        counted.join(_devices(frame), on="user_id", how="left")
        .join(_simultaneous(frame), on="user_id", how="left")
        .with_columns(pl.col("devices", "simultaneous").fill_null(1))
        .with_columns(_merge_risk())
        .collect(engine="streaming")
        .join(split_groups(frame), on="user_id", how="left")
    )
    splits = pl.Series("split", [split_of(group, shares) for group in found["split_group"]], dtype=pl.String)
    return USERS.conform(found.with_columns(splits))


def _devices(conversations: pl.LazyFrame) -> pl.LazyFrame:
    """Per user with an address: fingerprints at the most shared of its addresses."""
    pairs = conversations.select("user_id", "address_id").drop_nulls().unique()
    shared = pairs.group_by("address_id").agg(pl.len().alias("devices"))
    return pairs.join(shared, on="address_id").group_by("user_id").agg(pl.col("devices").max())


def _simultaneous(conversations: pl.LazyFrame) -> pl.LazyFrame:
    """Per user with known times: most conversations open at one moment; one that ends when another starts is closed before."""
    timed = conversations.filter(~pl.col("is_start_assumed"))
    opened = timed.select("user_id", pl.col("started_at").alias("at"), pl.lit(1, pl.Int64).alias("change"))
    closed = timed.select("user_id", pl.col("ended_at").alias("at"), pl.lit(-1, pl.Int64).alias("change"))
    # Closed before opened: where one ends and another starts, and for a conversation of a single moment, which thus counts alone.
    return (
        pl.concat([closed, opened])
        .sort("user_id", "at", "change")
        .group_by("user_id")
        .agg(pl.col("change").cum_sum().max().clip(1).alias("simultaneous"))
    )


def _merge_risk() -> pl.Expr:
    signs = {
        MergeSign.LANGUAGES: pl.col("languages") >= MANY_LANGUAGES,
        MergeSign.DEVICES: pl.col("devices") >= MANY_DEVICES,
        MergeSign.SIMULTANEOUS: pl.col("simultaneous") >= MANY_SIMULTANEOUS,
    }
    given = pl.concat_list(pl.when(applies).then(pl.lit(sign.value)) for sign, applies in signs.items())
    return given.list.drop_nulls().alias("merge_risk")
