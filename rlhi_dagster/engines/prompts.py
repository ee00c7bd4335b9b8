"""From messages to the tokens that a model reads, shared by the local engines: the chat template, applied once, and the room left."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages, Sampling, too_long


class Prompts:
    """Renders with one tokenizer; samples of the same messages, which follow one another, are rendered once."""

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        self._last: tuple[Messages, list[int]] | None = None

    def __call__(self, request: ChatRequest, sampling: Sampling) -> list[int] | ChatAnswer:
        """The prompt's tokens, or the error row of a prompt that has no room or that the template refuses."""
        if self._last is None or self._last[0] != request.messages:
            try:
                rendered = self.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True)
            except TemplateError as error:
                return ChatAnswer(None, f"template_refused: {type(error).__name__} in the model's chat template", None, 0, 0)
            self._last = request.messages, rendered["input_ids"]
        ids = self._last[1]
        return too_long(request, len(ids), sampling, self.context) or ids
