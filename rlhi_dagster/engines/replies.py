"""The one place where what a model wrote becomes a reply: what all chat engines share.

What belongs here: leaving out thoughts, and refusing what is then no reply. What does not: reading what an engine or a server gives.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rlhi_dagster.base.thoughts import spoken
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.schemas import checked

_FENCED = re.compile(r"\s*+```(?:json)?+(?>\s*\n)(.*)\n[^\S\n]*+```\s*+", re.DOTALL)


def replied(request: ChatRequest, written: ChatAnswer, *, begun: str = "", has_thoughts: bool = False) -> ChatAnswer:
    """The answer to a request, or an error row: ``only_thoughts``, or ``invalid_json`` under a schema.

    Args:
        request: What was asked.
        written: Its text is all that the model wrote, but for thoughts that stand elsewhere.
        begun: The tag of thoughts with which the prompt ended, if it did. A reply that is held to a schema cannot have any.
        has_thoughts: There are thoughts elsewhere.
    """
    text = f"{'' if request.json_schema else begun}{written.text}"
    said = spoken(text)
    if not said.strip() and (has_thoughts or said != text):
        is_cut = written.finish_reason == "length" and not request.choices
        told = "; the length limit cut it, max_new_tokens may be too small" if is_cut else ""
        return replace(written, text=None, finish_reason=None, error=f"only_thoughts: the reply is thoughts and nothing else{told}")
    fenced = _FENCED.fullmatch(said) if request.json_schema else None
    return checked(request, replace(written, text=fenced[1] if fenced else said))
