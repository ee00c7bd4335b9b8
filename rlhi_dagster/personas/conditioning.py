"""Showing a persona to a model: the one place that turns a persona into a message."""

from __future__ import annotations

import functools
from importlib.resources import files

Messages = list[dict[str, str]]


@functools.cache
def _prompt() -> str:
    return (files("rlhi_dagster") / "prompts" / "persona.md").read_text().strip()


def with_persona(messages: Messages, persona: str) -> Messages:
    """The conversation with the persona as its system message; an empty persona adds nothing."""
    if not persona:
        return list(messages)
    return [{"role": "system", "content": _prompt().format(persona=persona)}, *messages]
