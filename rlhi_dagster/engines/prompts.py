"""From messages to the tokens that a model reads, shared by the local engines: the chat template, applied once, and the room left.

Control tokens that stand in messages are text to the model (``control_tokens``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from rlhi_dagster.base.thoughts import begun
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages, Sampling, too_long
from rlhi_dagster.engines.control_tokens import control_tokens_of

_TAIL = 16
"""Tokens at a prompt's end in which a tag has room."""


class Prompts:
    """Renders with one tokenizer; samples of the same messages, which follow one another, are rendered once."""

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        self._last: tuple[Messages, list[int]] | None = None

    def __call__(self, request: ChatRequest, sampling: Sampling) -> list[int] | ChatAnswer:
        """The prompt's tokens, or the error row of a prompt that has no room or that the template refuses."""
        if self._last is None or self._last[0] != request.messages:
            try:
                said = control_tokens_of(self.tokenizer).messages(request.messages)
                rendered = self.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=True)
            except TemplateError as error:
                return ChatAnswer(None, f"template_refused: {type(error).__name__} in the model's chat template", None, 0, 0)
            self._last = request.messages, rendered["input_ids"]
        ids = self._last[1]
        return too_long(request, len(ids), sampling, self.context) or ids

    def begun(self, prompt: Sequence[int]) -> str:
        """The tag with which the template has a reply to this prompt begin with thoughts; empty if it does not."""
        return begun(self.tokenizer.decode(prompt[-_TAIL:]))
