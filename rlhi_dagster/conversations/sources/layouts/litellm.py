"""What the LiteLLM proxy logs: one object a request, in a bucket or in its own table of spending.

What belongs here: LiteLLM's columns. What does not: reading a request and its reply (``layouts.api_requests``).

The user is the ``end_user`` that the client names. Whom a key belongs to is not read as the user, for one key can serve all of them; the
setting ``fields`` can name it (``metadata.user_api_key_user_id``). A session is ``session_id``; where the proxy makes up one for each
request, the history tells. A table of spending has texts only if the proxy stores prompts. There is no feedback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources import columns
from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.layouts import api_requests, messages
from rlhi_dagster.conversations.sources.records import Assembly, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

REDACTED = "a request whose text was not logged"

_USUAL = {
    **columns.USUAL,
    SourceField.CONVERSATION_ID: ("id", "request_id", "litellm_call_id"),
    SourceField.USER: (
        "end_user", "metadata.user_api_key_end_user_id", "model_parameters.user", "model_parameters.safety_identifier",
        "metadata.requester_metadata.user_id",
    ),
}  # fmt: skip
_ONLY_HERE = (
    "call_type", "litellm_call_id", "model_group", "custom_llm_provider", "end_user", "proxy_server_request", "response_cost", "api_base",
)  # fmt: skip
_INSTEAD_OF_TEXT = "redacted-by-litellm"


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    asked, body = parsed(row.get("messages")), parsed(row.get("proxy_server_request"))
    response = parsed(row.get("response"))
    record = api_requests.exchange(row, asked or body, response or None, settings, _USUAL)
    record.address = messages.shared_key(row, "requester_ip_address") or messages.shared_key(row, "metadata.requester_ip_address")
    session = messages.shared_key(row, "metadata.requester_metadata.session_id")
    if record.group is None and session is not None:
        record.group = record.conversation_id = session
    if record.messages and all(message.text == _INSTEAD_OF_TEXT for message in record.messages):
        record.note = REDACTED
    return record


LAYOUT = Layout(
    SourceKind.LITELLM,
    title="LiteLLM: logged payloads and the table of spending",
    needs="messages, response, startTime and one of " + ", ".join(_ONLY_HERE),
    fits=lambda row: messages.has(row, "messages", "response", "startTime") and any(name in row for name in _ONLY_HERE),
    read=_read,
    assembly=Assembly.PREFIX,
)
