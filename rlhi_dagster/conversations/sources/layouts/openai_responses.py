"""OpenAI's Responses API: responses that name the one before them, and the items of conversations.

What belongs here: chains of responses, conversations and pages of items. What does not: reading a request and its reply
(``layouts.api_requests``).

A response does not repeat what it answers. That must lie beside it as the request, as ``input`` or ``input_items``, or as a page of input
items that says of which response (``response_id`` in it, or the response's id in the file's name). A conversation is a chain by
``previous_response_id``, what shares a ``conversation``, or a page of its items; where a client sends the whole history each time, the
longest is kept. What is said on the way to an answer (``phase: commentary``) is left out. The user is known where the client names one.
There is no feedback.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.layouts import api_requests, exchanges, messages, streams
from rlhi_dagster.conversations.sources.records import Assembly, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

_IN_A_NAME = re.compile(r"(?<![a-zA-Z])((?:resp|conv)_[A-Za-z0-9]+)")


def _items(row: Mapping[str, Any]) -> list[Any] | None:
    """The items of a page, which is a row of its own."""
    data = parsed(row.get("data"))
    is_page = isinstance(data, list) and any(isinstance(each, Mapping) and each.get("type") == "message" for each in data)
    return data if is_page else None


def _fits(row: Mapping[str, Any]) -> bool:
    found = streams.whole(api_requests.sides(row)[1])
    if not isinstance(found, Mapping):
        return _items(row) is not None
    return "choices" not in found and isinstance(found.get("output"), list) and (api_requests.is_response(found) or "id" in found)


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    items = _items(row)
    if items is not None:
        return _of_page(row, items, place)
    request, response = api_requests.sides(row)
    given = parsed(row.get("input_items"))
    given = _items(given) if isinstance(given, Mapping) else given
    asked = {"input": _in_order(given)} if isinstance(given, list) else request
    record = api_requests.exchange(row, asked, response, settings)
    known = [each for each in (streams.whole(response), api_requests.body(request), row) if isinstance(each, Mapping)]
    conversation = _first(known, "conversation")
    if conversation is not None:
        record.group = record.parent = record.conversation_id = conversation
    else:
        record.parent = _first(known, "previous_response_id")
    name = _first(known, "id")
    if response is not None and name is not None:
        record.request, record.part = record.request or name, api_requests.REPLY
    return record


def _of_page(row: Mapping[str, Any], items: list[Any], place: Place) -> Record:
    said = [message._replace(id=None) for message in exchanges.asked({"input": _in_order(items)})]
    in_name = dict.fromkeys(_IN_A_NAME.findall(place.file))
    conversation = _first([row], "conversation_id") or next((each for each in in_name if each.startswith("conv_")), None)
    response = _first([row], "response_id") or next((each for each in in_name if each.startswith("resp_")), None)
    record = Record(conversation, messages=said)
    if response is not None and conversation is None:
        record.request, record.note = response, api_requests.UNANSWERED
        record.part = f"{place.file}#{place.number:09}"
    return record


def _in_order(items: list[Any]) -> list[Any]:
    """Items in the order in which they came; pages can begin with the latest."""
    roles = [message.role for message in exchanges.asked({"input": items}) if message.text]
    spoken = [role for role in roles if role != "system"]
    is_reversed = (spoken[:1] == ["assistant"] and spoken[-1:] == ["user"]) or roles[-1:] == ["system"] != roles[:1]
    return items[::-1] if is_reversed else items


def _first(known: list[Any], name: str) -> str | None:
    return next((key for each in known if (key := messages.shared_key(each, name)) is not None), None)


LAYOUT = Layout(
    SourceKind.OPENAI_RESPONSES,
    title="OpenAI's Responses, in chains, in conversations and as pages of items",
    needs="id, output, with its request or input beside it; or a page with items of type message",
    fits=_fits,
    read=_read,
    assembly=Assembly.PREFIX,
)
