"""Replies that were logged as they were streamed, as the one object that the same API gives without streaming; no layout of its own.

What belongs here: the events of OpenAI's chat completions and Responses and of Anthropic's Messages, as a list or as the text of a stream.
What does not: what a whole reply says (``layouts.exchanges``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhi_dagster.conversations.sources import cells, parts
from rlhi_dagster.conversations.sources.cells import parsed

Event = Mapping[str, Any]


def whole(response: Any) -> Any:
    """A response as one object: taken out of the envelope of a batch or of a log, and put together from its events."""
    response = parsed(response)
    if isinstance(response, str) and response.lstrip().startswith(("data:", "event:")):
        lines = (line.strip() for line in response.splitlines())
        response = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    if isinstance(response, list):
        return _put_together(response)
    if not isinstance(response, Mapping):
        return response
    if response.get("body") is not None and "choices" not in response and "output" not in response:
        return whole(response["body"])
    if response.get("type") == "succeeded":  # of a batch of Anthropic's
        return whole(response.get("message"))
    choices = response.get("choices")
    if isinstance(choices, list) and any(isinstance(choice, Mapping) and "delta" in choice for choice in choices):
        return _of_choices([response])
    return response


def _put_together(entries: Sequence[Any]) -> Any:
    events = [event for event in map(parsed, entries) if isinstance(event, Mapping)]
    kinds = {kind for event in events if isinstance(kind := event.get("type"), str)}
    if any("choices" in event for event in events):
        return _of_choices(events)
    if any(kind.startswith("response.") for kind in kinds):
        return _of_response(events)
    if "message_start" in kinds or any(kind.startswith("content_block_") for kind in kinds):
        return _of_blocks(events)
    return entries


def _of_choices(events: Sequence[Event]) -> Event:
    """The first choice of a chat completion, or of a completion."""
    words, refusals, calls = [], [], []
    for event in events:
        choices = parsed(event.get("choices"))
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, Mapping) or choice.get("index") not in (0, None):
                continue
            delta = next((each for name in ("delta", "message") if isinstance(each := choice.get(name), Mapping)), choice)
            words.append(parts.text_of(delta.get("content", delta.get("text"))))
            refusals.append(parts.text_of(delta.get("refusal")))
            given = parsed(delta.get("tool_calls"))
            # The name of a tool is in its first piece; those that follow have pieces of its arguments.
            calls += [call for call in (given if isinstance(given, list) else ()) if cells.at(call, "function.name")]
    message = {"role": "assistant", "content": "".join(words), "refusal": "".join(refusals), "tool_calls": calls}
    return {**_known(events), "choices": [{"message": message}]}


def _of_response(events: Sequence[Event]) -> Event:
    """A response of the Responses API: the one that the last event has, or else the pieces of its text."""
    response = next((each for event in reversed(events) if isinstance(each := event.get("response"), Mapping)), {})
    if response.get("output"):
        return response
    pieces = [event.get("delta") for event in events if event.get("type") == "response.output_text.delta"]
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    return {**response, "output": [{"type": "message", "role": "assistant", "content": text}]}


def _of_blocks(events: Sequence[Event]) -> Event:
    """A message of Anthropic's: its blocks in their order."""
    message: Event = next((each for event in events if isinstance(each := event.get("message"), Mapping)), {})
    blocks: dict[Any, dict[str, Any]] = {}
    for event in events:
        number, start, delta = (event.get(name) for name in ("index", "content_block", "delta"))
        if isinstance(start, Mapping):
            blocks[str(number)] = dict(start)
        if isinstance(delta, Mapping) and isinstance(delta.get("text"), str):
            block = blocks.setdefault(str(number), {"type": "text"})
            block["text"] = f"{block.get('text') or ''}{delta['text']}"
    return {**message, "type": "message", "role": "assistant", "content": list(blocks.values())}


def _known(events: Sequence[Event]) -> dict[str, Any]:
    """What the events say beside their pieces, of each name the first."""
    return {name: value for event in reversed(events) for name, value in event.items() if value is not None}
