"""Chat completions of OpenAI's API, and of all that speak its language, as a request beside its reply.

What belongs here: recognising such rows, the files of its batches, and stored completions with the pages of their messages. What does not:
reading the two sides (``layouts.api_requests``), and OpenAI's other API (``layouts.openai_responses``).

Each request repeats its history; of those that continue each other the longest is kept. An input file of a batch has no reply; beside its
output file the two are joined by ``custom_id``, unless several batches use the same. A list of stored completions has no requests; these
are pages of their own. The user is known where the client names one (``user``, ``safety_identifier``, ``metadata.user_id``). There is no
feedback in any of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.layouts import api_requests, messages, streams
from rlhi_dagster.conversations.sources.records import Assembly, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

_STORED = re.compile(r"(.+)-(\d+)")
"""The id of a message of a stored completion: the completion's and its position."""

_TEXTS = (("prompt", "completion"), ("prompt", "response"), ("prompt", "output"), ("input", "output"), ("request", "response"))
"""Columns whose plain texts are a question and an answer."""


def _stored(row: Mapping[str, Any]) -> re.Match[str] | None:
    is_message = messages.has(row, "id", "role", "content") and not messages.has(row, "type")
    return _STORED.fullmatch(row["id"]) if is_message and isinstance(row["id"], str) else None


def _fits(row: Mapping[str, Any]) -> bool:
    if _stored(row) or (messages.has(row, "custom_id") and (messages.has(row, "params") or messages.has(row, "body", "url"))):
        return True
    request, response = api_requests.sides(row)
    if response is None:
        return False
    found = streams.whole(response)
    if isinstance(found, Mapping) and isinstance(found.get("choices"), list):
        return True
    if isinstance(request, str) and isinstance(found, str):
        return any(messages.has(row, *names) for names in _TEXTS) and not messages.has(row, "instruction")
    return _is_request(request) and (isinstance(found, str) or _is_reply(found))


def _is_request(value: Any) -> bool:
    value = api_requests.body(value)
    if isinstance(value, Mapping):
        return any(isinstance(parsed(value.get(name)), list | str) for name in ("messages", "contents", "prompt", "input"))
    return isinstance(value, list) and any(messages.is_message(parsed(each)) for each in value)


def _is_reply(value: Any) -> bool:
    entries = value if isinstance(value, list) else [value]
    return any(api_requests.is_response(each) or messages.is_message(each) for each in entries) or (
        isinstance(value, Mapping) and any(isinstance(value.get(name), str | Mapping) for name in ("message", "content", "text"))
    )


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    stored = _stored(row)
    if stored is None:
        return api_requests.read(row, settings, place)
    content = row["content"] if row["content"] is not None else row.get("content_parts")
    said = messages.message({**row, "content": content})._replace(id=None)
    return Record(stored[1], messages=[said], request=stored[1], part=stored[2].zfill(9))


LAYOUT = Layout(
    SourceKind.OPENAI,
    title="Requests to OpenAI's chat completions and replies, also batches and stored completions",
    needs="a request with messages and a reply in request/response, input/output, body/response or messages/choices; prompt, completion; or"
    " custom_id, body",
    fits=_fits,
    read=_read,
    assembly=Assembly.PREFIX,
)
