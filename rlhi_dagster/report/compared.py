"""Two reports side by side: their numbers, the differences that mean something, and what differs in what they were made of.

What belongs here: reading ``report/report.json``, matching rows, saying what cannot be compared and why, and the page of it. What does not:
writing the numbers (``write``), the terminal (``cli``), and comparing two recipes of one run, which pairs their replies request by request
(``evaluation.scores``).

A difference is A minus B. Its interval is put together from the two (``intervals.difference_of_independent``), as if they were of other
users.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhi_dagster.base import plots
from rlhi_dagster.base.intervals import difference_of_independent
from rlhi_dagster.evaluation import CONDITIONS, Benchmark, Metric
from rlhi_dagster.evaluation.scores import COMPARED_METRICS, NO_JUDGE
from rlhi_dagster.report.page import template
from rlhi_dagster.report.words import Cell, Figure, Table, bracket, figure, number, points, share
from rlhi_dagster.report.write import NUMBERS_VERSION
from rlhi_dagster.training.recipes import BASE

KEYS = {
    "scores": ("recipe", "benchmark", "metric", "judge"),
    "benchmark_scores": ("recipe", "benchmark", "metric", "judge"),
    "judge_quality": ("judge", "other_judge", "criterion", "items", "figure"),
    "reattempt_rates": ("dimension", "level", "denominator", "templates"),
    "contextual_diversity": ("corpus", "encoder"),
}
"""The tables that are compared, and what their rows are told apart by."""
_OF_LOGS = ("reattempt_rates", "contextual_diversity")
_ITEMS = "Data version of eval_prompts"
_AGAINST_BASE = {
    *(metric.value for metric in Metric if "win_rate" in metric.value or metric.value.endswith("_minus_base")),
    Metric.PERSONAL_PREFERENCES_MET.value,
    Metric.POSITION_BIAS.value,
}
"""Of `scores`, what is measured against the replies of the run's own base."""
_LEADING = {*(metric.value for metric in COMPARED_METRICS), Metric.ALL_PREFERENCES_MET_CEILING.value, Metric.RATING.value}
_NUMBERS = ("value", "ci_low", "ci_high", "n")


@dataclass(frozen=True, slots=True)
class Row:
    """A number of either report; one of them may lack it.

    Attributes:
        table: A name of `KEYS`.
        key: What it is the number of, in the order of the table's key.
        left: ``value``, ``ci_low``, ``ci_high`` and ``n`` of the first report; ``None`` if it has no such row.
        right: Those of the second.
        difference: First minus second; ``None`` where it would mean nothing.
        ci_low: Lower end of its 95 % interval; ``None`` where a number has none.
        ci_high: Upper end of its 95 % interval; ``None`` likewise.
        remark: Why there is no difference; ``None`` where there is one.
    """

    table: str
    key: tuple[str, ...]
    left: Mapping[str, Any] | None
    right: Mapping[str, Any] | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    remark: str | None

    @property
    def is_leading(self) -> bool:
        """Whether it is among the few that are shown first: a recipe's main metrics, on items with the user's own persona."""
        of_scores = self.table in ("scores", "benchmark_scores")
        return of_scores and self.key[2] in _LEADING and self.key[1] not in CONDITIONS and self.key[1] != Benchmark.SAFETY

    @property
    def rank(self) -> tuple[bool, str, int, str]:
        """Where a score stands among those that are shown first: requests of users, the metric that a result is told by, judges."""
        order = [metric.value for metric in (*COMPARED_METRICS[:1], Metric.ALL_PREFERENCES_MET_CEILING, *COMPARED_METRICS[1:])]
        _, benchmark, metric, judge = self.key
        return benchmark != Benchmark.USER_EVAL, benchmark, order.index(metric) if metric in order else len(order), judge

    @property
    def is_share(self) -> bool:
        """Whether values are shares, or differences of shares, and are shown in per cent."""
        return self.table in ("scores", "benchmark_scores", "reattempt_rates") and Metric.RATING not in self.key


@dataclass(frozen=True, slots=True)
class Compared:
    """Two reports beside each other: sentences on what differs in what they were made of, and all their numbers."""

    settings: Sequence[str]
    rows: Sequence[Row]

    @property
    def leading(self) -> list[Row]:
        """The rows that are shown first, in their order; recipes as they came."""
        return sorted((row for row in self.rows if row.is_leading), key=lambda row: row.rank)


def read(file: Path) -> dict[str, Any]:
    """The numbers of a report.

    Args:
        file: A ``report/report.json``.

    Raises:
        ValueError: The file is no report's, of another version of the format, or a row lacks something; the message says what to do.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no JSON: name the report.json beside a report's index.html") from error
    if not isinstance(found, dict) or "version" not in found or not isinstance(found.get("headline"), dict):
        raise ValueError(f"{file} is no report of this project: name the report.json beside a report's index.html")
    if found["version"] != NUMBERS_VERSION:
        raise ValueError(
            f"{file} has version {found['version']} of the numbers of reports, and this release compares version {NUMBERS_VERSION}: "
            "materialize `report` again with this release"
        )
    for table, key in KEYS.items():
        for place, row in enumerate(found.get(table, [])):
            if lacking := [name for name in (*key, *_NUMBERS) if name not in row]:
                raise ValueError(f"{file}: row {place} of {table} lacks {', '.join(lacking)}")
    return found


def compare(left: Mapping[str, Any], right: Mapping[str, Any]) -> Compared:
    """Put two reports side by side.

    Args:
        left: What `read` gives.
        right: The other.
    """
    rows = []
    for table, names in KEYS.items():
        one, other = ({tuple(row[name] for name in names): row for row in side.get(table, [])} for side in (left, right))
        no_difference = _no_difference(table, left, right)
        for key in dict.fromkeys([*one, *other]):
            sides = [None if (row := side.get(key)) is None else {name: row[name] for name in _NUMBERS} for side in (one, other)]
            remark = no_difference
            if table == "scores" and key[2] in _AGAINST_BASE and not _has_one_base(left, right):
                remark = remark or "each is against the base of its own run"
            rows.append(_row(table, key, sides[0], sides[1], remark))
    return Compared(_settings(left, right), rows)


def as_json(found: Compared, left: Path, right: Path) -> str:
    """Everything, for other programs."""
    told = {"version": NUMBERS_VERSION, "left": str(left), "right": str(right), "settings": list(found.settings)}
    named = [dict(zip(KEYS[row.table], row.key, strict=True)) for row in found.rows]
    rows = [
        {name: part for name, part in asdict(row).items() if name != "key"} | {"of": key}
        for row, key in zip(found.rows, named, strict=True)
    ]
    return json.dumps({**told, "rows": rows}, indent=1, allow_nan=False)


def render(found: Compared, left: str, right: str) -> str:
    """The page: sentences, a picture of the differences, and a table of each kind of number.

    Args:
        found: What to show.
        left: How the first report is called.
        right: How the second one is called.
    """
    shown = found.leading
    tables = {"Main scores": _table(shown)}
    for table in KEYS:
        rest = [row for row in found.rows if row.table == table and not row.is_leading]
        if rest:
            tables[("Further " if table == "scores" else "") + table.replace("_", " ")] = _table(rest)
    return template("compared_page.html").render(
        left=left, right=right, settings=found.settings, figure=_figure(shown), tables=tables if found.rows else {}
    )


def _row(table: str, key: tuple[str, ...], left: Mapping[str, Any] | None, right: Mapping[str, Any] | None, remark: str | None) -> Row:
    if left is None or right is None:
        return Row(table, key, left, right, None, None, None, f"only {'B' if left is None else 'A'} has it")
    if left["value"] is None or right["value"] is None:
        remark = remark or "nothing was measured"
    if remark:
        return Row(table, key, left, right, None, None, None, remark)
    ends = [tuple(side[name] for name in ("value", "ci_low", "ci_high")) for side in (left, right)]
    return Row(table, key, left, right, *difference_of_independent(*ends), None)


def _no_difference(table: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> str | None:
    """Why no number of a table can be subtracted; ``None`` if some can."""
    is_same_source = left["headline"].get("Source") == right["headline"].get("Source")
    if table in ("scores", "judge_quality") and not is_same_source:
        return "the users are those of other logs"
    return "these are other logs" if table in _OF_LOGS and not is_same_source else None


def _settings(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """What differs in what the reports were made of, a sentence each."""
    heads = left["headline"], right["headline"]
    said = [
        f"{name}: A {heads[0].get(name, 'says nothing')}, B {heads[1].get(name, 'says nothing')}."
        for name in dict.fromkeys([*heads[0], *heads[1]])
        if heads[0].get(name) != heads[1].get(name)
    ]
    if _ITEMS in heads[0] and heads[0].get(_ITEMS) == heads[1].get(_ITEMS):
        said.append("Both were evaluated on the same requests; the intervals of differences take them for others', so most are too wide.")
    elif _ITEMS in heads[0] and _ITEMS in heads[1]:
        said.append("They were evaluated on different requests, so a difference is one of users, too.")
    for what, of in (("Judges", _judges), ("Benchmarks", _benchmarks), ("Recipes", _recipes), ("Deviations from the paper", _deviations)):
        said += [f"{what} of {name} alone: {'; '.join(only)}." for name, only in _alone(of(left), of(right)) if only]
    bases = _model(left), _model(right)
    if not all(bases):
        said.append(f"Whether both start from the same base cannot be told: {'B' if bases[0] else 'A'} does not say.")
    elif bases[0] != bases[1]:
        said.append(f"The base is another model: A {bases[0]}, B {bases[1]}.")
    else:
        same = [name for name in _recipes(left) if name != BASE and _model(left, name) == _model(right, name) and _model(left, name)]
        said += [f"The weights are the very same in both of {', '.join(same)}."] if same else []
    return said


def _alone(left: Iterable[str], right: Iterable[str]) -> list[tuple[str, list[str]]]:
    one, other = list(dict.fromkeys(left)), list(dict.fromkeys(right))
    return [("A", [each for each in one if each not in other]), ("B", [each for each in other if each not in one])]


def _judges(report: Mapping[str, Any]) -> list[str]:
    return sorted({row["judge"] for table in ("scores", "benchmark_scores") for row in report.get(table, [])} - {NO_JUDGE})


def _benchmarks(report: Mapping[str, Any]) -> list[str]:
    return sorted({row["benchmark"] for table in ("scores", "benchmark_scores") for row in report.get(table, [])})


def _recipes(report: Mapping[str, Any]) -> list[str]:
    return sorted({row["recipe"] for table in ("scores", "benchmark_scores") for row in report.get(table, [])})


def _deviations(report: Mapping[str, Any]) -> list[str]:
    return [sentence.rstrip(".") for sentence in report.get("deviations", [])]


def _model(report: Mapping[str, Any], recipe: str = BASE) -> str | None:
    found: str | None = report.get("recipes", {}).get(recipe, {}).get("model")
    return found


def _has_one_base(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return _model(left) is not None and _model(left) == _model(right)


def _table(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        if row.difference is None:
            difference = Cell("–", [(row.remark or "", "open")])
        else:
            ends = bracket(row.ci_low, row.ci_high, *(() if row.is_share else (1.0, 2)))
            difference = Cell(points(row.difference) if row.is_share else number(row.difference, 2), [(ends, "")])
        lines.append(
            [Cell(row.key[0], [(", ".join(map(str, row.key[1:])), "")]), *(_cell(side, row) for side in (row.left, row.right)), difference]
        )
    return Table(["number", "A", "B", "A minus B"], lines)


def _cell(side: Mapping[str, Any] | None, row: Row) -> Cell:
    if side is None or row.is_share:
        return share(side)
    return Cell(number(side["value"], 2), [(bracket(side["ci_low"], side["ci_high"], 1.0, 2), ""), (f"n = {side['n']:,}", "")])


def _figure(rows: Sequence[Row]) -> Figure | None:
    """The differences in the first metric, benchmark and judge that there are any of."""
    known = [row for row in rows if row.difference is not None and row.is_share]
    lines = [
        plots.Row(
            row.key[0],
            row.difference,
            row.ci_low,
            row.ci_high,
            f"{points(row.difference).removesuffix(' points')} {bracket(row.ci_low, row.ci_high)}",
            plots.Mark("--s-2"),
        )
        for row in known
        if row.difference is not None and row.key[1:] == known[0].key[1:]
    ]
    if not lines:
        return None
    _, benchmark, metric, judge = known[0].key
    name = f"{metric.replace('_', ' ')} on {benchmark}: A minus B"
    about = f"differences in percentage points, 95 % intervals; judge {judge}"
    return figure(plots.forest(lines, zero=True, unit=""), name, name, about)
