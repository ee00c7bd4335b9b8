"""Who rewrites a criticised reply, what it is asked, and the one repair of a rewrite that speaks of the feedback.

What belongs here: requests and answers of the rewriting model. What does not: which replies are rewritten and what becomes of the rewrites
(``rewrites``), and when a reply speaks of feedback (``mentions``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.questions import Chat, question, template, transcript
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.preferences import Strategy
from rlhi_dagster.preferences.feedback_talk import mentions_feedback

_PROMPTS = {Strategy.FEEDBACK: "rewrite", Strategy.SCRATCH: "rewrite_scratch"}


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What became of one criticised reply.

    Attributes:
        text: The rewrite, after repair if there was one; ``None`` on error.
        error: Why there is none.
        is_repaired: It was asked for once more, because the first one spoke of the feedback.
        mentions_feedback: It still does; ``None`` without a rewrite.
        call_ids: The model calls that wrote and repaired it.
    """

    text: str | None
    error: str | None
    is_repaired: bool
    mentions_feedback: bool | None
    call_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rewriter:
    """A model that rewrites, by instruction or by going on with the dialogue.

    Attributes:
        model: Identity of the model.
        chat: The model.
        form: ``instruction`` (``prompts/rewrite*.md``) or ``dialogue``, for models that know dialogues only.
    """

    model: str
    chat: Chat
    form: Literal["instruction", "dialogue"]

    def write(self, rows: Sequence[Mapping[str, Any]]) -> list[Rewrite]:
        """Rewrite each row, and once more those whose rewrite speaks of the feedback.

        Args:
            rows: strategy (not ``logged``), prompt, original, feedback and persona of each.
        """
        first = [written(row, answer) for row, answer in zip(rows, self.chat([self.request(row) for row in rows]), strict=True)]
        tripped = [index for index, each in enumerate(first) if each.mentions_feedback]
        answers = self.chat([self.repair(rows[index], str(first[index].text)) for index in tripped]) if tripped else []
        second = {index: _repaired(rows[index], first[index], answer) for index, answer in zip(tripped, answers, strict=True)}
        return [second.get(index, each) for index, each in enumerate(first)]

    def request(self, row: Mapping[str, Any]) -> ChatRequest:
        """What the model is asked for a row; nothing is cut, as what does not fit into the model's context is an error row.

        In a dialogue nothing asks for a revision, so ``scratch`` is a new reply to the same messages: a second sample, for the first may be
        the original itself.
        """
        strategy = Strategy(row["strategy"])
        if self.form == "instruction":
            shown = {
                "persona": row["persona"],
                "conversation": transcript(row["prompt"]),
                "original": row["original"],
                "follow_up": row["feedback"],
            }
            return ChatRequest(question(template(_PROMPTS[strategy]), shown))
        if strategy is Strategy.SCRATCH:
            return ChatRequest(with_persona(row["prompt"], row["persona"]), sample_index=1)
        said = [{"role": "assistant", "content": row["original"]}, {"role": "user", "content": row["feedback"]}]
        return ChatRequest(with_persona([*row["prompt"], *said], row["persona"]))

    def repair(self, row: Mapping[str, Any], text: str) -> ChatRequest:
        """What the model is asked for a row whose rewrite ``text`` speaks of the feedback; in a dialogue the next sample."""
        if self.form == "instruction":
            return ChatRequest(question(template("rewrite_repair"), {"request": last_message(row), "reply": text}))
        first = self.request(row)
        return replace(first, sample_index=first.sample_index + 1)


def written(row: Mapping[str, Any], answer: ChatAnswer) -> Rewrite:
    """A rewrite from the model's answer; a reply cut off at the limit is an error."""
    error = answer.failure
    text = None if error else answer.text
    return Rewrite(text, error, False, None if text is None else mentions_feedback(text, last_message(row)), _calls(answer))


def last_message(row: Mapping[str, Any]) -> str:
    """The message that the row's replies answer."""
    return str(row["prompt"][-1]["content"])


def _repaired(row: Mapping[str, Any], first: Rewrite, answer: ChatAnswer) -> Rewrite:
    """The second rewrite, or the first one where there is no second."""
    second = written(row, answer)
    return replace(first if second.text is None else second, is_repaired=True, call_ids=(*first.call_ids, *second.call_ids))


def _calls(answer: ChatAnswer) -> tuple[str, ...]:
    return (answer.call_id,) if answer.call_id else ()
