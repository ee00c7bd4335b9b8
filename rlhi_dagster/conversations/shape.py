"""What a body of logs looks like: how long conversations are, how active users are, what was rejected when.

What belongs here: counts by bins, for tables in the UI and plots in the report. What does not: drawing them.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

LENGTHS = (1, 2, 3, 4, 5, 10, 20, 50)
ACTIVITY = (1, 2, 5, 10, 20, 50, 100)
"""Upper ends of the bins; what is above the last has a bin of its own."""


def conversation_lengths(conversations: pl.LazyFrame) -> dict[str, int]:
    """Conversations by their number of user turns (`tables.CONVERSATIONS`)."""
    return _binned(conversations, "user_turns", LENGTHS)


def users_by_activity(users: pl.LazyFrame) -> dict[str, int]:
    """Users by their number of conversations (`tables.USERS`)."""
    return _binned(users, "conversations", ACTIVITY)


def quarantine_by_month(quarantine: pl.LazyFrame) -> pl.DataFrame:
    """Rejected rows: a row per reason, the most frequent first, a column per month, and ``all`` (`tables.QUARANTINE`)."""
    counted = quarantine.group_by("reason", "month").len("rows").sort("month").collect()
    if counted.is_empty():
        return pl.DataFrame(schema={"reason": pl.String, "all": pl.Int64})
    table = counted.pivot("month", index="reason", values="rows").with_columns(pl.exclude("reason").fill_null(0).cast(pl.Int64))
    months = sorted(set(table.columns) - {"reason"})
    return table.select("reason", *months, pl.sum_horizontal(months).alias("all")).sort("all", "reason", descending=[True, False])


def _binned(frame: pl.LazyFrame, column: str, ends: Sequence[int]) -> dict[str, int]:
    """Rows by bin, in order; bins in the middle that nothing is in are there, too."""
    starts = [1, *(end + 1 for end in ends)]
    names = [str(start) if start == end else f"{start} to {end}" for start, end in zip(starts, ends, strict=False)] + [f"over {ends[-1]}"]
    place = pl.sum_horizontal(*((pl.col(column) > end).cast(pl.Int64) for end in ends))
    counts = dict(frame.group_by(place.alias("bin")).len().collect(engine="streaming").iter_rows())
    last = max(counts, default=-1)
    return {name: counts.get(position, 0) for position, name in enumerate(names) if position <= last}


def entries(notes: pl.LazyFrame) -> dict[str, int]:
    """How often each entry of a column of lists occurs, the most frequent first; the frame has that column alone."""
    (name,) = notes.collect_schema().names()
    counts = notes.explode(name, empty_as_null=True).drop_nulls().group_by(name).len().sort("len", name, descending=[True, False])
    return dict(counts.collect().iter_rows())
