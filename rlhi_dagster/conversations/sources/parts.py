"""The text of a message, whatever a system wraps it in.

What belongs here: content in parts, names of roles, tool calls and results, thoughts. What does not: which message follows which
(``assembly``), and where a layout keeps its messages (``layouts``).

Text is kept. A picture, a file, a tool call and its result become a short marker (``[image]``, ``[tool call: weather]``). Reasoning is
left out: the user did not see it as the answer. A tool's result is the assistant's doing, also where an API sends it in the user's role.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlhi_dagster.base.thoughts import spoken
from rlhi_dagster.conversations.sources.cells import parsed

_NAMES_OF_ROLES = {
    "user": "user human prompter person customer client enduser end_user visitor humanmessage humanmessagechunk",
    "assistant": "assistant gpt chatgpt gpt3 gpt4 gpt-3 gpt-4 bing bard gemini claude llama mistral model bot chatbot ai agent ai_message"
    " aimessage aimessagechunk llm output machine",
    "system": "system developer instructions context systemmessage systemmessagechunk system_prompt",
    "tool": "tool function ipython observation environment toolmessage functionmessage tool_result function_call_output",
}
ROLES: Mapping[str, str] = {name: role for role, names in _NAMES_OF_ROLES.items() for name in names.split()}
"""Names of roles, in lower case, by ours."""

IMAGE, AUDIO, VIDEO, FILE = "[image]", "[audio]", "[video]", "[file]"
TOOL_RESULT = "[tool result]"

_WHOLE_TEXT = ("text", "input_text", "output_text", "markdown", "string", "code")
_THOUGHTS = (
    "thinking",
    "redacted_thinking",
    "reasoning",
    "reasoning_content",
    "thought",
    "thoughts",
    "think",
    "analysis",
    "reasoning_recap",
)
_CALLS = ("tool_use", "tool_call", "tool-call", "function_call", "server_tool_use", "server_tool_call", "mcp_tool_use", "custom_tool_call")
_RESULTS = ("result", "tool_call_response", "server_tool_call_response", "tool_call_output", "function_call_output", "tool-result")
_UNSEEN = ("step-", "source-", "data-", "item_reference", "compaction", "mcp_list_tools", "mcp_approval")
"""Openings of the names of parts with which the Vercel AI SDK's interfaces and OpenAI's Responses keep account."""
_MEDIA = (("image", IMAGE), ("audio", AUDIO), ("video", VIDEO), ("document", FILE), ("file", FILE), ("blob", FILE), ("uri", FILE))
_NAMES = ("text", "content", "value", "output_text", "input_text", "parts", "markdown")


class Said(NamedTuple):
    """Who says what; ``role`` is one of ours, or the source's where it is none of `ROLES`, or None."""

    role: str | None
    text: str


def said(role: Any, content: Any, message: Mapping[str, Any] | None = None) -> Said:
    """A message's role and text; ``message`` is looked into for calls of tools and a refusal beside the content."""
    message = message or {}
    name = role.strip() if isinstance(role, str) else None
    ours = ROLES.get(name.lower(), name) if name else None
    parts = _parts(content)
    words = [text for text, is_result in parts if text and not is_result]
    results = [TOOL_RESULT for _, is_result in parts if is_result]
    if ours == "tool":
        tool = message.get("name")
        return Said("assistant", f"[tool result: {tool}]" if isinstance(tool, str) and tool else TOOL_RESULT)
    if ours == "user":
        return Said("user", "\n".join(words)) if words or not results else Said("assistant", "\n".join(results))
    if ours != "assistant":
        return Said(ours, "\n".join(words))
    text = spoken("\n".join(words))
    refusal = message.get("refusal")
    calls = [call for name in ("tool_calls", "function_call", "toolCalls") for call in _calls(message.get(name)) if call not in words]
    return Said("assistant", "\n".join(filter(None, (text, refusal if isinstance(refusal, str) else "", *calls, *results))))


def attached(files: Any) -> list[Mapping[str, str]]:
    """Files that a system keeps beside the content of a message, as parts of it: what they are, without the text in them."""
    found: list[Mapping[str, str]] = []
    for file in files if isinstance(files, list) else []:
        kind = f"{file.get('type', '')} {file.get('content_type', '')}".lower() if isinstance(file, Mapping) else ""
        found.append({"type": next((name for name, _ in _MEDIA if name in kind), "file")})
    return found


def listed(content: Any) -> Any:
    """A list of parts that is written as JSON text; any other content as it is."""
    found = parsed(content) if isinstance(content, str) else None
    is_parts = isinstance(found, list) and found and all(isinstance(each, Mapping) and "type" in each for each in found)
    return found if is_parts else content


@dataclass(frozen=True, slots=True)
class Inserted:
    """What a program puts into texts.

    Attributes:
        tags: Tags of elements that go with what they enclose; the groups `opened` and `closed` have the name.
        others: What else goes.
    """

    tags: re.Pattern[str]
    others: re.Pattern[str]

    @classmethod
    def of(cls, elements: str, others: re.Pattern[str]) -> Inserted:
        """Elements by their names, alternatives of a pattern in which capitals do not matter."""
        return cls(re.compile(rf"<(?:(?P<opened>{elements})\b[^<>]*|/(?P<closed>{elements}))>", re.IGNORECASE), others)

    def without(self, text: str) -> str:
        """The text without it. An element that nothing closes stays."""
        text = self.others.sub("", text)
        tags = list(self.tags.finditer(text))
        closings: dict[str, list[re.Match[str]]] = {}
        for tag in reversed(tags):
            if tag["closed"]:
                closings.setdefault(tag["closed"].lower(), []).append(tag)
        left, at = [], 0
        for tag in tags:
            ends = closings.get((tag["opened"] or "").lower(), [])
            while ends and ends[-1].start() < max(at, tag.end()):
                ends.pop()
            if ends and tag.start() >= at:
                left.append(text[at : tag.start()])
                at = ends[-1].end()
        return "".join([*left, text[at:]])


def cleared(content: Any, inserted: Inserted) -> Any:
    """A content without what a program has put into its texts; the result of a tool stays as it is."""
    if isinstance(content, str):
        left = inserted.without(content)
        return content if left == content else left.strip()
    if isinstance(content, list):
        return [cleared(each, inserted) for each in content]
    is_text = isinstance(content, Mapping) and isinstance(content.get("text"), str)
    return {**content, "text": cleared(content["text"], inserted)} if is_text else content


def text_of(content: Any) -> str:
    """The text of a content in parts, with markers; see the module."""
    return "\n".join(text for text, _ in _parts(content) if text)


def _parts(content: Any) -> list[tuple[str, bool]]:
    """Texts of a content, each with whether it is the result of a tool."""
    if content is None or isinstance(content, bool):
        return []
    if isinstance(content, str):
        return [(content, False)]
    if isinstance(content, int | float):
        return [(str(content), False)]
    if isinstance(content, list):
        return [part for each in content for part in _parts(each)]
    return _part(content) if isinstance(content, Mapping) else []


def _part(part: Mapping[str, Any]) -> list[tuple[str, bool]]:
    kind = part.get("type", part.get("content_type"))
    kind = kind.lower() if isinstance(kind, str) else ""
    if kind in _THOUGHTS or part.get("thought") is True or kind.startswith(_UNSEEN):
        return []
    if (
        kind in _RESULTS
        or kind.endswith(("tool_result", "_tool_output", "_call_output"))
        or part.get("functionResponse", part.get("function_response"))
    ):
        return [(TOOL_RESULT, True)]
    call = next((part[name] for name in ("functionCall", "function_call") if part.get(name)), part)
    if call is not part or kind in _CALLS or "toolName" in part:
        return [(text, False) for text in _calls(call)]
    if kind.endswith("_call"):
        return [(text, False) for text in _calls({"name": kind.removesuffix("_call"), **part})]
    if kind.startswith("tool-"):  # of the Vercel AI SDK's interfaces, with the tool's name
        return [(f"[tool call: {kind.removeprefix('tool-')}]", False)]
    data = next(
        (part[name] for name in ("inlineData", "inline_data", "fileData", "file_data") if isinstance(part.get(name), Mapping)), None
    )
    if data is not None:
        return _part({"type": "file", **data})
    if kind == "refusal":
        return _parts(part.get("refusal"))
    if kind and kind not in _WHOLE_TEXT and not kind.endswith("transcription"):
        modality = f"{kind} {part.get('modality', '')} {part.get('mime_type', part.get('mimeType', ''))}".lower()
        for name, marker in _MEDIA:
            if name in modality:
                return [(marker, False)]
    for name in _NAMES:
        if part.get(name) is not None:
            return _parts(parsed(part[name]) if name == "parts" else part[name])
    for name, marker in (("image_url", IMAGE), ("image", IMAGE), ("input_audio", AUDIO), ("file", FILE), ("source", FILE)):
        if part.get(name) is not None:
            return [(marker, False)]
    return [(f"[{kind}]", False)] if kind and kind not in _WHOLE_TEXT else []


def _calls(calls: Any) -> list[str]:
    """Markers of calls of tools."""
    calls = parsed(calls)
    if isinstance(calls, Mapping):
        calls = [calls]
    found = []
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, Mapping):
            within = call.get("tool_call")
            call = within if isinstance(within, Mapping) else call
            function = call.get("function")
            name = function.get("name") if isinstance(function, Mapping) else call.get("name", call.get("tool_name", call.get("toolName")))
            kind = call.get("type")
            if not name and isinstance(kind, str) and kind not in _CALLS and kind.endswith("_call"):  # a tool of the system's own
                name = kind.removesuffix("_call")
            found.append(f"[tool call: {name}]" if isinstance(name, str) and name else "[tool call]")
    return found
