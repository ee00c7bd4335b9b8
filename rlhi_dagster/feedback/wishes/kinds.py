"""Which wish a complaint has, told by rule: the lexicon of style requests, and what the complaint does with the answer.

What belongs here: the wishes that a rule can tell, and their names. What does not: the lexicon (``aspects``), the cues (``labels.cues``),
and complaints that no rule knows (``clusters``).

The order counts: what says most about the answer comes first. A request that was sent once more with a change in it names the change
nowhere, so a style request counts there only if the message before had not said it. A programming language comes last: programmers name it
in passing.
"""

from __future__ import annotations

from enum import StrEnum

from rlhi_dagster.feedback import Aspect
from rlhi_dagster.feedback.aspects import AspectRequest, requests, windows
from rlhi_dagster.feedback.labels.cues import is_repeat, signs


class Kind(StrEnum):
    """Wishes beside those of the lexicon, as they are shown."""

    DOES_NOT_WORK = "it does not work"
    CHANGED_REQUEST = "the same request, changed"
    CORRECTION = "a correction"
    LENGTH = "a certain length"
    ADDITION = "something added"
    EDIT = "the answer edited"


_BY_WORDS = {
    Kind.CORRECTION: ("correction", "doubt", "starts_no"),
    Kind.LENGTH: ("target_length",),
    Kind.ADDITION: ("extend_verb",),
    Kind.EDIT: ("edit_verb", "make_it", "starts_edit"),
}
"""Cues of each kind, looked for where people put their instructions (``aspects.windows``), not in what they paste."""


def wish_of(text: str, previous_prompt: str) -> str | None:
    """The wish of a complaint, ``None`` if no rule tells one.

    Args:
        text: The complaint; of several style requests in it the first in the order of ``feedback.Aspect`` counts.
        previous_prompt: The user's message before it.
    """
    repeats = is_repeat(text, previous_prompt)
    known = {(each.aspect, each.value) for each in requests(previous_prompt)} if repeats else set()
    asked = [each for each in requests(text) if (each.aspect, each.value) not in known]
    of_style = (each for each in asked if each.aspect is not Aspect.PROGRAMMING_LANGUAGE)
    if told := next(of_style, None):
        return _name(told)
    anywhere = signs(text)
    if anywhere["does_not_work"] or anywhere["code_trace"]:
        return Kind.DOES_NOT_WORK
    if repeats:
        return Kind.CHANGED_REQUEST
    words = signs(" ".join(windows(text)))
    kind = next((kind for kind, names in _BY_WORDS.items() if any(words[name] for name in names)), None)
    return kind or next(map(_name, asked), None)


def _name(asked: AspectRequest) -> str:
    return asked.line.removeprefix("Prefers ").removesuffix(".")
