"""How much could be reached: the score of a policy that heeds all that is known of a user, where the truth is known.

What belongs here: that policy's chance of meeting every preference of a request, from what users want (handed in), and its mean as a row
beside the scores. What does not: the truth about simulated users (``simulation``) and who judges (``roles``).

Take the town, whose users have four preferences of two values each. Of a user whose persona has three true lines the policy guesses one
preference and is right half the time: 0.5. Where a line is false it is never right: 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.base.tables import SCORES
from rlhi_dagster.evaluation import Metric
from rlhi_dagster.evaluation.power import told
from rlhi_dagster.feedback import Aspect
from rlhi_dagster.feedback.aspects import LINES, requests

CEILING = "heeds all that is known of the user, and guesses the rest"
"""What the policy does whose score the ceiling is."""
_LINE = "- "
_SAID = {line: (aspect, value) for aspect, lines in LINES.items() for value, line in lines.items()}


def ceiling(items: pl.DataFrame, wanted: Mapping[str, Mapping[Aspect, str]], choices: Mapping[Aspect, Sequence[str]]) -> pl.DataFrame:
    """Share of first requests in which a policy meets every preference that heeds what it is told and guesses the rest.

    It heeds the lines of the persona that an item shows, and what the request itself asks for, which goes before; of every other preference
    it takes each value that a user can want equally often. A line that names no aspect of an answer in this project's words tells it
    nothing; such lines are counted in ``remark``, because a model may understand them.

    Follow-ups are left out: there the history says what a persona does not.

    Args:
        items: ``EVAL_PROMPTS``; all of them have a user whose preferences are known.
        wanted: By ``prompt_id``, what the user wants of a reply then.
        choices: The values that can be wanted, for every aspect.

    Returns:
        ``SCORES`` without ``recipe`` and ``judge``, a row for each benchmark that has first requests.
    """
    rows = []
    for (benchmark,), group in items.filter(pl.col("turn") == 1).sort("prompt_id").group_by("benchmark", maintain_order=True):
        chances = [_chance(heeded(item), wanted[item["prompt_id"]], choices) for item in group.iter_rows(named=True)]
        found = told(estimate(chances, group["user_id"], is_share=True))
        lines = [line for persona in group["persona"] for line in _lines(persona)]
        if unread := sum(line not in _SAID for line in lines):
            counted = f"{unread:,} of {len(lines):,} persona lines name no aspect of an answer and count as saying nothing"
            found["remark"] = "; ".join(filter(None, (found["remark"], counted)))
        rows.append({"benchmark": benchmark, "metric": Metric.ALL_PREFERENCES_MET_CEILING.value} | found)
    schema = {name: dtype for name, dtype in SCORES.schema.items() if name not in ("recipe", "judge")}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("benchmark")


def heeded(item: Mapping[str, Any]) -> dict[Aspect, str]:
    """What an item says about the reply that is wanted: its persona's lines, then the request."""
    from_persona = dict(_SAID[line] for line in _lines(item["persona"]) if line in _SAID)
    return from_persona | {asked.aspect: asked.value for asked in requests(item["prompt"][-1]["content"])}


def _lines(persona: str) -> list[str]:
    return [line.removeprefix(_LINE) for line in persona.split("\n") if line.startswith(_LINE)]


def _chance(known: Mapping[Aspect, str], wanted: Mapping[Aspect, str], choices: Mapping[Aspect, Sequence[str]]) -> float:
    return math.prod(float(known[aspect] == value) if aspect in known else 1 / len(choices[aspect]) for aspect, value in wanted.items())
