"""Control tokens of chat templates that stand in text: what a log must not be able to write into a prompt.

What belongs here: the spellings that published models share, and how they become ordinary text. What does not: those of the one tokenizer
at hand (``engines/control_tokens.py``).

A tokenizer makes of ``<|im_end|>`` the token that ends a turn, also where a user wrote it. So a message could end itself and go on as a
system message, in prompts and in what is trained on. A space behind the first character leaves the text legible and makes ordinary tokens
of it. It is no invisible character, which some tokenizers drop before they look for control tokens; and it is text, so that a server,
which gets nothing else, reads what a model is trained on here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_NAME = r"[^\s<>|｜]+"
PATTERN = "|".join(
    [
        # ChatML, Llama 3, Phi, GLM, Command R, DeepSeek, Gemma 4, EXAONE
        rf"<[|｜]{_NAME}[|｜]?>|<{_NAME}[|｜]>|\[\|\w+\|\]",
        # Mistral, Llama 2
        r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK)\]|<</?SYS>>",
        r"</?s>|<(?:bos|eos|pad|unk|mask|sop|eop|eod|eot|eoa|eoh)>|\[(?:BOS|EOS|PAD|UNK|CLS|SEP|[gs]?MASK)\]",
        # Gemma, Nemotron, Seed, and what many write around thoughts and tools
        r"<(?:start|end)_of_\w+>|<(?:reserved|unused|extra_id|SPECIAL)_?\d+>|<seed:\w+>|</?(?:think|tool_call|tool_response)>",
    ]
)
"""Control tokens of published models, for Python's regular expressions and for Polars'."""
_COMPILED = re.compile(PATTERN)


def escaped(text: str) -> str:
    """The text with a space in every control token that is known; what is escaped stays as it is."""
    return _COMPILED.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text) if "<" in text or "[" in text else text


def escaped_messages(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Messages with their text ``escaped``."""
    return [{**message, "content": escaped(message["content"])} for message in messages]
