"""Battles of two models: Chatbot Arena's conversations, the arena-human-preference data sets, Search Arena, MT-bench's judgements.

What belongs here: the two sides of a row and who won. What does not: lists of messages (``layouts.messages``).

The conversation is the winner's (side A's if there is none). Where both sides say the same up to a reply, the loser's reply there is the
one that was not chosen; later turns follow different replies, and a tie chooses nothing. Votes of one evaluation session
(``evaluation_session_id``) follow each other as one conversation, with other models each.

The user is the judge where that is the person who chatted; choices of MT-bench's experts are staff's, and of models that judge, a model's.
In the largest data sets (55k, 140k) nobody is named. There are no thumbs, comments or edits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rlhi_dagster.conversations.sources import cells
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Giver, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_SIDES = ("conversation", "messages", "response")
"""Names of the columns of both sides, before ``_a`` and ``_b``."""
_STAFF, _MODEL = re.compile(r"(expert|author|annotator|staff)"), re.compile(r"(gpt|claude|gemini|llama|llm)|.*_pair$")


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    record = messages.fields(row, settings)
    judge = next((found for name in ("judge", "judge_hash") if (found := messages.shared_key(row, name))), None)
    giver = _giver(judge)
    if giver is Giver.END_USER:
        record.user_key = record.user_key or judge
    if SourceField.TOXIC not in settings.fields and record.is_toxic is None:
        record.is_toxic = cells.field(row, "openai_moderation.flagged", cells.flag)
    winner = _winner(row)
    side, other = ("b", "a") if winner == "b" else ("a", "b")
    record.model = cells.field(row, f"model_{side}", cells.key)
    name = record.conversation_id or messages.shared_key(row, "question_id")
    session = messages.shared_key(row, "evaluation_session_id")
    record.group = session or f"{place.file}#{place.number}"  # battles of different people can begin alike
    record.conversation_id = session or name
    if giver is not Giver.END_USER and name is not None:  # many judgements of one conversation
        name = record.conversation_id = f"{name}/{record.model}"
    name = name or record.group
    record.messages = [message._replace(id=f"{name}/{number}") for number, message in enumerate(_side(row, side))]
    if winner is not None:
        given = record.started_at
        record.feedback = [
            Feedback(kept.id, FeedbackKind.CHOICE, text=left.text, given_at=given, giver=giver)
            for kept, left in _choices(record.messages, _side(row, other))
        ]
    return record


def _side(row: Mapping[str, Any], side: str) -> list[Message]:
    """The messages of a side; of the 55k battles, prompts and responses take turns."""
    column = next((name for name in _SIDES if f"{name}_{side}" in row), _SIDES[0])
    value = parsed(row.get(f"{column}_{side}"))
    if column == "response" and "prompt" in row:
        asked, said = (each if isinstance(each, list) else [each] for each in (parsed(row["prompt"]), value))
        turns = [(("user", question), ("assistant", reply)) for question, reply in zip(asked, said, strict=False)]
        value = [{"role": role, "content": text} for turn in turns for role, text in turn]
    try:
        return messages.message_list(value)
    except MistypedError as error:
        raise MistypedError(f"{column}_{side}: {error}") from None


def _choices(kept: list[Message], left: list[Message]) -> Iterator[tuple[Message, Message]]:
    """The reply of either side where the dialogue is the same up to it and they differ there."""
    for chosen, other in zip(kept, left, strict=False):
        if chosen.role != other.role or chosen.text != other.text:
            if chosen.role == other.role == "assistant" and chosen.text.strip() and other.text.strip():
                yield chosen, other
            return


def _winner(row: Mapping[str, Any]) -> str | None:
    """``a`` or ``b``; None for a tie, and where both were bad or nobody voted."""
    winner = (cells.field(row, "winner", cells.key) or "").strip().lower()
    for side in "ab":
        if cells.field(row, f"winner_model_{side}", cells.flag) or winner in (f"model_{side}", side):
            return side
    return None


def _giver(judge: str | None) -> Giver:
    name = (judge or "").lower()
    return Giver.STAFF if _STAFF.match(name) else Giver.MODEL if _MODEL.match(name) else Giver.END_USER


LAYOUT = Layout(
    SourceKind.ARENA,
    title="Battles of two models: Chatbot Arena, arena-human-preference, MT-bench",
    needs="model_a, model_b, and conversation_a and conversation_b (or messages_a …, or prompt and response_a …)",
    fits=lambda row: (
        messages.has(row, "model_a", "model_b")
        and any(messages.has(row, f"{name}_a", f"{name}_b") for name in _SIDES)
        and ("response_a" not in row or "prompt" in row)
    ),
    read=_read,
    assembly=Assembly.SESSION,
)
