"""The dear labeller: a chat model that makes one constrained choice per follow-up, then copies the words that carry the feedback.

What belongs here: the two questions, and what is made of the answers. What does not: calling the model (handed in as ``chat``) and who
decides which follow-ups it sees (``cascade``).

A choice is one letter, so its probability is the model's probability of that letter among the six. A span is kept only if it is an exact
substring of the follow-up: whatever else a model writes is not what the user said.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.base.tables import FEEDBACK_LABELS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages
from rlhi_dagster.engines.questions import Chat, choice_probabilities, question, template
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels.follow_ups import rows
from rlhi_dagster.feedback.labels.metrics import LABELS

LETTERS = tuple("ABCDEF")
"""Of each label in the order of ``LABELS``, as ``prompts/feedback.md`` lists them."""

SHOWN_CHARACTERS = {"request": 2_000, "answer": 3_000, "follow_up": 4_000}
"""Longer texts are shown with their middle left out, which is marked; a reaction is told by the beginnings and ends."""

_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"


@dataclass(frozen=True, slots=True)
class ChatLabeller:
    """A chat model as labeller; follow-ups that it gives no answer to get no label.

    Attributes:
        model: Identity of the model.
        chat: The model.
        question: Asks for the label, with ``{request}``, ``{answer}`` and ``{follow_up}``.
        span_question: Asks for the words that say what to change, with the same.
    """

    model: str
    chat: Chat
    question: str
    span_question: str

    @classmethod
    def with_default_prompts(cls, model: str, chat: Chat) -> ChatLabeller:
        """A labeller with ``prompts/feedback.md`` and ``prompts/feedback_span.md``."""
        return cls(model, chat, template("feedback"), template("feedback_span"))

    @property
    def name(self) -> str:
        """See ``Labeller.name``: model and digest of the questions."""
        return f"{self.model}+{hashlib.sha256((self.question + self.span_question).encode()).hexdigest()[:8]}"

    def label(self, follow_ups: pl.DataFrame) -> pl.DataFrame:
        """See ``Labeller.label``."""
        chosen = self.chat([ChatRequest(_asked(self.question, row), choices=LETTERS) for row in follow_ups.to_dicts()])
        given = [answer for answer in chosen if answer.text is not None]
        answered = follow_ups.filter(pl.Series([answer.text is not None for answer in chosen], dtype=pl.Boolean))
        if not given:
            return FEEDBACK_LABELS.empty()
        probabilities = np.array([choice_probabilities(answer, LETTERS) for answer in given])
        spans = self._spans(answered, probabilities)
        calls = [[each.call_id for each in (answer, span) if each is not None] for answer, span in zip(given, spans, strict=True)]
        said = [exact_span(span.text if span else None, text) for span, text in zip(spans, answered["follow_up"], strict=True)]
        return rows(answered, probabilities, self.name, said, calls)

    def _spans(self, follow_ups: pl.DataFrame, probabilities: np.ndarray) -> list[ChatAnswer | None]:
        """What each follow-up asks to change, in the user's words; asked of re-attempts with feedback only."""
        is_asked = probabilities.argmax(axis=1) == LABELS.index(Feedback.REATTEMPT_WITH_FEEDBACK)
        asked = follow_ups.filter(pl.Series(is_asked))
        answers = iter(self.chat([ChatRequest(_asked(self.span_question, row)) for row in asked.to_dicts()]))
        return [next(answers) if wanted else None for wanted in is_asked]


def exact_span(answer: str | None, follow_up: str) -> str | None:
    """The answer without surrounding white space and quotation marks if the follow-up has it word for word, else ``None``."""
    text = (answer or "").strip()
    for candidate in (text, text.strip(_QUOTES).strip()):
        if candidate and candidate in follow_up:
            return candidate
    return None


def _asked(text: str, row: dict[str, Any]) -> Messages:
    shown = {"request": row["previous_prompt"], "answer": row["previous_reply"], "follow_up": row["follow_up"]}
    return question(text, shown, SHOWN_CHARACTERS)
