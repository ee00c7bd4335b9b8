"""Which of all scores a result is told by.

What belongs here: the choice of metric and judge, and the few figures that the asset's page leads with. What does not: the report's words
and pictures (``report/``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.evaluation import Benchmark, Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PRIMARY = (Metric.ALL_PREFERENCES_MET, Metric.WIN_RATE)


def primary_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of rows of ``SCORES`` with a value those of one metric and judge: all preferences met where a judge can tell, else the win rate."""
    for metric in _PRIMARY:
        found = [row for row in rows if row["metric"] == metric and row["benchmark"] == Benchmark.USER_EVAL]
        if found:
            judge = min(row["judge"] for row in found)
            return [row for row in found if row["judge"] == judge]
    return []


def ranked(scores: pl.DataFrame) -> pl.DataFrame:
    """The primary rows of a frame of ``SCORES``, the best recipe first."""
    rows = primary_rows(scores.filter(pl.col("value").is_not_null()).rows(named=True))
    return pl.DataFrame(rows, schema=scores.schema, orient="row").sort("value", "recipe", descending=[True, False])


def in_words(leading: pl.DataFrame) -> pl.DataFrame:
    """A short table of the primary rows: recipe, value and 95 % interval in per cent, and how many items are behind them."""

    def percent(name: str) -> pl.Expr:
        return (100 * pl.col(name)).round().cast(pl.Int64)

    interval = pl.format("{}–{}", percent("ci_low"), percent("ci_high")).fill_null("–")
    return leading.select("recipe", percent("value").alias("%"), interval.alias("95 %"), "n")


def drawing(leading: pl.DataFrame) -> Figure:
    """The primary rows with their intervals, the best at the top."""
    rows = [(row["recipe"], row["value"], row["ci_low"], row["ci_high"]) for row in leading.reverse().iter_rows(named=True)]
    return plots.intervals(rows, ", ".join(sorted(set(leading["metric"]))))[0]
