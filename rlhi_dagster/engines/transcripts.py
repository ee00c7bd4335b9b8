"""From a conversation to the tokens that a reward model reads: the chat template, applied once, and never cut.

What belongs here: what every local reward engine needs before its model. What does not: prompts that await a reply (``prompts``), and
control tokens that stand in messages, which are text to the model (``control_tokens``).
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from rlhi_dagster.engines.base import Messages, RewardAnswer, RewardRequest
from rlhi_dagster.engines.control_tokens import control_tokens_of

_PROBE: Messages = [
    {"role": "system", "content": "kestrel"},
    {"role": "user", "content": "yes"},
    {"role": "assistant", "content": "no"},
]


class Transcripts:
    """Renders conversations with one tokenizer.

    Args:
        model: Name of the model, for messages.
        tokenizer: Its tokenizer; what it would add of its own at the ends of a text is left out, the template has it.
        context: Most tokens of a conversation, ``ending`` among them.
        ending: Tokens that the model wants behind the template's.

    Raises:
        ValueError: The tokenizer has no chat template.
    """

    def __init__(self, model: str, tokenizer: Any, context: int, ending: tuple[int, ...] = ()) -> None:
        if not tokenizer.chat_template:
            raise ValueError(f"{model}: its tokenizer has no chat template, so there is no telling how it reads a conversation")
        self.tokenizer, self.context, self.ending = tokenizer, context, ending
        self.shows_system = self._shows_system()

    def __call__(self, request: RewardRequest) -> list[int] | RewardAnswer:
        """The conversation's tokens, or the error row of one that is too long or that the template cannot show."""
        if not self.shows_system and any(message["role"] == "system" for message in request.messages):
            advice = "the chat template shows no system message; set reward.persona_placement to first_user"
            return RewardAnswer(None, f"no_system_role: {advice}", 0)
        try:
            said = control_tokens_of(self.tokenizer).messages(request.messages)
            rendered = self.tokenizer.apply_chat_template(said, return_dict=True)["input_ids"]
        except TemplateError as error:
            return RewardAnswer(None, f"template_refused: {type(error).__name__} in the model's chat template", 0)
        ids = [*rendered, *self.ending]
        if len(ids) > self.context:
            return RewardAnswer(None, f"conversation_too_long: {len(ids)} tokens, context {self.context}", len(ids))
        return ids

    def _shows_system(self) -> bool:
        """Some templates refuse a system message and some drop it, which would make a persona nothing without a word."""
        try:
            return str(_PROBE[0]["content"]) in self.tokenizer.apply_chat_template(_PROBE, tokenize=False)
        except TemplateError:
            return False
