"""Which users are trained on, settings are tuned on, and numbers are told of; and which of them must be on the same side.

What belongs here: users who may be one person, their split, and the check of it. What does not: counting per user (``users``), and which
pairs of training users validate (``rlhi_dagster.preferences.merge``).

Of three parts: recipes train on `train` users, settings are chosen by what they do for `tuning` users, and what is told is of `test` users,
who are looked at once, with the settings that were chosen. Snapshots are chosen among on pairs of training users (``validation_fraction``).

A person has a fingerprint for each device and browser. So users that share a network address, directly or through others, are a group and
have one split, decided by the earliest user of the group. Our choices:

- The earliest user, not the smallest id: conversations that start later than all others change no group's split, but where a group turns
  out to belong to an older one, which it then follows. A user alone has the split of their own id. Older conversations that are delivered
  later can change sides otherwise, and so can a group whose earliest user is forgotten. Without times the smallest id is the earliest.
- A group has at most `MOST_TOGETHER` users, in the order in which they came, so that neither an office or a relay nor a chain of users who
  roam through many addresses puts thousands on one side. Whoever would make a group larger stays apart from it. So one person can be on
  both sides at an address of many users, and of a source all of whose users share one address the first are on one side together. Nobody
  changes sides when an address or a group grows beyond the bound.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import polars as pl
from pydantic import BaseModel, Field, model_validator

from rlhi_dagster.base.findings import Finding

MOST_TOGETHER = 30
"""One person with a phone and a computer whose browsers renew themselves every four weeks has 26 fingerprints a year at one address."""


class Split(StrEnum):
    """What a user's conversations may be used for."""

    TRAIN = "train"
    TUNING = "tuning"
    TEST = "test"


class SplitSettings(BaseModel, frozen=True, extra="forbid"):
    """Which share of users is kept from training."""

    tuning: float = Field(ge=0, lt=1, description="Share of users on whom settings are tried: `evaluation.users: tuning`.")
    test: float = Field(gt=0, lt=1, description="Share of users of whom numbers are told: `evaluation.users: test`.")

    @model_validator(mode="after")
    def _some_train(self) -> SplitSettings:
        if self.tuning + self.test >= 1:
            raise ValueError(f"tuning {self.tuning:g} and test {self.test:g} leave no user to train on: together they must be below 1")
        return self


def split_of(split_group: str, shares: SplitSettings) -> Split:
    """The split of a group of users: a function of its earliest user alone, so it does not depend on other groups.

    Who trains depends on the two shares together only; a larger share of `test` only adds test users.
    """
    digest = hashlib.blake2b(split_group.encode(), digest_size=8, person=b"split").digest()
    place = int.from_bytes(digest) / 2**64
    return Split.TEST if place < shares.test else Split.TUNING if place < shares.tuning + shares.test else Split.TRAIN


def split_groups(conversations: pl.LazyFrame) -> pl.DataFrame:
    """The group of every user, named by its earliest user.

    Args:
        conversations: Rows of `tables.CONVERSATIONS`; ``user_id``, ``address_id`` and ``started_at`` are read.

    Returns:
        ``user_id`` and ``split_group``, one row a user.
    """
    from scipy.cluster.hierarchy import DisjointSet

    first = conversations.group_by("user_id", "address_id").agg(pl.col("started_at").min())
    visits = first.sort("started_at", "user_id", "address_id").collect(engine="streaming")
    users = visits["user_id"].unique(maintain_order=True)
    groups = DisjointSet(users)
    met = visits.drop_nulls("address_id").select("user_id", host=pl.col("user_id").first().over("address_id"))
    for user, host in met.filter(pl.col("user_id") != pl.col("host")).iter_rows():
        if not groups.connected(user, host) and groups.subset_size(user) + groups.subset_size(host) <= MOST_TOGETHER:
            groups.merge(user, host)
    earliest: dict[str, str] = {}
    return pl.DataFrame({"user_id": users, "split_group": [earliest.setdefault(groups[user], user) for user in users]})


def no_address_is_on_both_sides(users: pl.LazyFrame, conversations: pl.LazyFrame) -> Finding:
    """No network address has users of several splits, save one whose groups have more users than are kept together; all users are known.

    Args:
        users: Columns ``user_id``, ``split_group`` and ``split``.
        conversations: Columns ``user_id`` and ``address_id``.
    """
    known = users.select("user_id", "split", "split_group", size=pl.len().over("split_group"))
    counted = (
        conversations.select("user_id", "address_id")
        .drop_nulls()
        .unique()
        .join(known, on="user_id", how="left")
        .group_by("address_id")
        .agg(
            is_shared=pl.len() > 1,
            is_crowded=pl.col("size").filter(pl.col("split_group").is_first_distinct()).sum() > MOST_TOGETHER,
            is_on_both_sides=pl.col("split").drop_nulls().n_unique() > 1,
            unknown=pl.col("split").null_count(),
        )
    )
    is_crowded, is_on_both_sides = pl.col("is_crowded"), pl.col("is_on_both_sides")
    numbers = counted.select(
        shared_addresses=pl.col("is_shared").sum(),
        addresses_on_both_sides=(is_on_both_sides & ~is_crowded).sum(),
        crowded_addresses=is_crowded.sum(),
        crowded_addresses_on_both_sides=(is_on_both_sides & is_crowded).sum(),
        unknown_users_at_addresses=pl.col("unknown").sum(),
    ).collect(engine="streaming")
    counts = {name: int(value) for name, value in numbers.row(0, named=True).items()}
    return Finding(counts["addresses_on_both_sides"] + counts["unknown_users_at_addresses"] == 0, counts)
