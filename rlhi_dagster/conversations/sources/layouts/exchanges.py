"""What was asked and what was answered, in whatever JSON a system logs a request and its reply; no layout of its own.

What belongs here: where requests and replies of the usual APIs and frameworks have their messages: OpenAI, Anthropic, Gemini, the Vercel AI
SDK, LangChain and LangGraph, functions that were traced. What does not: a single message (``layouts.messages``) and its parts (``parts``).

A text by itself is the user's in a request and the assistant's in a reply. An object without any of the names that are known here says
nothing: arguments of a function are nobody's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rlhi_dagster.conversations.sources import parts
from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Message

_ASKED = (
    "messages", "contents", "input", "inputs", "question", "query", "prompt", "prompts", "user_input", "user_message", "userMessage",
    "user_query", "human_input", "chat_input", "message", "text", "content", "parts", "body", "request", "kwargs", "args",
    "ai.prompt.messages", "ai.prompt",
)  # fmt: skip
_OURS = ("user", "assistant", "system")
_HISTORY = ("chat_history", "chatHistory", "history")
_ANSWERED = (
    "choices", "generations", "candidates", "messages", "output", "outputs", "message", "content", "parts", "text", "answer", "response",
    "result", "completion", "generation", "reply", "final_output", "return_values", "output_text", "body", "ai.response.text",
)  # fmt: skip
_DRAFTS = ("choices", "generations", "candidates", "prompts")
"""Lists of alternatives: the first is what the user got."""
_BOXES = ("body", "request", "kwargs", "args")
"""What holds a request; if it is JSON without messages it is nobody's words."""


def dialogue(
    request: Any, reply: Any, name: str | None, asked_at: datetime | None = None, answered_at: datetime | None = None
) -> list[Message]:
    """Messages of a request and its reply; of a reply that repeats the dialogue so far, the reply's.

    The last is the reply, under the name of the request, and without text if there is none.
    """
    before, after = asked(request), answered(reply)
    last = next((message.text for message in reversed(before) if message.role == "user"), None)
    repeats = any(message.role == "user" and last in (None, message.text) for message in after)
    found = [message._replace(id=None, parent=None) for message in (after if repeats else before + after)]
    if not found or found[-1].role != "assistant":
        found.append(Message("assistant", ""))
    found[-1] = found[-1]._replace(id=name, sent_at=answered_at)
    question = next((number for number in reversed(range(len(found))) if found[number].role == "user"), None)
    if question is not None:
        found[question] = found[question]._replace(sent_at=asked_at)
    return found


def asked(request: Any) -> list[Message]:
    """The messages of a request: its history and what it asks."""
    return _read(request, "user", _ASKED)


def answered(reply: Any) -> list[Message]:
    """The messages of a reply."""
    return _read(reply, "assistant", _ANSWERED)


def _read(value: Any, role: str, names: tuple[str, ...]) -> list[Message]:
    found = parsed(value)
    read = _of_object(found, role, names) if isinstance(found, Mapping) else _of_list(found, role, names) if isinstance(found, list) else []
    # JSON that has no messages is what somebody wrote.
    return read or ([_said(role, value)] if isinstance(value, str | int | float) else [])


def _of_list(found: list[Any], role: str, names: tuple[str, ...]) -> list[Message]:
    found = [parsed(each) for each in found]
    if any(messages.is_message(each) or _is_pair(each) for each in found):
        return [_entry(each, number, role) for number, each in enumerate(found) if not _is_aside(each)]
    if found and isinstance(found[0], list):  # a batch of one
        return _of_list(found[0], role, names)
    if len(found) == 1 and isinstance(found[0], Mapping) and not _is_part(found[0]):
        return _of_object(found[0], role, names)
    said = _said(role, [each for each in found if isinstance(each, str) or _is_part(each)])
    return [said] if said.text else []


def _entry(value: Any, number: int, role: str) -> Message:
    if _is_pair(value):
        return _said(*value)
    if isinstance(value, str) or value is None:
        return _said(role, value)
    return messages.message(value, number) if messages.is_message(value) else _said("assistant", value)


def _of_object(found: Mapping[str, Any], role: str, names: tuple[str, ...]) -> list[Message]:
    if messages.is_message(found) and (message := messages.message(found)).role in _OURS:
        return [message]
    for name in names:
        inner = parsed(found.get(name)) if name in (*_DRAFTS, *_BOXES) else found.get(name)
        if name in _DRAFTS and isinstance(inner, list) and inner:
            inner = inner[0][0] if isinstance(inner[0], list) and inner[0] else inner[0]
        read = _read(inner, role, names)
        if any(message.text for message in read):
            earlier = (
                [parsed(found.get(history)) for history in _HISTORY] if role == "user" and name not in ("messages", "contents") else []
            )
            return [message for history in earlier if isinstance(history, list) for message in _of_list(history, "user", names)] + read
    calls = _said(role, None, found)
    return [calls] if calls.text else []


def _said(role: Any, content: Any, message: Mapping[str, Any] | None = None) -> Message:
    said = parts.said(role, content, message)
    return Message(said.role, said.text)


def _is_pair(value: Any) -> bool:
    """Whether a value is a role and a text, as LangChain's short form of a message is."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(each, str) for each in value)
        and value[0].lower() in parts.ROLES
    )


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and not value.keys().isdisjoint(
        ("type", "text", "functionCall", "function_call", "toolName", "inlineData")
    )


def _is_aside(value: Any) -> bool:
    """Whether a message is what an assistant says on the way to its answer."""
    return isinstance(value, Mapping) and value.get("phase") == "commentary"
