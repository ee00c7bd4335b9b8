"""Whether every row of the source was accepted or quarantined."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from rlhi_dagster.base.findings import Finding


def rows_are_conserved(counted: Mapping[str, int], accepted: pl.LazyFrame, quarantined: pl.LazyFrame) -> Finding:
    """Of each month, the source's rows are the accepted ones and the quarantined ones: none lost, none made up.

    Args:
        counted: Rows in the source by month.
        accepted: Accepted rows; column ``month``.
        quarantined: Rejected rows; column ``month``.
    """
    kept, rejected = _by_month(accepted), _by_month(quarantined)
    months = sorted({*counted, *kept, *rejected})
    off = [month for month in months if counted.get(month, 0) != kept.get(month, 0) + rejected.get(month, 0)]
    numbers = {"source_rows": sum(counted.values()), "accepted_rows": sum(kept.values()), "quarantined_rows": sum(rejected.values())}
    return Finding(not off, {**numbers, "months_off": off})


def _by_month(frame: pl.LazyFrame) -> dict[str, int]:
    return dict(frame.group_by("month").len().collect(engine="streaming").iter_rows())
