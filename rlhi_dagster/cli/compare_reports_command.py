"""``rlhi compare-reports``: the command's arguments, and two reports' numbers for the terminal.

What belongs here: words and columns. What does not: which numbers can be compared (``report.compared``).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from rlhi_dagster.base import escapes
from rlhi_dagster.base.aside import put
from rlhi_dagster.base.lake import check_writable
from rlhi_dagster.report import compared
from rlhi_dagster.report.compared import Compared, Row

_NONE = "–"


def add_parser(commands: Any) -> None:
    """Add ``compare-reports`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "compare-reports",
        help="put the numbers of two reports side by side, and say what differs in what they were made of",
        description="Reads the file `report/report.json` of each. A difference is A minus B, with an interval made of the two as if their "
        "users were others; where it would mean nothing it is left out, and the reason told: docs/concepts/evaluation.md.",
    )
    parser.add_argument("left", metavar="A", type=Path, help="the file report.json beside a report")
    parser.add_argument("right", metavar="B", type=Path, help="the one that it is compared with")
    parser.add_argument("--json", action="store_true", help="all numbers and sentences as JSON")
    parser.add_argument("--out", metavar="PAGE.html", type=Path, help="write them as one self-contained page, too")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: A file is no report's numbers, or of another version; the message is for the terminal.
    """
    left, right = compared.read(given.left), compared.read(given.right)
    found = compared.compare(left, right)
    if given.out is not None:
        if given.out.suffix.lower() != ".html":
            raise ValueError(f"{given.out}: the page must end in .html")
        check_writable(given.out)
        put(given.out, compared.render(found, *_names(given, left, right)))
    if given.json:
        return compared.as_json(found, given.left, given.right)
    written = ["", f"page: {given.out.absolute().as_uri()}"] if given.out is not None else []
    return escapes.lines([*lines(found, *_names(given, left, right)), *written])


def lines(found: Compared, left: str, right: str) -> list[str]:
    """Two reports for the terminal: what differs, then the main numbers.

    Args:
        found: What to show.
        left: How the first report is called.
        right: How the second one is called.
    """
    told = [f"A: {left}", f"B: {right}", "", *(found.settings or ["Nothing differs of what the reports tell."])]
    for (_, benchmark, _, judge), group in groupby(found.leading, key=lambda row: row.rank):
        rows = list(group)
        cells = [("recipe", "A", "B", "A minus B")]
        cells += [(row.key[0], _number(row.left, row), _number(row.right, row), _difference(row)) for row in rows]
        widths = [max(len(line[place]) for line in cells) + 2 for place in range(4)]
        table = ["".join(f"{part:<{width}}" for part, width in zip(line, widths, strict=True)).rstrip() for line in cells]
        told += ["", f"{rows[0].key[2]} on {benchmark}, judge {judge}", *table]
    rest = len(found.rows) - len(found.leading)
    return [*told, "", f"{rest:,} further numbers (other metrics, cold start, safety, judges, the logs): --json or --out PAGE.html"]


def _names(given: argparse.Namespace, left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[str, str]:
    """What the reports are called: their profiles, or their files where these are the same."""
    named = tuple(str(side["headline"].get("Profile", "")) for side in (left, right))
    return (named[0], named[1]) if all(named) and named[0] != named[1] else (str(given.left), str(given.right))


def _number(side: Mapping[str, Any] | None, row: Row) -> str:
    if side is None or side["value"] is None:
        return _NONE
    digits = 3 if row.is_share else 2
    interval = "" if side["ci_low"] is None else f" [{side['ci_low']:.{digits}f}, {side['ci_high']:.{digits}f}]"
    return f"{side['value']:.{digits}f}{interval} n={side['n']}"


def _difference(row: Row) -> str:
    if row.difference is None:
        return f"{_NONE} ({row.remark})"
    digits = 3 if row.is_share else 2
    interval = "" if row.ci_low is None else f" [{row.ci_low:+.{digits}f}, {row.ci_high:+.{digits}f}]"
    return f"{row.difference:+.{digits}f}{interval}"
