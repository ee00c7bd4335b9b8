r"""Whether a solution ends in the known answer: the final answer is taken out of the text, and math-verify compares the two.

What belongs here: finding the final answer, and one comparison. What does not: the many spellings of the same answer (``math_spelling``),
answers that are a letter (``choice_answers``), and time-outs that hold whatever happens (math-verify's own rest on SIGALRM, which only
reaches Python code of the main thread): solutions of models go through ``workers.verify``.

The final answer is, in this order: the last ``\boxed{...}``; what stands in the last ``<answer>``; what follows the last ``# Answer``
(PRM800K's layout); the line of the last ``Answer:``; a last line that starts with ``####`` (GSM8K's layout); the last sentence that says
"answer is"; and, unless only an announced answer counts, the last expression of the text. Where the known answer lists several, boxes
that follow each other in one sentence are one answer. Thoughts and control tokens of chat templates are no part of a solution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

import polars as pl

from rlhi_dagster.base import control_tokens
from rlhi_dagster.base.boxes import boxes
from rlhi_dagster.base.thoughts import spoken
from rlhi_dagster.reasoning import math_spelling as spelling

_CONTROL = re.compile(control_tokens.PATTERN)
_TAG = re.compile(r"<answer>([^<]*)</answer>", re.IGNORECASE)
_HEADING = re.compile(r"(?<!#)#++[ \t]*+Answer:?[ \t]*+\n*+[ \t]*+([^\n]+)", re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*+([^\n#]++)\s*+\Z")
_NOUN = "(?:\\banswer|\\brespuesta|\\bresposta|\\brisposta|\\bréponse|\\bantwort|\\bответ|答案|答え)"
_LABEL = re.compile(rf"{_NOUN}\**[ \t]*:[ \t]*\**[ \t]*([^\n]+)", re.IGNORECASE)
_SENTENCE = re.compile(rf"{_NOUN}(?: (?:is|equals|es|est|é|è|ist|lautet)\b|是|为|は)[:\s]*", re.IGNORECASE)
_WITH_UNIT = re.compile(r"([-+]?[\d.,/]*\d)\s+[A-Za-z][A-Za-z ]*")
_OPTION = re.compile(r"\(?([A-Z])(?:[).:].*|,? (?:because|since|as) .*)?", re.DOTALL)
"""A choice by its letter, with or without what it says."""
_WORD = re.compile(r"(?<![\\A-Za-z])(?!(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|max|min|gcd|lcm|mod|inf)\b)[A-Za-z]{2,}")
_QUANTITY = re.compile(r"\d(?:[\d.,/]*\d)?")
_POWER_OF_UNIT = re.compile(r"(?<=[A-Za-z])\^\{?-?\d\}?")
_SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w{]|\.\d)")
_MIXED = re.compile(r"(?<![\d.,/])(\d+) +(\d+)/(\d+)(?![\d.,/])")
_SMALL, _CLOSE = 1e-3, (1e-12, 1e-3)
"""Below this, numbers need to be this near, by share: exact ones, and those that are rounded."""
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_MARKS_BACKWARDS = re.compile(r"\A(?:[\s*.;。]|[$,](?!\\)|[)\]]\\)+")
"""Marks at the end of an answer, read from there: forwards, every mark within it would have to be tried."""
_SENTENCE_CHARACTERS = 300
_BOXED = r"$\boxed"
_NEIGHBOURS = 30
"""Most characters between boxes of one answer."""
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
        tolerance: Largest absolute difference of two numbers that are the same; ``None`` for exact ones.
    """

    known: str
    text: str
    announced_only: bool = False
    tolerance: float | None = None


SOLUTION_SCHEMA = {"known": pl.String(), "text": pl.String(), "announced_only": pl.Boolean(), "tolerance": pl.Float64()}
"""The fields of `Solution`, in order."""


def announced_answer(solution: str) -> str | None:
    r"""The final answer as the solution announces it, without ``$`` and a final full stop; ``None`` if it announces none."""
    return _announced(_said(solution), 1)


def grade(item: Solution) -> Grade:
    """Compare a solution's final answer with the known one; main thread only, since math-verify sets an alarm."""
    from math_verify.errors import TimeoutException

    known, text = _said(item.known), _said(item.text)
    reference = spelling.plain(_announced(known, 1) or _bare(known))
    announced, sentence = _announced(text, len(spelling.parts(reference))), _sentence(text)
    answer = announced if announced is not None else _bare(re.split("[\n。]", sentence)[0]) if sentence else None
    if answer is None and (item.announced_only or _is_words(reference)):
        return Grade.NO_ANSWER
    if answer is not None and (is_same := _same_as_text(reference, spelling.plain(answer))) is not None:
        return Grade.RIGHT if is_same else Grade.WRONG
    spoken = _spoken(sentence) if sentence else text[-_MOST_CHARACTERS:]
    shown = _shown(spelling.plain(announced), is_boxed=_last_box(text) is not None) if announced is not None else spoken
    try:
        if not (read := _parsed(shown)):
            return Grade.NO_ANSWER
        expected = _parsed(_boxed(spelling.without_unit(reference)), keeps_letters=True)
        is_right = _is_equal(expected, read, item.tolerance)
        if not is_right and not spelling.is_number(reference):
            is_right = _is_equal(expected, _parsed(shown, keeps_letters=True), item.tolerance)
        if is_right and announced is not None and _has_repeats(reference):
            is_right = _same_list(reference, spelling.plain(announced))
        return Grade.RIGHT if is_right else Grade.WRONG
    except TimeoutException:
        return Grade.UNDECIDED


def _said(text: str) -> str:
    """A text without thoughts and control tokens, in the characters of LaTeX."""
    return _CONTROL.sub(" ", spoken(text)).translate(spelling.CHARACTERS)


def _announced(solution: str, count: int) -> str | None:
    if (boxed := _last_box(solution, count)) is not None:
        return _bare(boxed)
    for pattern in (_TAG, _HEADING, _LABEL, _HASHES):
        if found := pattern.findall(solution):
            answer = _bare(found[-1])
            measured = _WITH_UNIT.fullmatch(answer)
            return measured.group(1) if measured else answer
    return None


def _sentence(text: str) -> str | None:
    """What comes after the last "answer is"."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    return text[ends[-1] : ends[-1] + _SENTENCE_CHARACTERS].strip() or None if ends else None


def _same_as_text(reference: str, answer: str) -> bool | None:
    """Whether words, letters of choices, times of day or numbers in a base are the same; ``None`` for formulas."""
    if spelling.same_words(answer, reference):
        return True
    if _is_words(reference):
        return False
    if (choice := _option(reference)) and (chosen := _option(answer)):
        return chosen == choice
    if (based := spelling.in_base(reference)) and (given := spelling.in_base(answer)):
        return based == given
    return spelling.same_time(reference, answer)


def _parsed(text: str, *, keeps_letters: bool = False) -> list[Any]:
    """What math-verify reads in a text; nothing where it fails, but a time-out is raised.

    Unless it keeps letters, math-verify takes a last letter (``t``, ``c``, ``m``) for a unit and drops it. Of a box that is no formula to
    it, it would read the last number alone, so there it is not asked for numbers.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse
    from math_verify.parser import NormalizationConfig

    reading = NormalizationConfig(basic_latex=True, units=not keeps_letters, malformed_operators=True, nits=True, boxed="all")
    formulas = LatexExtractionConfig(normalization_config=reading)
    configs = [formulas] if text.startswith(_BOXED) else [formulas, ExprExtractionConfig()]
    try:
        found: list[Any] = parse(_MIXED.sub(r"\1\\frac{\2}{\3}", text), extraction_config=configs, raise_on_error=True)
    except Exception:
        return []
    return found


def _is_equal(known: list[Any], given: list[Any], tolerance: float | None) -> bool:
    """Whether two readings are the same; of a percentage and a plain number, also when the per cent sign is dropped."""
    from math_verify import verify

    if not known or not given:
        return False
    try:
        pairs = [(known[0], given[0])]
        shares = [_per_cent(each) for each in pairs[0]]
        if (shares[0] is None) != (shares[1] is None):
            pairs.append((shares[0] or known[0], shares[1] or given[0]))
        return any(
            (verify(one, other, allow_set_relation_comp=True, raise_on_error=True) and not _differ_below_rounding(one, other))
            or _is_near(one, other, tolerance)
            for one, other in pairs
        )
    except Exception:
        return False


def _has_repeats(answer: str) -> bool:
    listed = spelling.parts(answer)
    return len(set(listed)) < len(listed)


def _same_list(known: str, given: str) -> bool:
    """Whether two lists have the same answers equally often, in any order; to math-verify they are sets."""
    rest = [_parsed(_boxed(each)) for each in spelling.parts(given)]
    for each in spelling.parts(known):
        place = next((place for place, other in enumerate(rest) if _is_equal(_parsed(_boxed(each)), other, None)), None)
        if place is None:
            return False
        del rest[place]
    return not rest


def _is_near(known: Any, given: Any, tolerance: float | None) -> bool:
    """Whether two numbers are no farther apart than the tolerance; without one, decimals than computers round them."""
    pair = [getattr(each, "rhs", each) for each in (known, given)]
    if not all(getattr(each, "is_number", False) for each in pair):
        return False
    one, other = (each.doit().evalf(30) for each in pair)
    if tolerance is None:
        tolerance = _CLOSE[0] * abs(one) if _has_decimals(pair) else 0.0
    return bool(tolerance and abs(one - other) <= tolerance * (1 + 1e-9))


def _has_decimals(values: Iterable[Any]) -> bool:
    return any(atom.is_Float for value in values for atom in value.atoms())


def _differ_below_rounding(known: Any, given: Any) -> bool:
    """Whether two numbers are the same to math-verify only because it rounds to six decimals."""
    pair = [getattr(each, "rhs", each) for each in (known, given)]
    if not all(getattr(each, "is_number", False) and _per_cent(each) is None for each in pair):
        return False
    one, other = (each.evalf(30) for each in pair)
    largest = max(abs(one), abs(other))
    near = _CLOSE[_has_decimals(pair)]
    return bool(largest < _SMALL and abs(one - other) > near * largest)


def _per_cent(value: Any) -> Any | None:
    """The number before a per cent sign; ``None`` if there is none."""
    if not getattr(value, "is_Mul", False):
        return None
    rest = [part for part in value.args if type(part).__name__ != "UnevaluatedExpr"]
    return value.func(*rest) if len(rest) < len(value.args) else None


def _last_box(text: str, count: int = 1) -> str | None:
    """What is in the last box that is not empty; of boxes close together that hold ``count`` answers, all of it."""
    found: list[str] = []
    begin = None
    for start, end, inside in boxes(text):
        if not inside.strip():
            continue
        if begin is not None and not 0 <= begin - end <= _NEIGHBOURS:
            break
        found.insert(0, inside)
        begin = start
        if sum(len(spelling.parts(each)) for each in found) >= count:
            break
    return ", ".join(map(_bare, found)) if len(found) > 1 else found[0] if found else None


def _bare(answer: str) -> str:
    bare = re.sub(r"\A(?:[\s$*]|\\[(\[])+", "", answer)
    end = _MARKS_BACKWARDS.match(bare[::-1])
    bare = bare[: len(bare) - end.end()] if end else bare
    return re.sub(r"^[\u2013\u2014](?=[\d.\\])", "-", bare)


def _shown(answer: str, *, is_boxed: bool) -> str:
    """An announced answer as math-verify is to read it: a formula, or a sentence where it is one quantity among words."""
    answer = spelling.without_unit(answer)
    text = _TEXT_COMMAND.fullmatch(answer)
    words = text.group(1) if text else answer
    if (text or not is_boxed) and _WORD.search(words) and len(_QUANTITY.findall(_POWER_OF_UNIT.sub("", words))) == 1:
        return _spoken(words)
    return _boxed(answer)


def _spoken(answer: str) -> str:
    return _SCIENTIFIC.sub(lambda number: f"{Decimal(number[0]):f}", f"The answer is {answer}")


def _option(answer: str) -> str | None:
    found = _OPTION.fullmatch(spelling.words(answer))
    return found.group(1) if found else None


def _boxed(answer: str) -> str:
    return _SCIENTIFIC.sub(r"\1\\times 10^{\2}", f"{_BOXED}{{{answer}}}$")


def _is_words(answer: str) -> bool:
    """Words are compared as text: as a formula, "Saturday" would be the product of its letters."""
    plain = spelling.words(answer)
    return _WORDS.fullmatch(plain) is not None and "\\" not in plain
