"""Sessions of Codex: ``~/.codex/sessions/…/rollout-*.jsonl``, also those of 2025 whose lines have no ``payload``.

What belongs here: which lines are anybody's words, and whose. What does not: the text of messages (``parts``).

A file is a session and its lines follow each other. Messages are counted once, as ``response_item``; ``event_msg`` repeats them. What the
program puts into the user's role (environment, instructions, context of an editor) is not the user's words, and commentary is not the
answer.

There is no feedback, and no user id: the user is the home folder that the session ran in, so people of one name on different machines need
folders ``user=…``. Turns that the user rolled back are read like any other, and so are sessions of sub-agents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources import cells, parts
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.parts import Said
from rlhi_dagster.conversations.sources.records import Assembly, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

SETTINGS = "settings of a session, no message"
EVENT = "an event, no message"
REPEATED = "an event that repeats a message"
INSERTED = "context that the program put in"
COMMENTARY = "commentary on the way to an answer"

_LINES = ("session_meta", "response_item", "event_msg", "turn_context", "compacted")
_INSERTED = parts.Inserted.of(
    "environment_context|user_instructions|turn_aborted|user_shell_command|subagent_notification|user_action|skill|hook_prompt|instructions"
    "|permissions instructions|collaboration_mode|personality_spec|[a-z]+_instructions",
    re.compile(
        r"</?image\b[^<>]*>"
        r"|\A\s*# AGENTS\.md instructions.*?(?:</INSTRUCTIONS>|\Z)"
        r"|\A\s*# .*?^## My request for Codex:\s*"
        r"|\A\s*Another language model started to solve this problem and produced a summary.*",
        re.DOTALL | re.MULTILINE | re.IGNORECASE,
    ),
)


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    if "payload" in row:
        kind, body = row.get("type"), parsed(row["payload"])
    else:
        kind, body = "response_item" if "type" in row else "event_msg" if "record_type" in row else "session_meta", row
    if not isinstance(body, Mapping):
        raise MistypedError("payload: no object")
    sent_at = messages.sent_at(row)
    is_settings = kind in ("session_meta", "turn_context")
    record = Record(
        conversation_id=messages.shared_key(body, "id") if kind == "session_meta" else None,
        group=place.file,
        user_key=messages.user(row, settings) or (cells.home(body.get("cwd")) if is_settings else None),
        started_at=None if sent_at == messages.NO_TIME else sent_at,
        model=messages.shared_key(body, "model") if is_settings else None,
    )
    said = SETTINGS if is_settings else _said(kind, body)
    if isinstance(said, str):
        record.note = said
    else:
        record.messages = [Message(*said, sent_at)]
    return record


def _said(kind: Any, body: Mapping[str, Any]) -> Said | str:
    """Who says what, or why the line says nothing."""
    what = body.get("type")
    if kind != "response_item":
        return REPEATED if what in ("user_message", "agent_message", "agent_reasoning") else EVENT
    if what != "message":
        said = parts.said("assistant", [body])
        return said if said.text and isinstance(what, str) and what.endswith(("_call", "_output")) else EVENT
    if body.get("phase") == "commentary":
        return COMMENTARY
    if not isinstance(body.get("role"), str):
        raise MistypedError("role: no text")
    content = parts.listed(body.get("content"))
    said = parts.said(body["role"], content, body)
    if said.role != "user":
        return said
    said = parts.said("user", parts.cleared(content, _INSERTED))
    return said if said.text.strip() else INSERTED


def _fits(row: Mapping[str, Any]) -> bool:
    if "payload" in row:
        return row.get("type") in _LINES and isinstance(parsed(row["payload"]), Mapping)
    return messages.has(row, "id", "timestamp", "instructions") or row.get("record_type") == "state"


LAYOUT = Layout(
    SourceKind.CODEX,
    title="Sessions of Codex (~/.codex/sessions)",
    needs="type (session_meta, response_item, event_msg or turn_context), payload",
    fits=_fits,
    read=_read,
    assembly=Assembly.TREE,
)
