"""Counts by bins and by month."""

from __future__ import annotations

import polars as pl

from rlhi_dagster.conversations.shape import conversation_lengths, entries, quarantine_by_month, users_by_activity


def test_lengths_fall_into_bins_without_gaps() -> None:
    found = conversation_lengths(pl.LazyFrame({"user_turns": [1, 1, 2, 6, 10, 11, 51]}))
    assert found == {
        "1": 2, "2": 1, "3": 0, "4": 0, "5": 0, "6 to 10": 2, "11 to 20": 1, "21 to 50": 0, "over 50": 1,
    }  # fmt: skip


def test_activity_ends_with_the_most_active() -> None:
    assert users_by_activity(pl.LazyFrame({"conversations": [1, 1, 3]})) == {"1": 2, "2": 0, "3 to 5": 1}
    assert users_by_activity(pl.LazyFrame({"conversations": []}, schema={"conversations": pl.Int64})) == {}


def test_rejected_rows_are_counted_by_reason_and_month() -> None:
    rows = pl.LazyFrame({"reason": ["toxic", "language", "toxic", "toxic"], "month": ["2023-05", "2023-04", "2023-04", "2023-05"]})
    found = quarantine_by_month(rows)
    assert found.columns == ["reason", "2023-04", "2023-05", "all"]
    assert found.rows() == [("toxic", 1, 2, 3), ("language", 1, 0, 1)]
    assert quarantine_by_month(rows.head(0)).is_empty()


def test_entries_are_counted_over_all_lists_the_most_frequent_first() -> None:
    assert entries(pl.LazyFrame({"redactions": [["email", "key"], [], ["key"], ["card"]]})) == {"key": 2, "card": 1, "email": 1}
    assert entries(pl.LazyFrame({"redactions": []}, schema={"redactions": pl.List(pl.String)})) == {}
