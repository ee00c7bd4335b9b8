"""The page's words: numbers, intervals, cells, tables and figures before they are set.

What belongs here: how a value is put. What does not: markup (``page.html``) and which values there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rlhi_dagster.base import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

NONE = "\u2013"


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: a text and, small under it, notes as (text, tone); a tone is "good", "bad", "open" or none."""

    text: str
    notes: Sequence[tuple[str, str]] = ()
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the row; the others are numbers unless listed in ``text_columns``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    text_columns: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its title above it and a legend, (label, colour, class), below it."""

    svg: Markup
    title: str
    about: str = ""
    legend: Sequence[tuple[str, str, str]] = ()


def figure(drawn: Drawn, name: str, title: str, about: str = "", legend: Mapping[str, plots.Mark] | None = None) -> Figure:
    """A picture for the page; ``name`` is what a screen reader says."""
    return Figure(Markup(plots.svg(drawn, name)), title, about, plots.legend(legend or {}))


def minus(text: str) -> str:
    """Hyphen-minus as a real minus sign."""
    return text.replace("-", "\u2212")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NONE if value is None else minus(f"{100 * value:.{digits}f}\u202f%")


def points(value: float | None) -> str:
    """A difference of shares in signed percentage points."""
    return NONE if value is None else f"{minus(f'{100 * value:+.1f}')} points"


def bracket(low: float | None, high: float | None, scale: float = 100.0, digits: int = 1) -> str:
    """An interval in brackets; a dash where there is none."""
    return f"[{NONE}]" if low is None or high is None else minus(f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]")


def number(value: float | None, digits: int) -> str:
    """A plain number; a dash where there is none or it is not finite."""
    return NONE if value is None or not math.isfinite(value) else minus(f"{value:.{digits}f}")


def probability(value: float) -> str:
    """A p-value as it is written after "p": small ones are not told apart."""
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def measured(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    """A plain number and its interval, if it has one."""
    return number(value, digits) if low is None else f"{number(value, digits)} {bracket(low, high, 1, digits)}"


def share(row: Mapping[str, Any] | None) -> Cell:
    """A percentage with interval, n and remark, from a row with ``value``, ``ci_low``, ``ci_high``, ``n``, maybe ``remark``."""
    if row is None:
        return Cell(NONE)
    if row["value"] is None:
        return Cell(f"{NONE} (n = {row['n']:,})")
    remarks = [(row["remark"], "open")] if row.get("remark") else []
    return Cell(percent(row["value"]), [(bracket(row["ci_low"], row["ci_high"]), ""), (f"n = {row['n']:,}", ""), *remarks])


def counts(found: Mapping[str, int], name: str, title: str, about: str) -> Figure:
    """Counts as bars with their shares."""
    total = sum(found.values()) or 1
    return figure(plots.bars([(label, n, f"{n:,} ({percent(n / total, 0)})") for label, n in found.items()]), name, title, about)
