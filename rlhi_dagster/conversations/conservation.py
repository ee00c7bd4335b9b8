"""Whether every row of the source was accepted, quarantined or superseded, and is in reach of a run."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from rlhi_dagster.base.findings import Finding


def rows_are_conserved(counted: Mapping[str, int], accepted: pl.LazyFrame, quarantined: pl.LazyFrame, superseded: pl.LazyFrame) -> Finding:
    """Of each month, the source's rows are the accepted, the quarantined and the superseded ones: none lost, none made up.

    Args:
        counted: Rows in the source by month.
        accepted: Accepted rows; column ``month``.
        quarantined: Rejected rows; column ``month``.
        superseded: Rows that belong to the conversation of another one; column ``month``.
    """
    outcomes = [_by_month(frame) for frame in (accepted, quarantined, superseded)]
    months = sorted({*counted, *(month for outcome in outcomes for month in outcome)})
    off = [month for month in months if counted.get(month, 0) != sum(outcome.get(month, 0) for outcome in outcomes)]
    rows = dict(zip(("accepted_rows", "quarantined_rows", "superseded_rows"), (sum(each.values()) for each in outcomes), strict=True))
    return Finding(not off, {"source_rows": sum(counted.values()), **rows, "months_off": off})


def no_row_is_before_the_first_month(counted: Mapping[str, int], first_month: str) -> Finding:
    """No row of the source lies in a month before the profile's `first_month`, which no run reads.

    Args:
        counted: Rows in the source by month, of all months.
        first_month: Of the profile, `YYYY-MM`.
    """
    before = {month: rows for month, rows in counted.items() if month < first_month}
    return Finding(not before, {"rows_before": sum(before.values()), "first_month": first_month, "months_before": sorted(before)})


def _by_month(frame: pl.LazyFrame) -> dict[str, int]:
    return dict(frame.group_by("month").len().collect(engine="streaming").iter_rows())
