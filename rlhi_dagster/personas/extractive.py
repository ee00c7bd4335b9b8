"""Persona lines taken from what users said, without a language model.

What belongs here: from messages to versioned lines. What does not: the lexicon (``feedback.aspects``).

A message supports a line if it is a re-attempt with feedback or an opening request, and names how it wants an aspect of the answer.
Each supporting message makes a new version of its aspect's line, valid from that message until the next version. A version cites
the messages of the unbroken run of the same wish up to and with its own, the latest ``MAX_EVIDENCE`` of them; so whatever a version
cites lies at or before ``valid_from``, and it is used strictly after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import polars as pl

from rlhi_dagster.feedback import Aspect, Feedback
from rlhi_dagster.feedback.aspects import requests
from rlhi_dagster.tables import PERSONAS

MAX_EVIDENCE = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """One message's wish about one aspect."""

    user_id: str
    aspect: Aspect
    asked_at: datetime
    turn_id: str
    line: str


def persona_lines(turns: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
    """Build all versions of all users' persona lines.

    Args:
        turns: Rows of ``tables.TURNS``.
        labels: Rows of ``tables.FEEDBACK_LABELS``.

    Returns:
        Rows of ``tables.PERSONAS``. Versions of one user and aspect follow each other without gap or overlap; of wishes with the same
        time stamp the later one in the conversation stands.
    """
    wishes = sorted(_wishes(_speaking(turns.lazy(), labels.lazy())), key=lambda wish: (wish.user_id, wish.aspect))
    rows = [row for _, run in groupby(wishes, key=lambda wish: (wish.user_id, wish.aspect)) for row in _versions(list(run))]
    return PERSONAS.conform(pl.DataFrame(rows, schema=PERSONAS.schema))


def _speaking(turns: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
    """Messages that can support a line, in the order they were sent."""
    feedback = labels.filter(pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value).select("turn_id")
    columns = ["user_id", "asked_at", "conversation_id", "turn", "turn_id", "prompt"]
    opening = turns.filter(pl.col("turn") == 1).select(columns)
    criticism = turns.filter(pl.col("turn") > 1).join(feedback, on="turn_id", how="semi").select(columns)
    return pl.concat([opening, criticism]).sort("user_id", "asked_at", "conversation_id", "turn").collect()


def _wishes(messages: pl.DataFrame) -> Iterator[Wish]:
    for user_id, asked_at, turn_id, prompt in messages.select("user_id", "asked_at", "turn_id", "prompt").iter_rows():
        for request in requests(prompt):
            yield Wish(user_id, request.aspect, asked_at, turn_id, request.line)


def _versions(wishes: list[Wish]) -> Iterator[dict[str, object]]:
    """Versions of one user's line on one aspect, from its wishes in the order of time."""
    moments = [list(same) for _, same in groupby(wishes, key=lambda wish: wish.asked_at)]
    evidence: list[str] = []
    line = ""
    for i, moment in enumerate(moments):
        current = moment[-1]
        evidence = evidence if current.line == line else []
        line = current.line
        evidence = (evidence + [wish.turn_id for wish in moment if wish.line == line])[-MAX_EVIDENCE:]
        yield {
            "persona_line_id": line_id(current.user_id, current.aspect, line, current.asked_at),
            "user_id": current.user_id,
            "aspect": current.aspect.value,
            "line": line,
            "valid_from": current.asked_at,
            "valid_until": moments[i + 1][0].asked_at if i + 1 < len(moments) else None,
            "evidence": evidence,
        }


def line_id(user_id: str, aspect: str, line: str, valid_from: datetime) -> str:
    """Digest of what makes a version of a line: 20 hexadecimal digits."""
    parts = (user_id, aspect, line, valid_from.isoformat())
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:20]
