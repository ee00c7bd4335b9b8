"""From a user's message to what was made of it: its label, its wish and topic as a complaint, the persona lines that rest on it.

What belongs here: the facts of a message, and which rows belong to it. What does not: finding rows (``lookup``), the model calls
(``calls``), and words for the terminal (``words``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.provenance import Call, PersonaLine
from rlhi_dagster.provenance.calls import Deed, calls
from rlhi_dagster.provenance.lookup import Row, Rows
from rlhi_dagster.provenance.pairs import persona_lines

AROUND = 2
"""Messages of the user before and after it; the conversation's first one is shown in any case."""


@dataclass(frozen=True, slots=True)
class Said:
    """A user's message with its label, and the logged reply to it.

    Attributes:
        turn_id: The message.
        turn: Its number in the conversation, from 1.
        asked_at: When it was sent.
        prompt: The message.
        reply: The logged reply.
        label: As labelled; ``None`` if it has no label, as an opening has none.
        probability: The labeller's, of the label.
        span: The words that say what to change.
        labeller: Who labelled.
    """

    turn_id: str
    turn: int
    asked_at: datetime
    prompt: str
    reply: str | None
    label: str | None
    probability: float | None
    span: str | None
    labeller: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """What was made of a user's message.

    Attributes:
        turn_id: The message.
        user_id: Whose it is.
        messages: It, and the messages around it.
        turns: How many messages of the user the conversation has.
        wish: Group by what is wished; ``None`` if the message is no complaint.
        topic: Group of the request that it is about.
        is_resolved: Whether the complaint was settled later; ``None`` if that is not known.
        persona: Lines that rest on the message.
        calls: Model calls, each once.
    """

    turn_id: str
    user_id: str
    messages: list[Said]
    turns: int
    wish: str | None
    topic: str | None
    is_resolved: bool | None
    persona: list[PersonaLine]
    calls: list[Call]


def why_message(lake: Lake, store: Path, turn_id: str) -> Message:
    """What was made of a message.

    Args:
        lake: The tables.
        store: Folder of the response store.
        turn_id: Of ``turns``; a beginning that no other message has is enough.

    Raises:
        ValueError: There is no such message, or there are several.
    """
    rows = Rows(lake)
    found = rows.turn(turn_id)
    said = sorted(rows.of("turns", "conversation_id", [found["conversation_id"]]), key=lambda row: int(row["turn"]))
    near = [row for row in said if row["turn"] == 1 or abs(row["turn"] - found["turn"]) <= AROUND]
    labels = {row["turn_id"]: row for row in rows.of("feedback_labels", "turn_id", [row["turn_id"] for row in near])}
    complaint: Row = rows.one("unmet_wishes", "turn_id", found["turn_id"]) or {}
    lines = rows.citing(found["turn_id"])
    return Message(
        turn_id=found["turn_id"],
        user_id=found["user_id"],
        messages=[_said(row, labels.get(row["turn_id"], {})) for row in near],
        turns=len(said),
        **{name: complaint.get(name) for name in ("wish", "topic", "is_resolved")},
        persona=persona_lines(rows, [line["persona_line_id"] for line in lines], lines),
        calls=calls(store, _named(labels.get(found["turn_id"], {}), complaint, lines)),
    )


def _said(row: Row, label: Row) -> Said:
    return Said(
        turn_id=row["turn_id"],
        turn=row["turn"],
        asked_at=row["asked_at"],
        prompt=row["prompt"],
        reply=row["reply"],
        **{name: label.get(name) for name in ("label", "probability", "span", "labeller")},
    )


def _named(label: Row, complaint: Row, lines: list[Row]) -> Iterator[tuple[str | None, Deed]]:
    """Every call behind what was made of the message, with what it did."""
    yield from zip(label.get("call_ids") or [], (Deed.LABEL, Deed.SPAN), strict=False)
    yield from ((key, Deed.NAME) for key in complaint.get("call_ids") or [])
    yield from ((line["call_id"], Deed.PERSONA) for line in lines)
