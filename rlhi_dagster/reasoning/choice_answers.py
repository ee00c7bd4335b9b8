"""Which letter a reply to a multiple choice question gives: the three expressions of MMLU-Pro's own evaluation, tried in order.

What belongs here: from a reply to a letter. What does not: answers that are numbers or formulas (``math_answers``).

Source: ``extract_answer``, ``extract_again`` and ``extract_final`` of TIGER-AI-Lab/MMLU-Pro, which its leaderboard and most papers use: the
first "answer is (X)"; else the last "Answer: X" of the first line that has one; else the last capital letter that stands alone. The third
also takes the "I" of a sentence; it is kept, for the numbers to be comparable. There, a reply without a letter gets one by lot; here it
has none, and whoever counts says whether that is wrong.
"""

from __future__ import annotations

import re

from rlhi_dagster.base import control_tokens
from rlhi_dagster.base.thoughts import spoken
from rlhi_dagster.reasoning.math_answers import Grade

_CONTROL = re.compile(control_tokens.PATTERN)
_SENTENCE = re.compile(r"answer is \(?([A-J])\)?")
_LABEL = re.compile(r"[aA]nswer:(?=\s*([A-J]))")
_ALONE = re.compile(r"\b[A-J]\b")


def chosen_letter(reply: str) -> str | None:
    """The letter, A to J; ``None`` if the reply has none. Thoughts and control tokens are no part of it."""
    said = _CONTROL.sub(" ", spoken(reply))
    if found := _SENTENCE.search(said):
        return found[1]
    if labels := list(_LABEL.finditer(said)):
        end = said.find("\n", labels[0].start())
        return [label[1] for label in labels if end < 0 or label.start() < end][-1]
    return alone[-1] if (alone := _ALONE.findall(said)) else None


def grade_choice(known: str, reply: str) -> Grade:
    """Whether a reply chooses the known letter."""
    letter = chosen_letter(reply)
    return Grade.NO_ANSWER if letter is None else Grade.RIGHT if letter == known else Grade.WRONG
