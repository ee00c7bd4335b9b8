"""Who tells whether a follow-up's criticism fits a reply, and whether a rewrite does what a follow-up asks.

What belongs here: the interface and the judges (``rule``, ``town``, ``village``, a chat model by prompt). What does not: which of them a
profile names (``roles``), the rules themselves (``criticism_fits``), calling a model (handed in as ``chat``), and what becomes of a verdict
(``reconstruction``, ``rewrites``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages
from rlhi_dagster.engines.questions import Chat, choice_probabilities, question, template
from rlhi_dagster.preferences import criticism_fits

YES, NO = "A", "B"
SHOWN_CHARACTERS = {"request": 2_000, "reply": 6_000, "original": 6_000, "follow_up": 4_000, "rewrite": 6_000}
"""Longer texts are shown with their middle left out, which is marked."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A follow-up and a reply that its user never saw.

    Attributes:
        prompt: The messages up to the reply.
        reply: The reply that the follow-up is held against.
        logged_reply: The reply that drew it.
        follow_up: The user's words.
    """

    prompt: Messages
    reply: str
    logged_reply: str
    follow_up: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A reply that drew feedback, and its rewrite.

    Attributes:
        prompt: The messages up to the reply.
        original: The reply that drew the feedback.
        feedback: The user's words.
        rewrite: The rewritten reply.
    """

    prompt: Messages
    original: str
    feedback: str
    rewrite: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict.

    Attributes:
        holds: Whether it is so; ``None`` if that cannot be told.
        probability: That it is so; ``None`` where a rule decided or the engine does not tell.
        call_ids: The model calls that it rests on, as keys of the response store; empty for a rule.
    """

    holds: bool | None
    probability: float | None = None
    call_ids: tuple[str, ...] = ()


class PairJudge(Protocol):
    """Judges follow-ups and rewrites, in order."""

    @property
    def name(self) -> str:
        """``rule``, ``town``, ``village``, or model and digest of the questions."""
        ...

    def applies(self, items: Sequence[FollowUp]) -> list[Judged]:
        """Whether what the follow-up criticises, or asks to change, exists in the reply or misses from it."""
        ...

    def meets(self, items: Sequence[Rewritten]) -> list[Judged]:
        """Whether the rewrite does what the feedback asks."""
        ...


@dataclass(frozen=True, slots=True)
class RulePairJudge:
    """Length, format and language, read off the texts: see ``applicability``. Other wishes cannot be told."""

    name: str = "rule"

    def applies(self, items: Sequence[FollowUp]) -> list[Judged]:
        """See ``PairJudge.applies``."""
        return [Judged(criticism_fits.follow_up_applies(item.follow_up, item.reply, item.logged_reply)) for item in items]

    def meets(self, items: Sequence[Rewritten]) -> list[Judged]:
        """See ``PairJudge.meets``."""
        return [Judged(criticism_fits.rewrite_meets(item.feedback, item.rewrite, item.original)) for item in items]


@dataclass(frozen=True, slots=True)
class TownPairJudge:
    """The sample town's grammar: reads a reply's style exactly, and knows nobody's preference."""

    name: str = "town"

    def applies(self, items: Sequence[FollowUp]) -> list[Judged]:
        """See ``PairJudge.applies``."""
        return [Judged(criticism_fits.town_follow_up_applies(item.follow_up, item.reply, item.logged_reply)) for item in items]

    def meets(self, items: Sequence[Rewritten]) -> list[Judged]:
        """See ``PairJudge.meets``; broken text, and text about another topic, meets nothing."""
        said = ([message["content"] for message in item.prompt if message["role"] == "user"] for item in items)
        return [
            Judged(criticism_fits.town_rewrite_meets(texts, item.feedback, item.rewrite)) for texts, item in zip(said, items, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class VillagePairJudge:
    """The village's checkers: read what a reply is like, and know nobody's preference; what the lexicon does not hear cannot be told."""

    name: str = "village"

    def applies(self, items: Sequence[FollowUp]) -> list[Judged]:
        """See ``PairJudge.applies``."""
        return [Judged(criticism_fits.village_follow_up_applies(item.follow_up, item.reply)) for item in items]

    def meets(self, items: Sequence[Rewritten]) -> list[Judged]:
        """See ``PairJudge.meets``."""
        return [Judged(criticism_fits.village_rewrite_meets(item.feedback, item.rewrite)) for item in items]


@dataclass(frozen=True, slots=True)
class ChatPairJudge:
    """A chat model that makes one constrained choice an item; what it gives no answer to cannot be told.

    Attributes:
        model: Identity of the model.
        chat: The model.
        applies_question: With ``{request}``, ``{reply}`` and ``{follow_up}``.
        meets_question: With ``{request}``, ``{original}``, ``{follow_up}`` and ``{rewrite}``.
    """

    model: str
    chat: Chat
    applies_question: str
    meets_question: str

    @classmethod
    def with_default_prompts(cls, model: str, chat: Chat) -> ChatPairJudge:
        """A judge with ``prompts/applicability.md`` and ``prompts/meets_feedback.md``."""
        return cls(model, chat, template("applicability"), template("meets_feedback"))

    @property
    def name(self) -> str:
        """See ``PairJudge.name``."""
        return f"{self.model}+{hashlib.sha256((self.applies_question + self.meets_question).encode()).hexdigest()[:8]}"

    def applies(self, items: Sequence[FollowUp]) -> list[Judged]:
        """See ``PairJudge.applies``."""
        shown = ({"request": _request(item.prompt), "reply": item.reply, "follow_up": item.follow_up} for item in items)
        return self._judged([question(self.applies_question, texts, SHOWN_CHARACTERS) for texts in shown])

    def meets(self, items: Sequence[Rewritten]) -> list[Judged]:
        """See ``PairJudge.meets``."""
        shown = (
            {"request": _request(item.prompt), "original": item.original, "follow_up": item.feedback, "rewrite": item.rewrite}
            for item in items
        )
        return self._judged([question(self.meets_question, texts, SHOWN_CHARACTERS) for texts in shown])

    def _judged(self, asked: list[Messages]) -> list[Judged]:
        answers = self.chat([ChatRequest(messages, choices=(YES, NO)) for messages in asked])
        return [_verdict(answer) for answer in answers]


def _request(prompt: Messages) -> str:
    return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")


def _verdict(answer: ChatAnswer) -> Judged:
    calls = (answer.call_id,) if answer.call_id else ()
    if answer.text is None:
        return Judged(None, None, calls)
    probability = choice_probabilities(answer, (YES, NO))[0]
    return Judged(probability >= 0.5, probability if answer.probabilities is not None else None, calls)
