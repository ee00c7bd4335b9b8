"""Open WebUI: exported chats, its table ``chat_message``, and ratings exported by an administrator.

What belongs here: where Open WebUI keeps what a message says, and what users say about it. What does not: paths through trees and the
replies beside them (``assembly``).

A chat has its messages in a tree (``chat.history``), older ones only the branch shown (``chat.messages``); newer versions keep them in a
table, too. A rating comes with the chat as it was then. All of these may be in one source: they are one conversation by the chat's id, in
its latest state. A chat that was shared is there twice; the copy is left out.

Siblings are replies that were asked for anew, or prompts that were edited; answers of several models to one prompt stand side by side
(``modelIdx``), and going on from one of them is a choice. In the arena, where models are hidden, a thumb is a vote between such replies,
regenerated ones too. A thumb has its reason as text; a comment and a rating of one to ten are feedback of their own. Tags name the topic
of the chat, mostly by a model, and are not read. A reply that the user has edited is there as the model wrote it (``originalContent``),
and the edit is feedback; the table of messages alone has neither the text before an edit nor thumbs nor which answers stood side by side.

An error in place of a reply is no reply and has no text here. A reply that is not done stays, for the user saw it, but it is not preferred
to another nor another to it. Thoughts and tool calls, which Open WebUI writes into the text as ``<details>``, are treated like those of
others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rlhi_dagster.conversations.sources import cells, parts
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.columns import MESSAGE_TIME
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

_OF_A_MESSAGE = ("chat_id", "role", "parent_id", "content")
_RATING, _SHARED_COPY = "a rating", "a copy of a chat for those whom it was shared with"
_THOUGHTS = re.compile(r'<details\b[^<>]*\btype="reasoning".*?(?:</details>\s*|\Z)', re.DOTALL)
_TOOL = re.compile(r'<details\b[^<>]*?\btype="(tool_calls|code_interpreter)"(?:[^<>]*?\bname="([^"]*)")?.*?(?:</details>|\Z)', re.DOTALL)


def _fits(row: Mapping[str, Any]) -> bool:
    return _is_rating(row) or messages.has(row, *_OF_A_MESSAGE) or _chat(row) is not None


def _is_rating(row: Mapping[str, Any]) -> bool:
    return row.get("type") == "rating" and "meta" in row and isinstance(parsed(row.get("data")), Mapping)


def _chat(row: Any) -> Mapping[str, Any] | None:
    """What a chat consists of: under ``chat``, or, as older exports have it, the row itself."""
    chat, history = parsed(cells.at(row, "chat")), parsed(cells.at(row, "history"))
    if isinstance(chat, Mapping) and ("history" in chat or "messages" in chat):
        return chat
    return row if isinstance(history, Mapping) and messages.has(history, "messages", "currentId") else None


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    if _is_rating(row):
        return _rating(row, settings, place)
    if messages.has(row, *_OF_A_MESSAGE):
        return _table_row(row, settings)
    return _whole_chat(row, settings, place)


def _whole_chat(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    chat = _chat(row) or {}
    record = messages.fields(row, settings)
    record.conversation_id = record.conversation_id or messages.shared_key(chat, "id")
    record.group = record.conversation_id or f"{place.file}#{place.number}"
    record.written_at = messages.sent_at({"time": row.get("updated_at")})
    if (record.user_key or "").startswith("shared-"):
        return Record(started_at=record.started_at, note=_SHARED_COPY)
    said = {messages.shared_key(value, "id") or "": value for value in _values(chat, record.group)}
    record.messages = [_message(value, said) for value in said.values()]
    record.current = messages.shared_key(chat, "history.currentId")
    models = [_model(said[record.current])] if record.current in said else []
    models += [_model(value) for value in reversed(said.values())]
    named = chat.get("models")
    models += [cells.key(name) for name in named if isinstance(name, str)] if isinstance(named, list) else []
    record.model = record.model or next(filter(None, models), None)
    record.feedback = [given for name, value in said.items() for given in _feedback(name, value, record.messages)]
    return record


def _values(chat: Mapping[str, Any], group: str) -> Iterator[Mapping[str, Any]]:
    """Messages, each with an id. Those of a plain list follow each other, unless they name the message before them."""
    tree = parsed(cells.at(chat, "history.messages"))
    if isinstance(tree, Mapping) and tree:
        for name, each in tree.items():
            value = parsed(each)
            if not isinstance(value, Mapping | None):
                raise MistypedError("chat.history.messages: an entry is no message")
            if value is not None and any(field is not None for field in value.values()):  # a table has the ids of all chats as columns
                yield {**value, "id": messages.shared_key(value, "id") or name}
        return
    listed = parsed(chat.get("messages"))
    if not isinstance(listed, list | None):
        raise MistypedError("chat.messages: no list")
    last: str | None = None
    is_linked = any(cells.at(each, "parentId") is not None for each in listed or ())
    for number, value in enumerate(map(parsed, listed or ())):
        if not isinstance(value, Mapping):
            raise MistypedError(f"chat.messages.{number}: no message")
        before, last = last, messages.shared_key(value, "id") or f"{group}#{number}"
        yield {**value, "id": last, "parentId": value.get("parentId") if is_linked else before}


def _table_row(row: Mapping[str, Any], settings: SourceSettings) -> Record:
    """A row of the table of messages, whose id is that of the chat and that of the message."""
    record = messages.fields({name: value for name, value in row.items() if name not in MESSAGE_TIME}, settings)
    record.conversation_id = record.group = messages.shared_key(row, "chat_id")
    message = _message({**row, "content": _unquoted(row["content"])}, {})
    name, parent = (each and each.removeprefix(f"{record.group}-") for each in (message.id, message.parent))
    record.messages = [message._replace(id=name, parent=parent)]
    record.started_at = messages.believed(message.sent_at)
    record.model = _model(row)
    return record


def _unquoted(content: Any) -> Any:
    """The content of a column of JSON that was written as text."""
    found = parsed(content) if isinstance(content, str) and content.startswith(('"', "[")) else content
    is_parts = isinstance(found, list) and all(isinstance(part, Mapping) and "type" in part for part in found)
    return found if is_parts or isinstance(found, str) else content


def _rating(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    data, meta = parsed(row["data"]), parsed(row["meta"])
    if data.get("rating") is not None and _number(data["rating"]) is None:
        raise MistypedError("data.rating: no number")
    given_at = messages.believed(messages.sent_at(row))
    snapshot = cells.at(row, "snapshot.chat")
    record = Record(note=_RATING, started_at=given_at)
    if isinstance(snapshot, Mapping) and _chat(snapshot) is not None:
        record = _whole_chat(snapshot, settings, place)
        record.note = None if record.messages else _RATING
    record.conversation_id = messages.shared_key(meta, "chat_id") or record.conversation_id
    record.group = record.conversation_id or f"{place.file}#{place.number}"
    record.user_key = record.user_key or messages.shared_key(row, "user_id")
    record.written_at = record.written_at or given_at
    target = messages.shared_key(meta, "message_id")
    record.feedback = list(_rated(target, data, given_at))
    if cells.at(meta, "arena") is True:
        record.feedback += _votes(target, _number(data.get("rating")), record.messages or [], given_at)
    return record


def _message(value: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> Message:
    is_error = cells.is_set(value.get("error"))
    is_whole = not is_error and value.get("done") not in (False, "false", "False", "0")
    shown = _shown(value, "content") or parsed(value.get("output"))
    content = "" if is_error else [_shown(value, "originalContent") or shown, *parts.attached(parsed(value.get("files")))]
    message = messages.message({**value, "content": content})
    if message.role != "assistant":
        return message
    asked = cells.at(others.get(message.parent or ""), "models")
    is_among = isinstance(asked, list) and _model(value) in asked
    slot = _number(value.get("modelIdx")) or (asked.index(_model(value)) if is_among else 0)
    return message._replace(is_whole=is_whole, slot=f"{slot:.0f}" if slot else None)


def _shown(value: Mapping[str, Any], name: str) -> Any:
    """The content of a message; of a reply, as it is shown."""
    content = value.get(name)
    if value.get("role") == "assistant" and isinstance(content, str):
        shown = _TOOL.sub(lambda call: f"[tool call: {call[2] or call[1]}]", _THOUGHTS.sub("", content))
        return content if shown == content else shown.strip()
    return content


def _model(value: Mapping[str, Any]) -> str | None:
    """The model that replied; in the arena, the one that was hidden behind another name."""
    names = ("selectedModelId", "model", "model_id") if value.get("role") == "assistant" else ()
    return next(filter(None, (messages.shared_key(value, name) for name in names)), None)


def _feedback(name: str, value: Mapping[str, Any], said: Sequence[Message]) -> Iterator[Feedback]:
    """What a user says about a message, within the chat: ``rating`` in old versions."""
    rated = parsed(value.get("annotation"))
    rated = rated if isinstance(rated, Mapping) else {"rating": value.get("rating")}
    yield from _rated(name, rated)
    if value.get("arena") is True:
        yield from _votes(name, _number(rated.get("rating")), said)
    original, edited = _shown(value, "originalContent"), _shown(value, "content")
    if original and edited and original != edited and value.get("role") == "assistant":
        yield Feedback(name, FeedbackKind.EDIT, text=parts.text_of(edited))


def _rated(target: str | None, rated: Mapping[str, Any], given_at: datetime | None = None) -> Iterator[Feedback]:
    rating, details = _number(rated.get("rating")), _number(cells.at(rated, "details.rating"))
    if rating:
        yield Feedback(target, FeedbackKind.THUMB, 1.0 if rating > 0 else -1.0, messages.shared_key(rated, "reason"), given_at)
    if details is not None:
        yield Feedback(target, FeedbackKind.RATING, details, given_at=given_at)
    if (comment := messages.shared_key(rated, "comment")) is not None:
        yield Feedback(target, FeedbackKind.COMMENT, text=comment, given_at=given_at)


def _votes(target: str | None, rating: float | None, said: Sequence[Message], given_at: datetime | None = None) -> Iterator[Feedback]:
    """A thumb in the arena: the reply is better, or worse, than each of its siblings."""
    rated = next((each for each in said if each.id == target), None)
    if rated is None or rated.parent is None or not rating:
        return
    for other in said:
        if other.parent == rated.parent and other.id != target and all(each.is_whole and each.text.strip() for each in (rated, other)):
            better, worse = (rated, other) if rating > 0 else (other, rated)
            yield Feedback(better.id, FeedbackKind.CHOICE, text=worse.text, given_at=given_at)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str | Decimal) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


LAYOUT = Layout(
    SourceKind.OPEN_WEBUI,
    title="Open WebUI: chats, messages and ratings",
    needs="chat with history or messages; or chat_id, role, parent_id, content; or type rating with data, meta, snapshot",
    fits=_fits,
    read=_read,
    assembly=Assembly.TREE,
)
