"""What is counted of complaints: wishes with users and what was settled later, by month and by topic.

What belongs here: counts, intervals and the two pictures that page and UI share. What does not: grouping (``grouping``), and where the
counts are shown.

Nothing is counted out for fewer than ``min_users`` users, whole groups and single cells alike: a table of forgotten users may hold smaller
groups than were made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.feedback.wishes.grouping import OTHER_TOPICS, OTHER_WISHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 4
"""Wishes in the picture of months."""
_MOST_MONTHS = 12
_LAST = (OTHER_WISHES, OTHER_TOPICS)


def by_group(complaints: pl.DataFrame, column: str, min_users: int) -> pl.DataFrame:
    """Groups with their figures, the largest first and what has no group last.

    Args:
        complaints: Rows of ``tables.UNMET_WISHES``.
        column: ``wish`` or ``topic``, or another one that tells groups apart.
        min_users: Groups of fewer users are left out.

    Returns:
        ``column``, ``complaints``, ``users``; of those that are known to be settled or not the share that is: ``value``, its 95 % interval
        over users, ``ci_low`` and ``ci_high``, and ``n``, how many those are.
    """
    rows = []
    for (name,), group in complaints.sort("turn_id").group_by(column, maintain_order=True):
        users, known = group["user_id"].n_unique(), group.drop_nulls("is_resolved")
        if users < min_users:
            continue
        share = estimate(known["is_resolved"].cast(pl.Float64), known["user_id"], is_share=True)
        rows.append((name, len(group), users, share.value, share.ci_low, share.ci_high, share.n))
    counts = dict.fromkeys(("complaints", "users"), pl.Int64()) | dict.fromkeys(("value", "ci_low", "ci_high"), pl.Float64())
    found = pl.DataFrame(rows, schema={column: pl.String(), **counts, "n": pl.Int64()}, orient="row")
    return found.sort(pl.col(column).is_in(_LAST), "complaints", column, descending=[False, True, False])


def by_month(complaints: pl.DataFrame, min_users: int) -> pl.DataFrame:
    """Share of the commonest wishes among the complaints of each month, at most of the latest twelve.

    Returns:
        ``month``, ``wish``, ``value``, its 95 % interval over users, ``ci_low`` and ``ci_high``, and ``n``, complaints of the month; cells
        of fewer users are left out.
    """
    wishes = by_group(complaints, "wish", min_users).filter(pl.col("wish") != OTHER_WISHES)["wish"].head(_DRAWN).to_list()
    rows = []
    for month in complaints["month"].unique().sort().tail(_MOST_MONTHS):
        of_month = complaints.filter(month=month).sort("turn_id")
        for wish in wishes:
            is_wish = of_month["wish"] == wish
            if of_month.filter(is_wish)["user_id"].n_unique() >= min_users:
                share = estimate(is_wish.cast(pl.Float64), of_month["user_id"], is_share=True)
                rows.append((month, wish, share.value, share.ci_low, share.ci_high, share.n))
    shares = dict.fromkeys(("value", "ci_low", "ci_high"), pl.Float64())
    return pl.DataFrame(rows, schema={"month": pl.String(), "wish": pl.String(), **shares, "n": pl.Int64()}, orient="row")


def by_topic(complaints: pl.DataFrame, min_users: int) -> pl.DataFrame:
    """Complaints by wish and topic, cells of fewer users left out: ``wish``, ``topic``, ``complaints``."""
    cells = complaints.group_by("wish", "topic").agg(
        pl.len().cast(pl.Int64).alias("complaints"), pl.col("user_id").n_unique().alias("users")
    )
    return cells.filter(pl.col("users") >= min_users).drop("users").sort("wish", "topic")


def wishes_plot(wishes: pl.DataFrame) -> Figure:
    """Bars of ``by_group``."""
    rows = wishes.select("wish", "complaints", "users").iter_rows()
    return plots.bars([(wish, complaints, f"{complaints:,} by {users:,} users") for wish, complaints, users in rows])


def marks(months: pl.DataFrame) -> dict[str, plots.Mark]:
    """The look of each wish in the picture of months."""
    wishes = months["wish"].unique(maintain_order=True)
    return {wish: plots.Mark(tone) for wish, tone in zip(wishes, plots.SERIES[1:], strict=False)}


def months_plot(months: pl.DataFrame) -> Figure:
    """Shares of ``by_month`` over months."""
    names = months["month"].unique().sort().to_list()
    place = {month: number for number, month in enumerate(names)}
    series = [
        plots.Series(mark, [(place[row["month"]], row["value"], row["ci_low"], row["ci_high"]) for row in of_wish.iter_rows(named=True)])
        for wish, mark in marks(months).items()
        for of_wish in [months.filter(wish=wish)]
    ]
    highest = max((row["ci_high"] or row["value"] for row in months.iter_rows(named=True)), default=1.0)
    return plots.category_points(names, series, axis="month of the conversation's start", limits=(0.0, min(1.0, 1.05 * highest)))
