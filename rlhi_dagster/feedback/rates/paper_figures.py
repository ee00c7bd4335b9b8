"""Which reading of the re-attempt rate comes nearest to the paper's two figures.

What belongs here: the figures, the readings that each may mean, and how far they are off. What does not: the rates (``rates``).

The paper gives 26.51 % of user messages, and 83.15 % after turn 5, with other users, other labels and no denominator. So the nearest
reading is a hint at what the paper counted, no more; a figure outside every interval is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhi_dagster.feedback.rates.shares import ALL, TURNS, Denominator, Dimension


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the paper and the cells of the table it may mean."""

    value: float
    what: str
    dimension: Dimension
    level: str


FIGURES = (
    Figure(0.2651, "of user messages", Dimension.ALL, ALL),
    Figure(0.8315, "after turn 5", Dimension.TURN, TURNS[-1]),
)

_WORDS = {
    (ALL, Denominator.USER_MESSAGES): "of all user messages",
    (ALL, Denominator.FOLLOW_UPS): "of the follow-ups",
    (ALL, Denominator.CONVERSATIONS): "of the conversations, with at least one",
    (ALL, Denominator.USERS): "of the users, with at least one",
    (TURNS[-1], Denominator.FOLLOW_UPS): "of the follow-ups after turn 5",
    (TURNS[-1], Denominator.CONVERSATIONS): "of the conversations longer than five turns, with at least one",
    (TURNS[-1], Denominator.USERS): "of the users with a conversation longer than five turns, with at least one in such",
}
"""Readings in words; after turn 5 every user message is a follow-up, so user messages are no reading of their own there."""


def readings(rates: pl.DataFrame) -> pl.DataFrame:
    """Set the readings beside the paper's figures.

    Args:
        rates: Rows of ``tables.REATTEMPT_RATES``.

    Returns:
        ``paper`` (the figure, with what the paper says of it), ``reading`` (in words), ``templates``, ``value``, ``ci_low``, ``ci_high``,
        ``n``, ``unanswered``, ``users``, ``difference`` (value minus figure) and ``is_nearest``; for each figure the nearest reading first.
        Readings without an item are left out.
    """
    parts = [_beside(rates, figure) for figure in FIGURES]
    return pl.concat(parts)


def _beside(rates: pl.DataFrame, figure: Figure) -> pl.DataFrame:
    words = {denominator.value: text for (level, denominator), text in _WORDS.items() if level == figure.level}
    return (
        rates.filter(dimension=figure.dimension.value, level=figure.level)
        .filter(pl.col("value").is_not_null(), pl.col("denominator").is_in(list(words)))
        .with_columns(
            paper=pl.lit(f"{figure.value:.2%} {figure.what}"),
            reading=pl.col("denominator").replace_strict(words, return_dtype=pl.String),
            difference=pl.col("value") - figure.value,
        )
        .sort(pl.col("difference").abs(), "reading", "templates", descending=[False, False, True])
        .with_columns(is_nearest=pl.int_range(pl.len()) == 0)
        .select("paper", "reading", "templates", "value", "ci_low", "ci_high", "n", "unanswered", "users", "difference", "is_nearest")
    )


def text(rates: pl.DataFrame) -> str:
    """Rates overall and by turn with their intervals, and what comes nearest to the paper's figures, as plain text.

    Args:
        rates: Rows of ``tables.REATTEMPT_RATES``.
    """
    lines = [
        f"{'turn':<6}{'share of':<16}{'templates':<11}{'rate':>6}  {'95 % interval':<16}{'n':>10}{'of them unanswered':>20}{'users':>10}"
    ]
    for level, templates in ((ALL, "included"), (ALL, "excluded"), *((turn, "included") for turn in TURNS)):
        cells = rates.filter(level=level, templates=templates).filter(pl.col("dimension").is_in([Dimension.ALL, Dimension.TURN]))
        for denominator in Denominator:
            # From turn 2 on every user message is a follow-up: one line says both.
            if level == ALL or denominator != Denominator.USER_MESSAGES:
                lines += [_line(row) for row in cells.filter(denominator=denominator.value).drop_nulls("value").to_dicts()]
    return "\n".join([*lines, "", *sentences(readings(rates))])


def _line(row: Mapping[str, Any]) -> str:
    interval = "–" if row["ci_low"] is None else f"[{row['ci_low']:.1%}, {row['ci_high']:.1%}]"
    named = f"{row['level']:<6}{row['denominator']:<16}{row['templates']:<11}"
    return f"{named}{row['value']:>6.1%}  {interval:<16}{row['n']:>10,}{row['unanswered']:>20,}{row['users']:>10,}"


def sentences(found: pl.DataFrame) -> list[str]:
    """One sentence for each figure, from what `readings` returns: the nearest reading, and whether its interval holds the figure."""
    return [_sentence(row) for row in found.filter("is_nearest").iter_rows(named=True)]


def _sentence(row: dict[str, float | str | None]) -> str:
    low, high, value, difference = (row[name] for name in ("ci_low", "ci_high", "value", "difference"))
    assert isinstance(value, float)
    assert isinstance(difference, float)
    start = f"Nearest to {row['paper']}: {value:.1%} {row['reading']}, templates {row['templates']} (n = {row['n']:,})"
    if not isinstance(low, float) or not isinstance(high, float):
        return f"{start}; {difference * 100:+.1f} points, without an interval."
    holds = "holds" if low <= value - difference <= high else "does not hold"
    return f"{start}; {difference * 100:+.1f} points, and its interval [{low:.1%}, {high:.1%}] {holds} the paper's figure."
