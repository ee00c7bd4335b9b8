"""Rows of the lake by id, for one pair, evaluated reply or message at a time.

What belongs here: finding rows, a pair, reply or message by the beginning of its id, and the rows that name a model call. What does not:
what they mean together (``pairs``, ``replies``, ``messages``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhi_dagster.base.failures import NotMadeError
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import CALLS, TABLES

SOURCES = ("rewrite_pairs", "reward_pairs", "reasoning_pairs", "explicit_pairs", "online_pairs")
"""Tables of candidate pairs, kept or dropped; ``preference_pairs`` has those that one of the first four kept."""
_MOST_SHOWN = 5
_TOLD = {"judgements": ("recipe", "opponent", "prompt_id", "order")}
"""What tells a row to people where its key does not."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Reads rows of tables that may be missing: a table without a file has no rows."""

    lake: Lake

    def of(self, table: str, column: str, values: Sequence[str | None]) -> list[Row]:
        """Rows of a table with one of some values, sorted by the column."""
        wanted = sorted({value for value in values if value is not None})
        if not wanted or not self._has(table):
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
        pair_id = self._whole(beginning, "pair_id", (*SOURCES, "preference_pairs"), "pairs")
        for table in SOURCES:
            row = self.one(table, "pair_id", pair_id)
            if row is not None:
                return table, row, self.one("preference_pairs", "pair_id", pair_id)
        raise NotMadeError(f"pair {pair_id} is in preference_pairs but in no table of its source", "preference_pairs")

    def response(self, beginning: str) -> Row:
        """A row of ``responses`` by the beginning of its id.

        Raises:
            ValueError: There is no such reply, or there are several; the message is for the terminal.
        """
        return self.of("responses", "response_id", [self._whole(beginning, "response_id", ("responses",), "evaluated replies")])[0]

    def turn(self, beginning: str) -> Row:
        """A row of ``turns`` by the beginning of its id.

        Raises:
            ValueError: There is no such message, or there are several; the message is for the terminal.
        """
        return self.of("turns", "turn_id", [self._whole(beginning, "turn_id", ("turns",), "messages")])[0]

    def citing(self, turn_id: str) -> list[Row]:
        """Persona lines that rest on a message, the oldest first."""
        if not self._has("personas"):
            return []
        found = self.lake.scan("personas").filter(pl.col("evidence").list.contains(turn_id))
        return found.sort("valid_from", "persona_line_id").collect(engine="streaming").to_dicts()

    def naming(self, key: str) -> dict[str, list[str]]:
        """Rows that name a model call, as people tell them, by table; tables without any are left out."""
        found = {}
        for name, table in TABLES.items():
            rows = self.lake.scan(name) if self._has(name) else pl.LazyFrame()
            if columns := {column: dtype for column, dtype in rows.collect_schema().items() if column.endswith(CALLS)}:
                told = rows.filter(pl.any_horizontal(_names(column, dtype, key) for column, dtype in columns.items()))
                told = told.select(told=pl.concat_str(_TOLD.get(name, table.unique), separator=" "))
                found[name] = sorted(told.collect(engine="streaming")["told"])
        return {name: told for name, told in found.items() if told}

    def _has(self, table: str) -> bool:
        return any(self.lake.artefact_path(table).glob("*.parquet"))

    def _whole(self, beginning: str, column: str, tables: Sequence[str], what: str) -> str:
        """The id that begins so."""
        if not beginning:
            raise ValueError(f"give a {column} or the beginning of one")
        found: set[str] = set()
        for table in filter(self._has, tables):
            ids = self.lake.scan(table).select(column).filter(pl.col(column).str.starts_with(beginning))
            found |= set(ids.collect(engine="streaming")[column])
        if beginning in found:
            return beginning
        if len(found) != 1:
            shown = f": {', '.join(sorted(found)[:_MOST_SHOWN])}{', ...' if len(found) > _MOST_SHOWN else ''}"
            raise ValueError(f"{len(found) or 'no'} {what} begin with {beginning}{shown if found else f' in {self.lake.root}'}")
        return found.pop()


def _names(column: str, dtype: pl.DataType, key: str) -> pl.Expr:
    named = pl.col(column).list.contains(key) if isinstance(dtype, pl.List) else pl.col(column) == key
    return named.fill_null(value=False)
