"""Responses of servers that call themselves compatible with OpenAI's chat completions, read as they come.

What belongs here: the shapes that servers give a response, and which field is odd where it cannot be read. What does not: what a response
means for the calls that shared the request (``reading.py``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_ENDED = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "end", "complete", "completed"}
_CUT = {"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "model_context_window_exceeded"}
_FILTERED = {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii", "sensitive", "refusal"}
_CALLED = {"tool_calls", "function_call", "tool_use", "tool_call"}
_FAILED = {"error", "abort", "aborted", "cancelled", "failed", "timeout", "network_error", "insufficient_system_resource"}
"""Servers' words for why a reply ended; any other one, and none, leaves it to the number of tokens whether the limit cut it."""
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS, _THOUGHT_PARTS = {"text", "output_text"}, {"thinking", "reasoning", "redacted_thinking"}
_INNER = ("text", "content", "parts")
_SHOWN = 40
"""Characters of a part's type that are shown."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ROUNDING = 1e-3
"""A log-probability above 0 by more than this is none."""


_KNOWN = _ENDED | _CUT | _FILTERED | _CALLED | _FAILED
_PLAIN = re.compile("[a-z_0-9]{1,40}")
"""Words of a server that are shown; others may be of the prompt."""
_MOST_TOKENS = 2**31 - 1
"""More than any answer has, and than the store keeps of one: a server that counts more does not count."""


class MalformedError(ValueError):
    """A payload is not what it has to be; the message says which field is odd, without any of its text.

    Attributes:
        spent: What the payload says that it cost; ``None`` if it does not say.
    """

    spent: Response | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One of a response's choices.

    Attributes:
        text: All that is to be read as the reply; may have thoughts between tags.
        thoughts: Those that the server keeps apart.
        finish_reason: `stop`, `length`, or empty where the server does not say so that we understand it.
        error: Why it is no reply, whatever its text.
        tokens: Its tokens, if the server tells them sample by sample.
        first: Tokens and log-probabilities at the first place, if several are given.
    """

    text: str
    thoughts: str
    finish_reason: str
    error: str | None
    tokens: int | None
    first: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Response:
    """A response's good choices by their index, and the tokens of all together; 0 where the server does not count them.

    Attributes:
        odd: What is wrong with the first of its other choices.
    """

    replies: dict[int, Reply]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    odd: str | None = None


def parse(payload: Any, wanted: int, *, is_json: bool = False) -> Response:
    """Read a response. Choices that cannot be read, and those with an unknown index or one that was there before, are left out.

    Args:
        payload: JSON as it came.
        wanted: Samples asked for.
        is_json: JSON was asked for, so that content that is no text may be the reply itself.

    Raises:
        MalformedError: There is no good choice.
    """
    if not isinstance(payload, dict):
        raise MalformedError("not JSON" if payload is None else "not an object")
    if payload.get("error"):
        raise MalformedError("an error with status 200")
    choices = payload.get("choices")
    if not isinstance(choices, list):
        raise MalformedError("no list of choices")
    usage = payload.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    cached, written = min(prompt, _count(details, "cached_tokens")), _count(usage, "completion_tokens", "output_tokens")
    replies: dict[int, Reply] = {}
    odd = None
    for place, choice in enumerate(choices):
        try:
            replies.setdefault(_index(choice, place, wanted), _reply(choice, f"choices[{place}]", is_json))
        except (MalformedError, RecursionError) as error:
            odd = odd or str(error)
    if not replies:
        unread = MalformedError(odd or "no choice")
        unread.spent = Response({}, prompt, cached, written) if prompt or written else None
        raise unread
    return Response(replies, prompt, cached, written, odd)


def _index(choice: Any, place: int, wanted: int) -> int:
    """Which sample a choice is: as it says, or as it stands."""
    if not isinstance(choice, dict):
        raise MalformedError(f"choices[{place}] is {_kind(choice)}")
    given = choice.get("index")
    index = place if given is None else _whole(given)
    if index is None:
        raise MalformedError(f"choices[{place}].index is {_kind(given)}")
    if not 0 <= index < wanted:
        raise MalformedError(f"choices[{place}].index is {index}, and {wanted:,} asked for")
    return index


def _reply(choice: dict[str, Any], name: str, is_json: bool) -> Reply:
    message, where = choice.get("message"), f"{name}.message"
    said = choice.get("finish_reason")
    reason = said.lower().replace("-", "_") if isinstance(said, str) else ""
    if message is None and "text" in choice:  # as completions have it
        message, where = {"content": choice["text"]}, name
    elif message is None and _is_foreign(reason):
        message = {}
    elif isinstance(message, str):
        message = {"content": message}
    if not isinstance(message, dict):
        raise MalformedError(f"{where} is {_kind(message)}")
    if reason in _FAILED or choice.get("error"):
        raise MalformedError(f"{name}.finish_reason is {reason}" if reason in _FAILED else f"{name}.error is there")
    error, text, thoughts = None, "", next((each for each in map(message.get, _THOUGHTS) if isinstance(each, str) and each), "")
    if reason in _FILTERED or message.get("refusal") or "refusal" in _types(message.get("content")):
        error = "content_filter: the server held the reply back"
    elif reason in _CALLED or message.get("tool_calls") or message.get("function_call"):
        error = f"tool_calls: {name} calls a tool instead of replying, though none was offered"
    elif "content" in message:
        text, thought = _texts(message["content"], f"{where}.{'text' if where == name else 'content'}", is_json)
        thoughts = thoughts or thought
    elif not thoughts and _is_foreign(reason):
        # The server has ended it for a reason of its own, has been paid for it, and would end it again.
        error = f"no_reply: the server ended it as {reason if _PLAIN.fullmatch(reason) else 'something that we do not know'}"
    elif not thoughts:
        raise MalformedError(f"{where}.content is missing")
    tokens = choice.get("token_ids")
    return Reply(
        text=_LONE_SURROGATE.sub("\ufffd", text),
        thoughts=thoughts,
        finish_reason="stop" if reason in _ENDED else "length" if reason in _CUT else "",
        error=error,
        tokens=len(tokens) if isinstance(tokens, list) else None,
        first=_first(choice.get("logprobs")),
    )


def _is_foreign(reason: str) -> bool:
    return bool(reason) and reason not in _KNOWN


def _texts(content: Any, where: str, is_json: bool) -> tuple[str, str]:
    """What a message's content says, and what it thinks: text, a part, or a list of them.

    Raises:
        MalformedError: It is something else, or has a part that is no text.
    """
    if content is None or isinstance(content, str):
        return content or "", ""
    if is_json and not _types(content) <= _TEXT_PARTS | _THOUGHT_PARTS:
        return json.dumps(content, ensure_ascii=False), ""
    if isinstance(content, list):
        found = [_texts(part, f"{where}[{place}]", is_json=False) for place, part in enumerate(content)]
        return "".join(text for text, _ in found), "".join(thoughts for _, thoughts in found)
    [kind], inner = _types(content), next((name for name in _INNER if isinstance(content, dict) and name in content), None)
    if kind in _THOUGHT_PARTS:
        return "", json.dumps(content, ensure_ascii=False)
    if kind not in {None, *_TEXT_PARTS} or inner is None:
        raise MalformedError(f"{where}.type is {kind}" if kind else f"{where} is {_kind(content)}")
    return _texts(content[inner], f"{where}.{inner}", is_json=False)


def _types(content: Any) -> set[str | None]:
    """What a part, or each of a list of parts, says that it is."""
    parts = content if isinstance(content, list) else [content]
    return {str(each["type"])[:_SHOWN] if isinstance(each, dict) and each.get("type") else None for each in parts}


def _first(logprobs: Any) -> dict[str, float] | None:
    """Log-probabilities at the first token: of the one written, and of the likeliest ones. One alone tells nothing of the others."""
    try:
        written = logprobs["content"][0]
        found = {entry["token"]: float(entry["logprob"]) for entry in (written, *(written.get("top_logprobs") or ()))}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    is_sound = len(found) > 1 and all(isinstance(token, str) and score <= _ROUNDING for token, score in found.items())
    return found if is_sound else None


def _count(of: Any, *names: str) -> int:
    """A number of tokens under the first of several names; 0 where a server does not count."""
    found = (_whole(of.get(name)) for name in names) if isinstance(of, dict) else ()
    return next((count for count in found if count is not None and 0 <= count <= _MOST_TOKENS), 0)


def _whole(value: Any) -> int | None:
    """A whole number as servers write it: as such, as 3.0, or as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value) if float(value).is_integer() else None
    except (OverflowError, ValueError):
        return None


def _kind(value: Any) -> str:
    """What a value is, in JSON's words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "missing")
