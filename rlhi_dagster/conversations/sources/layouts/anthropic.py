"""Requests to Anthropic's Messages API and their replies, also of its batches.

What belongs here: recognising them, and users and sessions as Claude Code names them. What does not: reading the two sides
(``layouts.api_requests``) and blocks of content (``parts``).

Results of tools come in the user's role and are not the user's words. The user is ``metadata.user_id`` of the request; a reply by itself
has neither a user nor what was asked. There is no feedback.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.layouts import api_requests, messages, streams
from rlhi_dagster.conversations.sources.records import Assembly, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_CLAUDE_CODE = re.compile(r"(user_.{0,300}?)_session_([\w-]{1,100})")
"""What Claude Code sends as a user: who, and in which session; newer versions say the same in JSON."""


def _fits(row: Mapping[str, Any]) -> bool:
    found = streams.whole(api_requests.sides(row)[1])
    return isinstance(found, Mapping) and found.get("type") == "message" and found.get("role") == "assistant" and "content" in found


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    record = api_requests.read(row, settings, place)
    user, session = _user_and_session(record.user_key)
    if session is not None and SourceField.USER not in settings.fields:
        record.user_key = user
        record.group = record.group or session
        record.conversation_id = record.group
    return record


def _user_and_session(key: str | None) -> tuple[str | None, str | None]:
    said = parsed(key)
    if isinstance(said, Mapping):
        user = messages.shared_key(said, "account_uuid") or messages.shared_key(said, "device_id")
        return user, messages.shared_key(said, "session_id")
    match = _CLAUDE_CODE.fullmatch(key or "")
    return (match[1], match[2]) if match else (key, None)


LAYOUT = Layout(
    SourceKind.ANTHROPIC,
    title="Requests to Anthropic's Messages API and replies, also batches",
    needs="a reply of type message with role and content, beside its request",
    fits=_fits,
    read=_read,
    assembly=Assembly.PREFIX,
)
