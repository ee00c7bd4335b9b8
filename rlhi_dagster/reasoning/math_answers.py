r"""Whether a solution ends in the known answer: the final answer is taken out of the text, and math-verify compares the two.

What belongs here: finding the final answer, and one comparison. What does not: time-outs that hold whatever happens (math-verify's own
rest on SIGALRM, which only reaches Python code of the main thread): solutions of models go through ``workers.verify``.

The final answer is, in this order: the last ``\boxed{...}``; what follows the last ``# Answer`` (PRM800K's layout); the line of the last
``Answer:``; the last sentence that says "answer is"; and, unless only an announced answer counts, the last expression of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HEADING = re.compile(r"#+[ \t]*Answer:?[ \t]*\n*[ \t]*([^\n]+)", re.IGNORECASE)
_LABEL = re.compile(r"\banswer\**[ \t]*:[ \t]*\**[ \t]*([^\n]+)", re.IGNORECASE)
_SENTENCE = re.compile(r"\banswer (?:is|equals)\b[:\s]*", re.IGNORECASE)
_WITH_UNIT = re.compile(r"([-+]?[\d.,/]*\d)\s+[A-Za-z][A-Za-z ]*")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_SENTENCE_CHARACTERS = 300
_MOST_CHARACTERS = 20_000
"""Of a text from whose end the last expression is taken; regular expressions over more take their time."""


class Grade(StrEnum):
    """What a comparison with the known answer gives."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The solution has no final answer."""
    UNDECIDED = "undecided"
    """It could not be told in time."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution to verify.

    Attributes:
        known: The known answer, as LaTeX or plain text, with or without ``$`` and a box.
        text: The solution.
        announced_only: Do not fall back on the last expression of the text: for solutions that stop half-way, where it is no answer.
    """

    known: str
    text: str
    announced_only: bool = False


def announced_answer(solution: str) -> str | None:
    r"""The final answer as the solution announces it, without ``$`` and a final full stop; ``None`` if it announces none."""
    if (boxed := _last_box(solution)) is not None:
        return _bare(boxed)
    for pattern in (_HEADING, _LABEL):
        if found := pattern.findall(solution):
            answer = _bare(found[-1])
            measured = _WITH_UNIT.fullmatch(answer)
            return measured.group(1) if measured else answer
    return None


def grade(item: Solution) -> Grade:
    """Compare a solution's final answer with the known one; main thread only, since math-verify sets an alarm."""
    from math_verify.errors import TimeoutException

    reference = announced_answer(item.known) or _bare(item.known)
    announced, sentence = announced_answer(item.text), _sentence(item.text)
    answer = announced if announced is not None else _bare(sentence.split("\n")[0]) if sentence else None
    if answer is None and (item.announced_only or _is_words(reference)):
        return Grade.NO_ANSWER
    if answer is not None and (_same_text(answer, reference) or _is_words(reference)):
        return Grade.RIGHT if _same_text(answer, reference) else Grade.WRONG
    spoken = f"The answer is {sentence}" if sentence else item.text[-_MOST_CHARACTERS:]
    shown = _boxed(announced) if announced is not None else spoken
    try:
        read = _parsed(shown)
        if not read:
            return Grade.NO_ANSWER
        return Grade.RIGHT if _is_equal(_parsed(_boxed(reference)), read) else Grade.WRONG
    except TimeoutException:
        return Grade.UNDECIDED


def _sentence(text: str) -> str | None:
    """What comes after the last "answer is"."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    return text[ends[-1] : ends[-1] + _SENTENCE_CHARACTERS].strip() or None if ends else None


def _parsed(text: str) -> list[Any]:
    """What math-verify reads in a text; nothing where it fails, but a time-out is raised."""
    from math_verify import parse

    try:
        found: list[Any] = parse(text, raise_on_error=True)
    except Exception:
        return []
    return found


def _is_equal(known: list[Any], given: list[Any]) -> bool:
    from math_verify import verify

    try:
        return bool(verify(known, given, raise_on_error=True))
    except Exception:
        return False


def _last_box(text: str) -> str | None:
    """What is in the last box whose braces close."""
    for opening in reversed(list(_BOX.finditer(text))):
        depth = 1
        for end in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            if not depth:
                return text[opening.end() : end]
    return None


def _bare(answer: str) -> str:
    return re.sub(r"^[\s$*]+|[\s$*.]+$", "", answer.replace("\u2212", "-"))


def _boxed(answer: str) -> str:
    return f"$\\boxed{{{answer}}}$"


def _plain(answer: str) -> str:
    return _TEXT_COMMAND.sub(r"\1", answer)


def _same_text(first: str, second: str) -> bool:
    one, other = (re.sub(r"[\s$]+|\\[,;! ]", "", _plain(text)).lower() for text in (first, second))
    return bool(one) and one == other


def _is_words(answer: str) -> bool:
    """Words are compared as text: as a formula, "Saturday" would be the product of its letters."""
    return _WORDS.fullmatch(_plain(answer).strip()) is not None and "\\" not in _plain(answer)
