"""What materializing an asset would ask models for, as a table for the terminal: ``rlhi plan``.

What belongs here: the table. What does not: the plan itself (``graph/planning.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import add
from typing import Any

from rlhi_dagster.base import escapes
from rlhi_dagster.engines.forecast import Forecast
from rlhi_dagster.graph.planning import FOOTNOTE, Plan


def text(plans: Sequence[Plan]) -> str:
    """A table for the terminal."""
    lines = [f"{'asset':<22}{'requests':>10}{'missing':>10}{'tokens in':>14}{'tokens out':>14}{'time':>10}{'cost':>10}  measured on"]
    for each in plans:
        if each.forecast is None:
            lines.append(f"{each.asset:<22}  {each.note}")
        else:
            lines.append(_line(each.asset, each.forecast))
    known = [each.forecast for each in plans if each.forecast]
    if len(known) > 1:
        total = reduce(add, known)
        lines.append(_line("together", replace(total, basis="")))
    return escapes.lines([*lines, "", FOOTNOTE])


def records(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """The same for programs: of each asset the forecast's fields, or why there is none (``note``)."""
    return [{"asset": each.asset, **(asdict(each.forecast) if each.forecast else {"note": each.note})} for each in plans]


def _line(name: str, found: Forecast) -> str:
    seconds = "unknown" if found.seconds is None else f"{found.seconds:,.0f} s" if found.seconds < 600 else f"{found.seconds / 3600:,.1f} h"
    cost = "–" if found.cost_usd is None else f"${found.cost_usd:,.2f}"
    counts = f"{found.requests:>10,}{found.missing:>10,}{found.prompt_tokens:>14,}{found.completion_tokens:>14,}"
    return f"{name:<22}{counts}{seconds:>10}{cost:>10}  {found.basis}"
