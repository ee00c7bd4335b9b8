"""Explicit feedback in a file of its own, which anybody can lay beside logs of any layout.

What belongs here: telling a row of such a file, and what it says. What does not: feedback that a layout has in its own rows (``layouts``),
and which reply a message became (``conversations.explicit_feedback``).

A row has ``conversation_id``, ``message_index`` (0-based, in the source's list of messages) or ``message_id`` (the source's own), ``kind``
and, as the kind needs them, ``value`` and ``text``; ``given_at`` and ``giver`` may be left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from rlhi_dagster.conversations.sources import cells, scores
from rlhi_dagster.conversations.sources.cells import MistypedError
from rlhi_dagster.conversations.sources.records import Feedback, FeedbackKind, Giver, Record

NOTE = "explicit feedback"
"""Why such a row is no part of a conversation."""
_NEED_TEXT = (FeedbackKind.COMMENT, FeedbackKind.EDIT, FeedbackKind.CHOICE)

_Named = TypeVar("_Named", bound=StrEnum)


def fits(names: Collection[str]) -> bool:
    """Whether a row, or a file, with columns of these names is feedback."""
    return "conversation_id" in names and "kind" in names and ("message_index" in names or "message_id" in names)


def place(conversation_id: str, message_index: int) -> str:
    """What names a message by where it is; `Feedback.target` of a row without a ``message_id``."""
    return f"{conversation_id}:{message_index}"


def read(row: Mapping[str, Any]) -> Record:
    """What a row says.

    Raises:
        MistypedError: A value is absent that its kind needs, or is none that can be; the message names the column.
    """
    conversation_id = cells.field(row, "conversation_id", cells.key)
    kind = _one_of(FeedbackKind, row, "kind")
    given_at = cells.field(row, "given_at", cells.time)
    text = row.get("text")
    if text is not None and not isinstance(text, str):
        raise MistypedError("text: no text")
    if kind in _NEED_TEXT and not text:
        raise MistypedError(f"text: none, which {kind} needs")
    giver = Giver.END_USER if cells.at(row, "giver") is None else _one_of(Giver, row, "giver")
    given = Feedback(_target(row, conversation_id), kind, _value(row, kind), text, given_at, giver)
    return Record(conversation_id, started_at=given_at, note=NOTE, feedback=[given])


def _target(row: Mapping[str, Any], conversation_id: str | None) -> str:
    named = cells.field(row, "message_id", cells.key)
    if named is not None:
        return named
    index = cells.field(row, "message_index", cells.key)
    if conversation_id is None or index is None or not index.isdecimal():
        raise MistypedError("message_index: no position in a conversation with a conversation_id, and there is no message_id")
    return place(conversation_id, int(index))


def _value(row: Mapping[str, Any], kind: FeedbackKind) -> float | None:
    given = cells.at(row, "value")
    is_thumb = kind is FeedbackKind.THUMB or (kind is FeedbackKind.REGENERATION and given is not None)
    value = scores.thumb(given) if is_thumb else scores.number(given)
    if value is None and (is_thumb or kind is FeedbackKind.RATING):
        raise MistypedError(f"value: no {'thumb, such as 1 and -1, up and down' if is_thumb else 'number'}")
    return value


def _one_of(names: type[_Named], row: Mapping[str, Any], column: str) -> _Named:
    name = cells.field(row, column, cells.key)
    found = next((each for each in names if name is not None and each.value == name.strip().lower()), None)
    if found is None:
        raise MistypedError(f"{column}: none of {', '.join(names)}")
    return found
