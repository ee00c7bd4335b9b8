"""Showing a persona to a model: the one place that puts a persona into a conversation."""

from __future__ import annotations

from enum import StrEnum

from rlhi_dagster.engines.base import Messages
from rlhi_dagster.engines.questions import question, template


class PersonaPlacement(StrEnum):
    """Where a model sees the persona."""

    SYSTEM = "system"
    """As a system message before all others: what policies and judges get."""
    FIRST_USER = "first_user"
    """As the first paragraph of the first user message, for models whose chat template knows no system role."""


def with_persona(messages: Messages, persona: str, placement: PersonaPlacement = PersonaPlacement.SYSTEM) -> Messages:
    """The conversation with the persona in view; an empty persona adds nothing.

    Raises:
        ValueError: The persona belongs into the first user message, and there is none.
    """
    if not persona:
        return list(messages)
    paragraph = question(template("persona").strip(), {"persona": persona})[0]["content"]
    if placement is PersonaPlacement.SYSTEM:
        return [{"role": "system", "content": paragraph}, *messages]
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise ValueError("a conversation without a user message has no place for the persona: use persona_placement system")
    asked = {**messages[first], "content": f"{paragraph}\n\n{messages[first]['content']}"}
    return [*messages[:first], asked, *messages[first + 1 :]]
