"""A row that is a request to a chat API and its reply, or one of the two; no layout of its own.

What belongs here: where such rows keep the two sides, whether the request succeeded, and the record of it. What does not: the messages of
either side (``layouts.exchanges``), replies in pieces (``layouts.streams``), and what a system writes beside them (its own module).

Only a request that succeeded has a reply; failed ones are accounted for and are no part of a conversation. Where a request and its reply
lie in rows of their own (batches, stored completions), they are joined by the name that they share.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rlhi_dagster.conversations.sources import cells, columns
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import exchanges, messages, streams
from rlhi_dagster.conversations.sources.records import Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings

FAILED, UNANSWERED, NO_CHAT = "a failed request", "a request whose reply is not in the source", "no request of a chat"
ASKED, REPLY = "", chr(sys.maxunicode)
"""`Record.part` of what was asked, and of a reply: after all else."""

_REQUEST = ("request", "request_body", "params", "body", "input", "prompt")
_RESPONSE = ("response", "response_body", "output", "completion", "result")
_FAILURES = (
    "failure", "failed", "fail", "error", "errored", "cancelled", "canceled", "expired", "timeout", "in_progress", "queued", "pending",
)  # fmt: skip
_STATUS = ("status", "status_code", "response_status", "http_status", "statusCode")
_ERROR = ("error", "error_str", "error_message", "exception")
_OF_NO_CHAT = re.compile(r"embedding|moderation|image|audio|transcription|speech|rerank|video|vector_store|tool", re.I)
_OF_A_CHAT = re.compile(r"chat|complet|response|message|generate|converse|passthrough|pass_through", re.I)
_ENDED = ("endTime", "end_time", "ended_at", "response_created_at", "completed_at", "finished_at")
_CREATED = ("created", "created_at")


def sides(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """What was asked and what was replied, each None if the row lacks it; either may be the row itself."""
    response: Any = row if is_response(row) else next((v for name in _RESPONSE if (v := parsed(row.get(name))) not in (None, "")), None)
    if isinstance(parsed(row.get("messages")), list) or (response is row and cells.at(row, "input") is not None):
        return row, response
    return next((v for name in _REQUEST if (v := parsed(row.get(name))) not in (None, "")), None), response


def is_response(value: Any) -> bool:
    """Whether a value is a whole response of OpenAI's or Anthropic's, and no message of a request."""
    if not isinstance(value, Mapping):
        return False
    output = value.get("output")
    return (
        isinstance(value.get("choices"), list)
        or isinstance(value.get("candidates"), list)
        or value.get("object") == "response"
        or (isinstance(output, list) and any(isinstance(item, Mapping) and item.get("type") == "message" for item in output))
        or (value.get("type") == "message" and value.get("role") == "assistant" and "content" in value)
    )


def read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    """What a row with a request, a reply, or both says."""
    return exchange(row, *sides(row), settings)


def exchange(
    row: Mapping[str, Any],
    request: Any,
    response: Any,
    settings: SourceSettings,
    usual: Mapping[SourceField, tuple[str, ...]] = columns.USUAL,
) -> Record:
    """The record of a request and its reply.

    Args:
        row: The row that they lie in.
        request: The request's body, or None.
        response: The response, or None.
        settings: The source.
        usual: Columns of the row that a field is read from.

    Raises:
        MistypedError: A value cannot be what its field needs.
    """
    found = streams.whole(response)
    asked = body(request)
    record = messages.fields(row, settings, usual)
    for value in (found, asked):
        if isinstance(value, Mapping) and value is not row:
            _fill(record, messages.fields(value, settings))
    custom = messages.shared_key(row, "custom_id")
    name = next((key for value in (found, row) if (key := messages.shared_key(value, "id")) is not None), None) or record.conversation_id
    record.conversation_id = record.group or record.conversation_id or custom
    if is_failed(row, parsed(response), found):
        record.note = FAILED
    elif is_of_no_chat(row, found):
        record.note = NO_CHAT
    else:
        ended = _time(row, _ENDED) or _time(found, _CREATED) or record.started_at
        record.messages = _once(exchanges.dialogue(asked, found, name or custom, record.started_at, ended))
        record.note = UNANSWERED if response is None and custom is not None else None
    if request is None or (response is None and custom is not None):
        record.request, record.part = custom or name, REPLY if request is None else ASKED
    return record


def _once(said: list[Message]) -> list[Message]:
    """A dialogue without an empty reply, and without the reply among what was asked, where a log has it in both."""
    if said[-1:] and not said[-1].text.strip():
        said = said[:-1]
    return said[:-2] + said[-1:] if len(said) > 1 and said[-1][:2] == said[-2][:2] and said[-1].role == "assistant" else said


def is_failed(*values: Any) -> bool:
    """Whether one of a row, its response and what is in it says that the request has no reply, or not yet."""
    for value in values:
        if not isinstance(value, Mapping):
            continue
        if value.get("type") in ("error", "errored", "canceled", "expired"):
            return True
        if any(_says_something(value.get(name)) for name in _ERROR):
            return True
        for name in _STATUS:
            status = value.get(name)
            if isinstance(status, str) and status.strip().lower() in _FAILURES:
                return True
            number = _number(status)
            if number is not None and (number >= 400 or number < 0):
                return True
    return False


def is_of_no_chat(row: Mapping[str, Any], response: Any) -> bool:
    """Whether a request was for embeddings, pictures or the like."""
    if is_response(response):
        return False
    said = " ".join(each for name in ("call_type", "url", "endpoint", "request_path") if isinstance(each := row.get(name), str))
    if said:
        path = re.sub(r"^\w+://[^/]*", "", said)
        return bool(_OF_NO_CHAT.search(path)) and not _OF_A_CHAT.search(path)
    data = response.get("data") if isinstance(response, Mapping) else None
    return isinstance(data, list) and any(isinstance(each, Mapping) and ("embedding" in each or "b64_json" in each) for each in data)


def body(request: Any) -> Any:
    """The body of a request that a log has with its method and its address."""
    request = parsed(request)
    if isinstance(request, Mapping) and request.get("body") is not None and not request.keys() & {"messages", "input", "contents"}:
        return body(request["body"])
    return request


def _fill(record: Record, other: Record) -> None:
    """Fill what a record lacks from another."""
    for name in ("conversation_id", "group", "user_key", "started_at", "model", "language", "is_toxic"):
        if getattr(record, name) is None:
            setattr(record, name, getattr(other, name))


def _time(value: Any, names: tuple[str, ...]) -> datetime | None:
    """The first of some times; what is none is passed over."""
    for name in names:
        try:
            if (found := cells.time(cells.at(value, name))) is not None:
                return found
        except MistypedError:
            continue
    return None


def _says_something(error: Any) -> bool:
    if isinstance(error, Mapping):
        return any(_says_something(each) for each in error.values())
    return bool(error) and not (isinstance(error, str) and error.strip().lower() in cells.ABSENT)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
