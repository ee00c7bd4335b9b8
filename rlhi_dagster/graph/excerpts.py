"""Rows of a table as a person would read them, on the page of its asset.

What belongs here: which columns of which table are for reading, and how three rows are set. What does not: Markdown and its escaping
(``graph/metadata.py``).

Only of simulated users. Dagster's event log keeps what is shown for ever, ``rlhi forget`` could not take a person's words out of it, and so
no word of a real user comes into it: of those ``rlhi why`` and ``rlhi example`` show what the lake has.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster.base.lake import Staged
from rlhi_dagster.graph.metadata import markdown_table

_PAIR = {"persona": "persona", "prompt": "request", "chosen": "chosen", "rejected": "rejected"}
READ: Mapping[str, Mapping[str, str]] = {
    "turns": {"prompt": "request", "reply": "reply"},
    "explicit_feedback": {"giver": "by", "kind": "kind", "value": "value", "text": "words"},
    "unmet_wishes": {"topic": "topic", "wish": "wish"},
    "wildllamachat": {"prompt": "request", "reply": "reply", "follow_up": "follow-up"},
    "personas": {"slot": "about", "line": "line", "quotes": "because of"},
    "rewrites": {
        "strategy": "strategy",
        "persona": "persona",
        "prompt": "request",
        "feedback": "follow-up",
        "rewrite": "chosen",
        "original": "rejected",
    },
    "rewrite_pairs": {"strategy": "strategy", **_PAIR},
    "explicit_pairs": {"kind": "kind", **_PAIR},
    "candidates": {"persona": "persona", "prompt": "request", "reply": "reply"},
    "reward_pairs": {"condition": "condition", **_PAIR},
    "reasoning_errors": {"problem": "problem", "solution": "solution", "feedback": "follow-up"},
    "reasoning_pairs": {"prompt": "problem", "chosen": "chosen", "rejected": "rejected"},
    "preference_pairs": {"source": "source", **_PAIR},
    "thumb_examples": {"source": "source", **_PAIR},
    "follow_up_examples": {"source": "source", "persona": "persona", "prompt": "request", "reply": "reply", "follow_up": "follow-up"},
    "online_pairs": _PAIR,
    "eval_prompts": {"benchmark": "benchmark", "persona": "persona", "prompt": "request"},
    "responses": {"recipe": "recipe", "benchmark": "benchmark", "reply": "reply"},
}
"""Of each table the columns for reading, in the order of reading, and what they are called there."""

ROWS = 3
_WIDTH, _LINES = 40, 6
"""Characters of a line, and lines of a text; a table of that width fits on the page of an asset."""


def excerpts(table: str, value: pl.DataFrame | Staged) -> dict[str, dg.MarkdownMetadataValue]:
    """The first rows of a table that say something in every column, of pairs those that are kept; nothing if no column is for reading."""
    if table not in READ:
        return {}
    rows = value.lazy() if isinstance(value, pl.DataFrame) else value.scan()
    columns = READ[table]
    if "is_kept" in rows.collect_schema():
        rows = rows.filter("is_kept")
    told = rows.filter(pl.all_horizontal(pl.col(name).is_not_null() for name in columns)).select(*columns).head(ROWS).collect()
    lines = [
        (f"{number} {columns[name]}" if first else "", line)
        for number, row in enumerate(told.iter_rows(named=True), 1)
        for name in columns
        for first, line in _lines(row[name])
    ]
    return {"examples": markdown_table(pl.DataFrame(lines, schema={"": pl.String(), "text": pl.String()}, orient="row"), len(lines))}


def _lines(value: Any) -> list[tuple[bool, str]]:
    """A value in lines, each with whether it is the first."""
    wrapped = textwrap.wrap(" ".join(_text(value).split()), _WIDTH, max_lines=_LINES, placeholder=" …") or ["–"]
    return [(number == 0, line) for number, line in enumerate(wrapped)]


def _text(value: Any) -> str:
    """A value as text; of messages the last one, and how many came before."""
    if not isinstance(value, list):
        return str(value)
    if value and isinstance(value[-1], dict) and "content" in value[-1]:
        earlier = f" (after {len(value) - 1:,} earlier messages)" if len(value) > 1 else ""
        return f"{value[-1]['content']}{earlier}"
    return "; ".join(map(str, value))
