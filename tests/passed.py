"""Whether the columns that ``base/lineage.py`` says are passed on really are: row by row, on tables that a run has made.

What belongs here: the comparison. What does not: the tables (``tests.snapshot`` makes all of them).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from rlhi_dagster.base.lineage import PASSED, Passed


def alternatives(entries: Collection[Passed]) -> list[list[Passed]]:
    """The entries of a table, those about the same columns together."""
    groups: list[list[Passed]] = []
    for entry in entries:
        shared = [group for group in groups if any(entry.columns.keys() & each.columns.keys() for each in group)]
        groups = [*(group for group in groups if group not in shared), [*(each for group in shared for each in group), entry]]
    return groups


def told(rows: pl.DataFrame, entries: Collection[Passed], tables: Mapping[str, pl.DataFrame]) -> tuple[int, int]:
    """How many rows have something in the columns of some alternatives, and how many of these have it from no row of their tables."""
    names = sorted({name for entry in entries for name in entry.columns})
    said = [any(value is not None for value in row) for row in _values(rows, names)]
    of_some = [False] * len(rows)
    for entry in entries:
        there = set(map(repr, _values(tables[entry.table], entry.columns.values())))
        found = [repr(row) in there for row in _values(rows, entry.columns)]
        of_some = [one or other for one, other in zip(of_some, found, strict=True)]
    return sum(said), sum(has and not is_passed for has, is_passed in zip(said, of_some, strict=True))


def compared(tables: Mapping[str, pl.DataFrame]) -> dict[str, tuple[int, int]]:
    """`told` of everything that ``base/lineage.py`` says, by table and columns."""
    found = {}
    for name, entries in PASSED.items():
        for group in alternatives(entries):
            columns = ", ".join(dict.fromkeys(column for entry in group for column in entry.columns))
            found[f"{name}: {columns}"] = told(tables[name], group, tables)
    return found


def _values(frame: pl.DataFrame, names: Collection[str]) -> list[tuple[Any, ...]]:
    """Rows of some columns; what is empty is as if it were missing, for a missing text becomes an empty one here and there."""
    return [tuple(None if value in (None, "", []) else value for value in row) for row in frame.select(list(names)).iter_rows()]
