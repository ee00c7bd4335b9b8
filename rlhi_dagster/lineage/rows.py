"""Rows of the lake by id, for one pair at a time.

What belongs here: finding rows, and a pair by the beginning of its id. What does not: what they mean together (``trail``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhi_dagster.lake import Lake
from rlhi_dagster.launching import command

SOURCES = ("rewrite_pairs", "reward_pairs", "reasoning_pairs", "online_pairs")
"""Tables of candidate pairs, kept or dropped; ``preference_pairs`` has those that one of the first three kept."""
_MOST_SHOWN = 5

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Reads rows of tables that may be missing: a table without a file has no rows."""

    lake: Lake

    def of(self, table: str, column: str, values: Sequence[str | None]) -> list[Row]:
        """Rows of a table with one of some values, sorted by the column."""
        wanted = sorted({value for value in values if value is not None})
        if not wanted or not any(self.lake.artefact_path(table).glob("*.parquet")):
            return []
        found = self.lake.scan(table).filter(pl.col(column).is_in(pl.Series(wanted, dtype=pl.String()).implode()))
        return found.sort(column).collect(engine="streaming").to_dicts()

    def one(self, table: str, column: str, value: str | None) -> Row | None:
        """The first row of a table with a value, or ``None``."""
        return next(iter(self.of(table, column, [value])), None)

    def pair(self, beginning: str) -> tuple[str, Row, Row | None]:
        """A pair by the beginning of its id: the table of its source, its row there, and its row of ``preference_pairs``.

        Raises:
            ValueError: There is no such pair, or there are several, or its source has it no more; the message is for the terminal.
        """
        pair_id = self._pair_id(beginning)
        for table in SOURCES:
            row = self.one(table, "pair_id", pair_id)
            if row is not None:
                return table, row, self.one("preference_pairs", "pair_id", pair_id)
        raise ValueError(f"pair {pair_id} is in preference_pairs but in no table of its source; run: {command('preference_pairs')}")

    def _pair_id(self, beginning: str) -> str:
        if not beginning:
            raise ValueError("give a pair_id or the beginning of one")
        found: set[str] = set()
        for table in (*SOURCES, "preference_pairs"):
            if any(self.lake.artefact_path(table).glob("*.parquet")):
                ids = self.lake.scan(table).select("pair_id").filter(pl.col("pair_id").str.starts_with(beginning))
                found |= set(ids.collect(engine="streaming")["pair_id"])
        if beginning in found:
            return beginning
        if len(found) != 1:
            shown = f": {', '.join(sorted(found)[:_MOST_SHOWN])}{', ...' if len(found) > _MOST_SHOWN else ''}"
            raise ValueError(f"{len(found) or 'no'} pairs begin with {beginning}{shown if found else f' in {self.lake.root}'}")
        return found.pop()
