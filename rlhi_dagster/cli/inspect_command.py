"""``rlhi inspect``: the command's arguments, and what is printed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlhi_dagster.base import escapes

if TYPE_CHECKING:
    from rlhi_dagster.conversations.inspection import Inspection

_MOST_SHOWN = 8


def add_parser(commands: Any) -> None:
    """Add ``inspect`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "inspect",
        help="say what a log file or folder holds and what would be rejected, before any run",
        description="Layout, columns, rows, conversations, users, months, languages, explicit feedback, what would be quarantined with an "
        "example of each, and the section of a profile to paste. Of a large source a part is looked at, and that is said. No text of a "
        "message is shown.",
    )
    parser.add_argument("location", metavar="LOCATION", help="file, folder, pattern or hf:// path")
    parser.add_argument("--json", action="store_true", help="what was found as JSON, without the section of a profile")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: There is nothing at the location, or its layout is not known.
    """
    from rlhi_dagster.base.language_id import detected
    from rlhi_dagster.conversations.inspection import inspect

    found = inspect(given.location, lambda texts: [detected(" ".join(each.split()))[0] for each in texts])
    return as_json(found) if given.json else text(found)


def as_json(found: Inspection) -> str:
    """What was found, for a program: the attributes of `Inspection`."""
    told = asdict(found) | {"feedback": [{"kind": kind, "giver": giver, "rows": n} for (kind, giver), n in found.feedback.items()]}
    return json.dumps(told, indent=1, default=str)


def text(found: Inspection) -> str:
    """What was found, for a terminal."""
    users, named = found.users
    rows = f"{'about ' if found.is_rows_estimated else ''}{found.rows:,}"
    part = (
        "all of them looked at" if found.looked_at == found.rows else f"{found.looked_at:,} of them looked at, on which the rest is based"
    )
    rejected = sum(count for count, _ in found.quarantined.values())
    lines = [
        ("layout", f"{found.title} ({found.kind})"),
        ("files", found.files),
        ("rows", f"{rows}; {part}"),
        (
            "conversations",
            f"{found.accepted:,} accepted, {rejected:,} rows quarantined, {sum(found.superseded.values()):,} rows superseded",
        ),
        ("columns read", ", ".join(found.columns_used) or "none"),
        ("not read", _first(found.columns_unused) or "none"),
        ("users", f"{users:,}; {named:,} rows name one" + ("" if named else ": every conversation counts as a user of its own")),
        ("months", _months(found)),
        ("models", _counts(found.models) or "no row says which model replied"),
        ("languages", _counts(found.languages) or "no message to tell from"),
        ("feedback", _counts({f"{kind} by {giver}": n for (kind, giver), n in found.feedback.items()}) or "none"),
    ]
    out = [f"{name:<14}{said}" for name, said in lines]
    if found.columns_in_doubt:
        doubted = ", ".join(found.columns_in_doubt)
        out += ["", f"These columns look like a time or a user and are not read: {doubted}. If one is, name it under"]
        out.append("`fields` in the profile.")
    if found.superseded:
        out += ["", "superseded, because", *(f"  {count:>8,}  {cause}" for cause, count in found.superseded.items())]
    if found.quarantined:
        out += ["", "would be quarantined"]
        out += [f"  {count:>8,}  {reason:<24}such as {example}" for reason, (count, example) in found.quarantined.items()]
    return escapes.lines([*out, "", "for a profile:", "", *_section(found)])


def _months(found: Inspection) -> str:
    missing = f"{found.is_time_missing:,} conversations without a time"
    if not found.months:
        return missing
    first, last = min(found.months), max(found.months)
    span = f"{first} to {last} ({len(found.months)} with conversations)" if first != last else first
    return f"{span}; {missing}" if found.is_time_missing else span


def _section(found: Inspection) -> list[str]:
    first = min(found.months, default="2023-01")
    part = "" if found.looked_at == found.rows else "                # of the rows that were looked at"
    lines = [
        "extends: laptop",
        f'first_month: "{first}"{part}',
        "source:",
        "  name: my-logs",
        f"  kind: {found.kind}",
        f"  location: {_quoted(found.location)}",
        f"  assumed_start: {first}-01T00:00:00Z    # of conversations without a time",
    ]
    if sum(found.models.values()) < found.accepted:
        lines.append("  assumed_model: unknown              # of rows that do not say which model replied")
    return lines


def _quoted(location: str) -> str:
    """A string of YAML; one in double quotes where a character must be escaped."""
    return "'" + location.replace("'", "''") + "'" if location.isprintable() else json.dumps(location)


def _counts(counted: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counted.items())[:_MOST_SHOWN]]
    return ", ".join([*shown, *([f"{len(counted) - _MOST_SHOWN:,} more"] if len(counted) > _MOST_SHOWN else [])])


def _first(names: tuple[str, ...]) -> str:
    more = len(names) - 2 * _MOST_SHOWN
    return ", ".join(names[: 2 * _MOST_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
