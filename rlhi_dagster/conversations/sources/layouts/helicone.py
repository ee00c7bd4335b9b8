"""Requests as Helicone logs them, with the rating of each.

What belongs here: Helicone's columns. What does not: reading a request and its reply (``layouts.api_requests``).

A rating is the end user's thumb, up or down. Scores are of programs that judge and are not read. A session is the property
``Helicone-Session-Id``. Where the bodies lie behind ``signed_body_url``, they must be fetched before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources import cells, columns
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import api_requests, messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_USUAL = {
    **columns.USUAL,
    SourceField.CONVERSATION_ID: ("request_id", "id"),
    SourceField.USER: ("request_user_id", "user_id", "properties.Helicone-User-Id"),
    SourceField.STARTED_AT: ("request_created_at", "created_at"),
    SourceField.MODEL: ("response_model", "model", "request_model", "model_override"),
}
_SESSION = "Helicone-Session-Id"
_ONLY_HERE = (
    "request_id", "request_created_at", "request_properties", "request_user_id", "response_id", "feedback_rating", "signed_body_url",
)  # fmt: skip


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    request, response = parsed(row.get("request_body")), parsed(row.get("response_body"))
    if not request and not response and row.get("signed_body_url"):
        raise MistypedError("request_body: it lies behind signed_body_url and not in the row")
    record = api_requests.exchange(row, request or None, response or None, settings, _USUAL)
    name = messages.shared_key(row, "request_id") or record.conversation_id
    session = messages.shared_key(row, f"request_properties.{_SESSION}") or messages.shared_key(row, f"properties.{_SESSION}")
    if session is not None:
        record.group = record.conversation_id = session
    if record.messages and record.messages[-1].role == "assistant":
        record.messages[-1] = record.messages[-1]._replace(id=name)
    record.feedback = _feedback(row, name)
    return record


def _feedback(row: Mapping[str, Any], request: str | None) -> list[Feedback]:
    try:
        rating, given_at = cells.flag(row.get("feedback_rating")), cells.time(row.get("feedback_created_at"))
    except MistypedError as error:
        raise MistypedError(f"feedback: {error}") from None
    return [] if rating is None else [Feedback(request, FeedbackKind.THUMB, 1.0 if rating else -1.0, given_at=given_at)]


LAYOUT = Layout(
    SourceKind.HELICONE,
    title="Helicone",
    needs="request_body, response_body and one of " + ", ".join(_ONLY_HERE),
    fits=lambda row: (messages.has(row, "request_body") or messages.has(row, "signed_body_url")) and any(n in row for n in _ONLY_HERE),
    read=_read,
    assembly=Assembly.PREFIX,
)
