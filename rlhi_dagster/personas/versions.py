"""What both writers make: versions of lines with their citations, and what was dropped on the way.

What belongs here: the vocabulary that writers share. What does not: how a line comes about (``extractive``, ``chat_writer``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import PERSONAS

MAX_EVIDENCE = 8
"""Most messages that a version cites: the latest."""

EXTRACTIVE = "extractive"
CORRECTION = "correction"
"""Writers that are no model: `PERSONAS.writer`."""


class Dropped(StrEnum):
    """Why a line, a citation, a message or a whole answer did not come in."""

    LINE_GAVE_WAY = "line_gave_way"
    """There would have been more than `max_lines`."""
    LINE_TOO_LONG = "line_too_long"
    LINE_EMPTY = "line_empty"
    LINE_REPEATED = "line_repeated"
    """The user has the same line in another slot, or a line was revised or withdrawn twice."""
    LINE_UNKNOWN = "line_unknown"
    """A model revised or withdrew a line that there is not."""
    LINE_IN_ANOTHER_LANGUAGE = "line_in_another_language"
    LINE_WITHOUT_CITATION = "line_without_citation"
    """No citation of it was left."""
    CITATION_NOT_VERBATIM = "citation_not_verbatim"
    """The quoted words are not in the message."""
    CITATION_UNKNOWN = "citation_unknown"
    """There is no message of that number."""
    CITATION_REPEATED = "citation_repeated"
    """The line cites the message already."""
    MESSAGE_NOT_SHOWN = "message_not_shown"
    """An update had more messages than a model is shown."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A message that supports a line.

    Attributes:
        turn_id: The user message.
        quote: Its words that do, verbatim; ``None`` where the whole message does.
    """

    turn_id: str
    quote: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """What came of writing.

    Attributes:
        lines: Rows of ``tables.PERSONAS``.
        dropped: How often each reason of ``Dropped`` occurred; of answers that are errors, ``answer_`` and the reason.
    """

    lines: pl.DataFrame
    dropped: Mapping[str, int]


def version(
    user_id: str,
    slot: str,
    line: str,
    validity: tuple[datetime, datetime | None],
    citations: Sequence[Citation],
    writer: str,
    call_id: str | None = None,
) -> dict[str, Any]:
    """A row of ``tables.PERSONAS``; ``validity`` is `valid_from` and `valid_until`."""
    return {
        "persona_line_id": line_id(user_id, slot, line, validity[0]),
        "user_id": user_id,
        "slot": slot,
        "line": line,
        "valid_from": validity[0],
        "valid_until": validity[1],
        "evidence": [citation.turn_id for citation in citations],
        "quotes": [citation.quote for citation in citations],
        "writer": writer,
        "call_id": call_id,
    }


def table(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as ``tables.PERSONAS`` declares them."""
    return PERSONAS.conform(pl.DataFrame(list(rows), schema=PERSONAS.schema))


def line_id(user_id: str, slot: str, line: str, valid_from: datetime) -> str:
    """Digest of what makes a version of a line: 20 hexadecimal digits."""
    parts = (user_id, slot, line, valid_from.isoformat())
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:20]
