"""LibreChat: its collections of messages and of conversations in MongoDB, and the export of one conversation.

What belongs here: where LibreChat keeps what a message says, and what users say about it. What does not: paths through trees and the
replies beside them (``assembly``).

A message of the database is a row of its own, and names the message before it. A conversation of the database has no text: what it says of
user and model counts where its messages do not say. An exported conversation has its messages in a list or nested (``messagesTree``), and
no user: each is a user of its own. Extended JSON (``{"$oid": …}``, ``{"$date": …}``) is read like plain JSON.

Siblings are replies that were asked for anew, or prompts that were edited. An error message in place of a reply is no reply and has no
text here. A reply that was stopped or broke off stays, for the user saw it and may have answered it, but it is not preferred to another
reply nor another to it. Of answers that several agents give side by side, the first is read. A thumb has its tag as text; what the user
wrote about it is a comment. Edited replies are overwritten, so edits cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhi_dagster.conversations.sources import cells, parts
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.columns import MESSAGE_TIME
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

_ID, _CONVERSATION = "messageId", "conversationId"
_LISTS = ("messages", "messagesTree")
_THUMBS = {"thumbsup": 1.0, "thumbsdown": -1.0}
_UNSAID = ("error", "agent_update")
"""Parts of a reply that are no words of it."""
_OF_A_CONVERSATION = "what is kept of a conversation beside its messages"
_OF_A_SUBAGENT = "a task for a sub-agent"


def _fits(row: Mapping[str, Any]) -> bool:
    if _CONVERSATION not in row:
        return False
    is_message = _ID in row and ("isCreatedByUser" in row or "parentMessageId" in row)
    return is_message or "exportAt" in row or _listed(row) is not None or messages.has(row, "title", "endpoint")


def _listed(row: Mapping[str, Any]) -> list[Any] | None:
    """The messages of an exported conversation; of a conversation in the database, which lists their names only, None."""
    for name in _LISTS:
        listed = parsed(row.get(name))
        if isinstance(listed, list) and (name == "messagesTree" or any(isinstance(each, Mapping) and _ID in each for each in listed)):
            return listed
    return None


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    record = messages.fields({name: value for name, value in row.items() if _ID not in row or name not in MESSAGE_TIME}, settings)
    record.conversation_id = record.group = messages.shared_key(row, _CONVERSATION)
    if _ID in row:
        found = [row]
        record.started_at = messages.believed(messages.sent_at(row))
        if row.get("subagentTask"):
            record.note = _OF_A_SUBAGENT
    else:
        listed = _listed(row)
        if listed is None and "exportAt" not in row:
            record.note = _OF_A_CONVERSATION
            return record
        found = list(_flat(listed or []))
    record.group = record.group or f"{place.file}#{place.number}"
    record.messages = [_message(each) for each in found]
    record.feedback = [given for each in found for given in _feedback(each)]
    by_model = [model for each in found if not _is_users(each) and (model := messages.shared_key(each, "model"))]
    record.model = by_model[-1] if by_model else record.model or messages.shared_key(row, "options.model")
    return record


def _flat(listed: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Messages of a list and of those nested in them, which name the message that they are nested in."""
    waiting = [(each, None) for each in reversed(listed)]
    while waiting:
        value, parent = waiting.pop()
        value = parsed(value)
        if not isinstance(value, Mapping):
            raise MistypedError("messages: an entry is no message")
        yield {"parentMessageId": parent, **value}
        children = parsed(value.get("children"))
        waiting += [(each, value.get(_ID)) for each in reversed(children if isinstance(children, list) else [])]


def _is_users(value: Mapping[str, Any]) -> bool:
    try:
        is_users = cells.flag(value.get("isCreatedByUser"))
    except MistypedError as error:
        raise MistypedError(f"isCreatedByUser: {error}") from None
    return str(value.get("sender", "")).strip().lower() == "user" if is_users is None else is_users


def _message(value: Mapping[str, Any]) -> Message:
    listed = parsed(value.get("content"))
    content = [part for part in listed if not _is_beside(part, listed)] if isinstance(listed, list) else []
    is_error = cells.is_set(value.get("error")) or (bool(content) and all(_type(part) == "error" for part in content))
    is_cut = (
        cells.is_set(value.get("unfinished"))
        or value.get("finish_reason") == "incomplete"
        or any(_type(part) == "error" for part in content)
    )
    content = [part for part in content if _type(part) not in _UNSAID]
    role = "user" if _is_users(value) else "assistant"
    shown = [content if parts.text_of(content) else value.get("text"), *parts.attached(parsed(value.get("files")))]
    return Message(
        role,
        "" if is_error else parts.said(role, shown).text,
        messages.sent_at(value),
        messages.shared_key(value, _ID),
        messages.shared_key(value, "parentMessageId"),
        is_whole=not (is_error or is_cut),
    )


def _type(part: Any) -> str | None:
    return part.get("type") if isinstance(part, Mapping) else None


def _is_beside(part: Any, content: list[Any]) -> bool:
    """Whether a part is of another agent than the first of those that answer side by side."""
    group = part.get("groupId") if isinstance(part, Mapping) else None
    if group is None:
        return False
    agents = [each.get("agentId") for each in content if isinstance(each, Mapping) and each.get("groupId") == group]
    return bool(part.get("agentId") != agents[0])


def _feedback(value: Mapping[str, Any]) -> Iterator[Feedback]:
    given, target = parsed(value.get("feedback")), messages.shared_key(value, _ID)
    if not isinstance(given, Mapping):
        return
    thumb = _THUMBS.get(str(given.get("rating")).strip().lower())
    if thumb is not None:
        yield Feedback(target, FeedbackKind.THUMB, thumb, messages.shared_key(given, "tag"))
    comment = messages.shared_key(given, "text")
    if comment is not None:
        yield Feedback(target, FeedbackKind.COMMENT, text=comment)


LAYOUT = Layout(
    SourceKind.LIBRECHAT,
    title="LibreChat: its database, and exported conversations",
    needs="conversationId with messageId, with messages or messagesTree, or with title and endpoint",
    fits=_fits,
    read=_read,
    assembly=Assembly.TREE,
)
