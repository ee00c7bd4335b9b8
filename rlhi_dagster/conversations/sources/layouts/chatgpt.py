"""ChatGPT's data export, unpacked: conversations.json, or conversations-000.json and on, with the files beside them.

What belongs here: the tree of a conversation, and the thumbs and comparisons beside it. What does not: the text of content parts
(``parts``), and choosing a path through the tree (``assembly``).

A conversation is the path to ``current_node``; other replies to a message of the user are replies that the user had made anew. Hidden nodes
(``weight`` 0, custom instructions, context for the model), thoughts and commentary are passed over. ``message_feedback.json`` has thumbs
and comments on messages, ``model_comparisons.json`` choices between two replies.

An export is one person's. Its user is the ``id`` in ``user.json``; without that file, the folder of the export (below the location, or the
location's own name). So exports of several people need a folder each. Replies cannot be edited, and canvases are not in the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from rlhi_dagster.conversations.sources import cells, parts, values
from rlhi_dagster.conversations.sources.assembly import assemble, past
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

OTHER_FILE = "of another file of the export"
FEEDBACK = "feedback on a reply"

_USER_FILE, _USER = "user.json", "user_id"
_HIDDEN_MARKS = ("is_visually_hidden_from_conversation", "is_user_system_message")
_NOT_SAID = ("user_editable_context", "model_editable_context", "thoughts", "reasoning_recap")
_NOT_THE_ANSWER = ("analysis", "commentary")
_RATING, _COMPARED = "rating", "completion_comparison_rating"


def _beside(file: str, name: str) -> Mapping[str, Any]:
    folder = file[: max(file.rfind("/"), file.rfind("\\")) + 1]
    try:
        found = next((value for value in values.read(folder + _USER_FILE) if isinstance(value, dict)), {})
        user = cells.key(found.get("id"))
    except (OSError, ValueError):
        user = None
    return {_USER: user or PurePath(name).parent.as_posix().strip("./") or PurePath(folder).name or None}


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    nodes = _nodes(parsed(row.get("mapping")))
    if nodes is None:
        return _of_other_file(row, place)
    record = messages.fields(row, settings)
    above = {str(child): name for name, node in nodes.items() if isinstance(below := node.get("children"), list) for child in below}
    passed: dict[str, str | None] = {}
    shown, models = [], {}
    for name, node in nodes.items():
        parent = messages.shared_key(node, "parent") or above.get(name)
        message = _message(parsed(node.get("message")), name, parent)
        if message is None:
            passed[name] = parent
        else:
            shown.append(message)
            models[message.id] = messages.shared_key(node, "message.metadata.model_slug")
    record.messages = [message._replace(parent=past(passed, message.parent)) for message in shown]
    record.current = past(passed, messages.shared_key(row, "current_node"))
    (thread, *_) = assemble([(place, record)], Assembly.TREE)
    path = thread.record.messages or []
    slugs = [slug for message in path if message.role == "assistant" and (slug := models.get(message.id))]
    thread.record.model = slugs[-1] if slugs else messages.shared_key(row, "default_model_slug") or record.model
    return thread.record


def _nodes(mapping: Any) -> dict[str, Mapping[str, Any]] | None:
    """The nodes of a tree by their names; of a Parquet file the mapping may be a map, or have every node of the file."""
    if isinstance(mapping, list):
        mapping = dict(each if isinstance(each, tuple) else (messages.shared_key(each, "id"), each) for each in mapping)
    if not isinstance(mapping, Mapping):
        return None
    return {str(name): node for name, value in mapping.items() if isinstance(node := parsed(value), Mapping)}


def _message(message: Any, name: str, parent: str | None) -> Message | None:
    """What a node says; None if it is not shown in the conversation."""
    if not isinstance(message, Mapping):
        return None
    metadata, author = parsed(message.get("metadata")), parsed(message.get("author"))
    is_hidden = isinstance(metadata, Mapping) and any(metadata.get(mark) is True for mark in _HIDDEN_MARKS)
    role = cells.at(author, "role") if isinstance(author, Mapping) else author
    recipient = message.get("recipient")
    is_call = role == "assistant" and isinstance(recipient, str) and recipient not in ("all", "")
    is_aside = message.get("channel") in _NOT_THE_ANSWER and role == "assistant" and not is_call
    kind = cells.at(message, "content.content_type")
    content = message.get("content") if kind is None else parsed(message["content"])
    if is_hidden or is_aside or kind in _NOT_SAID or message.get("weight") in (0, "0", "0.0"):
        return None
    named = author if isinstance(author, Mapping) else None
    said = parts.said(role, {"type": "tool_call", "name": recipient} if is_call else content, named)
    return Message(*said, messages.sent_at(message), name or messages.shared_key(message, "id"), parent)


def _of_other_file(row: Mapping[str, Any], place: Place) -> Record:
    if "current_node" in row or PurePath(place.file).name.startswith("conversations"):
        raise MistypedError("mapping: no object")
    feedback = list(_feedback(row)) if _RATING in row else list(_choice(row))
    return Record(note=FEEDBACK if feedback else OTHER_FILE, feedback=feedback)


def _feedback(row: Mapping[str, Any]) -> Iterator[Feedback]:
    """The thumb of a row of ``message_feedback.json``, with its reasons; a reason alone is a comment."""
    target = next((found for name in ("message_id", "id", "conversation_id") if (found := messages.shared_key(row, name))), None)
    rating = (cells.field(row, _RATING, cells.key) or "").lower()
    said = parsed(row.get("content"))
    tags = said.get("tags") if isinstance(said, Mapping) else None
    words = said.get("text") if isinstance(said, Mapping) else said
    reasons = [each for each in [*(tags if isinstance(tags, list) else ()), words] if isinstance(each, str) and each.strip()]
    value = 1.0 if "up" in rating else -1.0 if "down" in rating else None
    if value is not None or reasons:
        kind = FeedbackKind.COMMENT if value is None else FeedbackKind.THUMB
        yield Feedback(target, kind, value, "\n".join(reasons) or None, cells.field(row, "create_time", cells.time))


def _choice(row: Mapping[str, Any]) -> Iterator[Feedback]:
    """The choice in a row of ``model_comparisons.json``, where one of the two replies was better."""
    for path in ("output.feedback_step_2", "output", "input"):
        step = cells.at(row, path)
        better = step.get(_COMPARED) if isinstance(step, Mapping) else None
        if better in ("new", "original"):
            chosen, left = (_turn(step.get(f"{name}_turn")) for name in ("new", "original")[:: 1 if better == "new" else -1])
            if chosen is not None and left is not None and left.text:
                yield Feedback(chosen.id, FeedbackKind.CHOICE, text=left.text, given_at=cells.field(row, "create_time", cells.time))
            return


def _turn(turn: Any) -> Message | None:
    """The last message of a reply that was compared."""
    found = [_message(parsed(each), "", None) for each in turn] if isinstance(turn, list) else []
    return next((message for message in reversed(found) if message is not None and message.id), None)


def _fits(row: Mapping[str, Any]) -> bool:
    if "mapping" in row:
        nodes = _nodes(parsed(row["mapping"])) or {}
        return any("message" in node and ("parent" in node or "children" in node) for node in nodes.values())
    return messages.has(row, "conversation_id", _RATING) and str(row[_RATING]).lower().startswith("thumb")


LAYOUT = Layout(
    SourceKind.CHATGPT,
    title="ChatGPT's data export (unpacked; a folder a person)",
    needs="mapping (nodes with message, parent and children), current_node; beside it message_feedback.json",
    fits=_fits,
    read=_read,
    beside=_beside,
)
