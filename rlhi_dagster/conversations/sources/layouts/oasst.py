"""OpenAssistant's message trees (OASST1, OASST2): a tree a row (``.trees.jsonl``), or a message a row (``.messages.jsonl``, Parquet).

What belongs here: their fields. What does not: putting messages together, and choosing a path by their ranks (``assembly``).

A tree holds several dialogues; the path of the best ranked messages is kept, and replies that were ranked below those on it are choices of
staff, for volunteers other than the prompter ranked them. Their mean rating of a reply's quality is a rating of staff.

The prompter who began the tree is the user; replies, and later messages of the prompter, may be other people's. The model is that which a
row names, else ``human``: most replies were written by people. There are no end users' thumbs and no edits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rlhi_dagster.conversations.sources import cells
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Giver, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

PEOPLE = "human"
"""Stands for a model where volunteers wrote the replies."""

_TREE, _ROLES = "message_tree_id", ("prompter", "assistant")


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    tree = cells.field(row, _TREE, cells.key)
    if tree is None:
        raise MistypedError(f"{_TREE}: none")
    if "prompt" in row:
        record = _record(tree, list(_below(parsed(row["prompt"]), tree, None)))
        record.model = record.model or PEOPLE
        return record
    return _record(tree, [(row, _message(row, messages.shared_key(row, "message_id"), messages.shared_key(row, "parent_id")))])


def _below(node: Any, name: str, parent: str | None) -> Iterator[tuple[Mapping[str, Any], Message]]:
    """A message and all replies below it; one without an id is named by its place."""
    waiting = [(node, name, parent)]
    while waiting:
        node, name, parent = waiting.pop()
        if not isinstance(node, Mapping):
            raise MistypedError("prompt: no message")
        name = messages.shared_key(node, "message_id") or name
        yield node, _message(node, name, parent)
        replies = parsed(node.get("replies"))
        below = [(parsed(reply), f"{name}/{number}", name) for number, reply in enumerate(replies if isinstance(replies, list) else ())]
        waiting += reversed(below)


def _message(node: Mapping[str, Any], name: str | None, parent: str | None) -> Message:
    rank = node.get("rank")
    is_deleted = node.get("deleted") is True
    is_ranked = isinstance(rank, int | float) and not math.isnan(rank) and not is_deleted
    found = messages.message(node)
    return found._replace(text="" if is_deleted else found.text, id=name, parent=parent, rank=rank if is_ranked else math.inf)


def _record(tree: str, found: list[tuple[Mapping[str, Any], Message]]) -> Record:
    node, message = found[0]
    replies = [(each, said) for each, said in found if said.role == "assistant"]
    model = next((messages.shared_key(each, "model_name") for each, _ in replies), None)
    return Record(
        conversation_id=tree,
        group=tree,
        user_key=messages.shared_key(node, "user_id") if message.parent is None else None,
        started_at=None if message.sent_at == messages.NO_TIME else message.sent_at,
        model=(model or PEOPLE) if replies else None,
        language=messages.shared_key(node, "lang"),
        messages=[said for _, said in found],
        feedback=[
            Feedback(said.id, FeedbackKind.RATING, quality, giver=Giver.STAFF)
            for each, said in replies
            if (quality := _quality(parsed(each.get("labels")))) is not None
        ],
    )


def _quality(labels: Any) -> float | None:
    """The mean rating of quality, from 0 to 1; in Parquet files labels are lists side by side."""
    if not isinstance(labels, Mapping):
        return None
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list):
        quality = next((value for name, value in zip(names, values, strict=False) if name == "quality"), None)
    else:
        quality = cells.at(labels, "quality.value")
    return float(quality) if isinstance(quality, int | float) and math.isfinite(quality) else None


def _fits(row: Mapping[str, Any]) -> bool:
    if "prompt" in row:
        return _TREE in row and isinstance(parsed(row["prompt"]), Mapping)
    return messages.has(row, "message_id", "text") and row.get("role") in _ROLES and (_TREE in row or "parent_id" in row)


LAYOUT = Layout(
    SourceKind.OASST,
    title="OpenAssistant's message trees (OASST1, OASST2)",
    needs="message_tree_id, prompt; or message_id, parent_id, text, role (prompter or assistant)",
    fits=_fits,
    read=_read,
    assembly=Assembly.TREE,
)
