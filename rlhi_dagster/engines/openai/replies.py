"""What comes back from a server of OpenAI's chat completions, as values: replies, what was used, errors; and nothing taken on trust.

What belongs here: shapes of payloads. What does not: what they mean for the calls (``answers.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rlhi_dagster.engines.base import Messages

_SHOWN = 200
"""Characters of a server's message that are shown."""
_SHINGLE = 16
"""So many characters in a row that also stand in a message are part of it."""
_TOO_LONG = re.compile(r"context[ _](length|window|size)|max_model_len|prompt is too long|input is too long", re.IGNORECASE)
_NO_MODEL = re.compile(r"(invalid|unknown) model|model\b.{0,80}\b(not found|not exist)", re.IGNORECASE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class MalformedError(ValueError):
    """A payload is not what it has to be; the message says why, without any of its text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One of a response's choices.

    Attributes:
        text: ``None`` where the server held it back.
        finish_reason: `stop`, `length` or `content_filter`.
        tokens: Its tokens, if the server tells them sample by sample.
        first: Tokens and log-probabilities at the first place, if given.
    """

    text: str | None
    finish_reason: str
    tokens: int | None
    first: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Response:
    """A response's good choices by their index, and the tokens of all together."""

    replies: dict[int, Reply]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def parse(payload: Any, wanted: int) -> Response:
    """Read a response. Choices with a wrong shape, an unknown index or an index that was there before are left out.

    Raises:
        MalformedError: There is no good choice.
    """
    if not isinstance(payload, dict):
        raise MalformedError("not an object")
    if payload.get("error"):
        raise MalformedError("an error with status 200")
    choices = payload.get("choices")
    if not isinstance(choices, list):
        raise MalformedError("no list of choices")
    replies: dict[int, Reply] = {}
    for choice in choices:
        index, reply = choice.get("index") if isinstance(choice, dict) else None, _reply(choice)
        if reply and type(index) is int and 0 <= index < wanted:
            replies.setdefault(index, reply)
    if not replies:
        raise MalformedError("no usable choice" if choices else "no choice")
    usage = payload.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    prompt = _count(usage, "prompt_tokens")
    return Response(replies, prompt, min(prompt, _count(details, "cached_tokens")), _count(usage, "completion_tokens"))


def _reply(choice: Any) -> Reply | None:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or choice.get("finish_reason") not in {"stop", "length", "content_filter"}:
        return None
    text, tokens = message.get("content"), choice.get("token_ids")
    if not isinstance(text, str | None):
        return None
    is_held_back = choice["finish_reason"] == "content_filter" or message.get("refusal")
    return Reply(
        text=None if is_held_back else _LONE_SURROGATE.sub("\ufffd", text or ""),
        finish_reason="content_filter" if is_held_back else choice["finish_reason"],
        tokens=len(tokens) if isinstance(tokens, list) else None,
        first=_first(choice.get("logprobs")),
    )


def _first(logprobs: Any) -> dict[str, float] | None:
    """Log-probabilities at the first token: of the one written, and of the likeliest ones."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return None
    entries = [content[0], *(content[0].get("top_logprobs") or [])]
    try:
        return {entry["token"]: float(entry["logprob"]) for entry in entries}
    except (KeyError, TypeError, ValueError):
        return None


def _count(of: Any, name: str) -> int:
    """A number of tokens; 0 where a server does not count."""
    value = of.get(name) if isinstance(of, dict) else None
    return value if type(value) is int and value >= 0 else 0


@dataclass(frozen=True, slots=True)
class ServerError:
    """What a server says about a request that it refuses.

    Attributes:
        status: Of HTTP.
        message: May contain parts of the prompt: to be shown by ``shown`` only.
        code: The server's word for it.
        parameter: The field that it is about.
    """

    status: int
    message: str
    code: str
    parameter: str

    @property
    def is_too_long(self) -> bool:
        """Prompt and reply have no room in the model's context."""
        return self.code == "context_length_exceeded" or (self.status in {400, 413, 422} and bool(_TOO_LONG.search(self.message)))

    @property
    def is_about_model(self) -> bool:
        """The server has no such model."""
        is_said = self.status in {400, 404, 422} and bool(_NO_MODEL.search(self.message))
        return self.code == "model_not_found" or self.parameter == "model" or is_said

    def quotes(self, messages: Messages) -> bool:
        """Whether the message contains a part of the prompt."""
        said = " ".join(self.message.split()).lower()
        return any(_shares_text(said, " ".join(message["content"].split()).lower()) for message in messages)

    def shown(self, messages: Messages) -> str:
        """The message in short; nothing of it if it quotes the prompt."""
        return "the server's message quotes the prompt" if self.quotes(messages) else " ".join(self.message.split())[:_SHOWN]


def _shares_text(said: str, text: str) -> bool:
    """Whether ``said`` contains the text, or a part of it of ``_SHINGLE`` characters. Three letters are in any text."""
    if len(text) < _SHINGLE:
        return len(text) > 3 and text in said
    return any(said[start : start + _SHINGLE] in text for start in range(len(said) - _SHINGLE + 1))


def server_error(status: int, payload: Any) -> ServerError:
    """Read the error of any of the shapes that servers give it."""
    if isinstance(payload, list) and payload:
        payload = payload[0]
    found = payload.get("error", payload) if isinstance(payload, dict) else payload
    if not isinstance(found, dict):
        return ServerError(status, found if isinstance(found, str) else "", "", "")
    detail = found.get("message", found.get("detail", ""))
    if isinstance(detail, list):  # FastAPI's: its other fields quote what was sent
        detail = "; ".join(f"{_dotted(each.get('loc'))}: {each.get('msg')}" for each in detail if isinstance(each, dict))
    return ServerError(status, str(detail), str(found.get("code") or ""), str(found.get("param") or ""))


def _dotted(location: Any) -> str:
    return ".".join(map(str, location)) if isinstance(location, list) else ""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a server asks to wait, from ``retry-after-ms``, or ``Retry-After`` in seconds or as an HTTP date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    try:
        until = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())
