"""Scores for the terminal.

What belongs here: the table of recipes that ``rlhi summary`` prints, and that of all rows of ``rlhi evaluate``. What does not: where the
scores come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.ceiling import CEILING
from rlhi_dagster.evaluation.headline import primary_rows
from rlhi_dagster.evaluation.headline import ranked as best_first
from rlhi_dagster.training.recipes import BASE, Recipe, Role, ranked

_BROKEN = 0.02
"""Share of replies that are no text any more, from which on a recipe's score is not to be trusted."""


def lines(scores: pl.DataFrame) -> list[str]:
    """A header and a line for each row of ``SCORES``."""
    rows = scores.sort("benchmark", "metric", "recipe", "judge").to_dicts()
    columns = ("benchmark", "metric", "recipe")
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) + 2 if rows else len(name) + 2 for name in columns}
    found = [f"{''.join(f'{name:<{width}}' for name, width in widths.items())}{'value':>8}  {'95 % interval':<18}{'n':>5}  judge"]
    for row in rows:
        sign = "+" if row["metric"].endswith("_minus_base") else ""
        value = "–" if row["value"] is None else f"{row['value']:.3f}"
        interval = "–" if row["ci_low"] is None else f"[{row['ci_low']:{sign}.3f}, {row['ci_high']:{sign}.3f}]"
        remark = f" ({row['remark']})" if row["remark"] else ""
        named = "".join(f"{row[name]:<{width}}" for name, width in widths.items())
        found.append(f"{named}{value:>8}  {interval:<18}{row['n']:>5}  {row['judge']}{remark}")
    return found


def board(scores: pl.DataFrame, arms: Mapping[str, Recipe]) -> list[str]:
    """A line for each recipe: the first metric, what it differs from ``base`` by, and what is wrong with it; controls set apart.

    Where the truth is known a last line says what could be reached.

    Args:
        scores: ``SCORES``.
        arms: Recipes by name; others come last.
    """
    rows = primary_rows(scores.filter(pl.col("value").is_not_null()).to_dicts())
    if not rows:
        return lines(scores)
    first, of = rows[0], {row["recipe"]: row for row in rows}
    others = {(row["recipe"], row["metric"]): row for row in scores.to_dicts() if _is_beside(row, first)}
    order = [*(name for name in ranked(arms) if name in of), *sorted(of.keys() - arms.keys())]
    controls = [name for name in order if name in arms and arms[name].role is Role.CONTROL]
    width = max(map(len, order)) + 2
    title = str(first["metric"]).replace("_", " ")
    head = f"{first['n']:,} requests of {first['users']:,} users, judge {first['judge']}, 95 % intervals over users"
    table = [f"{'recipe':<{width}}{title:<23}minus base"]
    for name in [*(each for each in order if each not in controls), *controls]:
        table += ["", "controls, which lack what a recipe should gain by"] if name in controls[:1] else []
        difference = others.get((name, f"{first['metric']}_minus_base"))
        remark = _remark(others.get((name, Metric.MALFORMED.value)))
        cells = f"{_number(of[name]):<23}{_number(difference, '+') if difference else ''}"
        table.append(f"{name:<{width}}{cells:<49}{_verdict(difference)}{remark}".rstrip())
    if ceiling := others.get((BASE, f"{first['metric']}_ceiling")):
        table += ["", f"{'ceiling':<{width}}{_number(ceiling):<23}{CEILING}", *([ceiling["remark"]] if ceiling["remark"] else [])]
    return [head, "", *table, ""]


def best(scores: pl.DataFrame) -> str | None:
    """The recipe with the highest score."""
    leading: Sequence[str] = best_first(scores)["recipe"].to_list()
    return leading[0] if leading else None


def _is_beside(row: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    return row["benchmark"] == Benchmark.USER_EVAL and row["judge"] == first["judge"] and row["value"] is not None


def _number(row: Mapping[str, Any], sign: str = "") -> str:
    interval = "" if row["ci_low"] is None else f" [{row['ci_low']:{sign}.3f}, {row['ci_high']:{sign}.3f}]"
    return f"{row['value']:{sign}.3f}{interval}"


def _verdict(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference["ci_low"] is None:
        return ""
    if difference["ci_low"] > 0:
        return "better"
    return "worse" if difference["ci_high"] < 0 else "no difference shown"


def _remark(malformed: Mapping[str, Any] | None) -> str:
    is_broken = malformed is not None and malformed["value"] > _BROKEN
    return f"; {malformed['value']:.1%} of its replies are broken text" if malformed and is_broken else ""
