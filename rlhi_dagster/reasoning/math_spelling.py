r"""One spelling for what can be written in several ways: signs, LaTeX that only looks, units, currencies, bases, times of day.

What belongs here: rules over the text of a final answer. What does not: where the final answer is and whether two are the same
(``math_answers``), and reading formulas, which math-verify does.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

_SIGNS = {
    "−": "-", "°": "^\\circ ", "’": "'", "′": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "√": r"\sqrt ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ", "θ": r"\theta ",
    "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅕": " 1/5", "⅖": " 2/5", "⅗": " 3/5", "⅘": " 4/5", "⅙": " 1/6",
    "⅚": " 5/6", "⅛": " 1/8", "⅜": " 3/8", "⅝": " 5/8", "⅞": " 7/8",
}  # fmt: skip
CHARACTERS = str.maketrans(
    _SIGNS
    | {chr(wide): chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)}
    | {sign: f"^{{{digit}}}" for digit, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
    | {sign: f"_{{{digit}}}" for digit, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")}
)
"""Characters and what LaTeX or plain text has for them, for ``str.translate``."""

_TEXT = r"\\(?:text|textrm|textbf|textit|textnormal|mathrm|mathbf|mbox|operatorname|rm)\s*\{[^{}]*\}"
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|log|ln|exp"
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"\\color\s*\{[^{}]*\}|\\(?:displaystyle|textstyle|large|Large|LARGE|huge|bf|it|rm)(?![A-Za-z])", ""),
        (r"\\textcolor\s*\{[^{}]*\}", ""),
        (r"\\(?:left|right)(?=\s*(?:[(\[|)\]]|\\[{}]))|\\!", ""),
        (r"(?<=\d)(?:\\[,;]|~|\s)+(?=\d{3}(?![\d/]))", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\text(?:rm|normal|bf)?\s*+\{\s*+(?:\\?[$€£¥])?+\s*+\}|\\[$€£¥]|[€£¥]", ""),
        (r"(?<!\\)%", r"\\%"),
        (r"\\degree(?:s\b)?", r"^\\circ"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\geqslant", r"\\ge"),
        (r"\\leqslant", r"\\le"),
        (r"_\{?\s*+\\(?:text|mathrm)\s*+\{\s*+((?:[^{}\s]++|\s++(?!\}))*+)\s*+\}\s*+\}?", r"_{\1}"),
        (r"_\{\s*+(\w)\s*+\}", r"_\1"),
        (r"_\{?\s*+\\(max|min)\s*+\}?", r"_{\1}"),
        (r"(\^\s*+(?:\{\s*+)?\\circ\s*+\}?+)\s*+[CF](?![A-Za-z])", r"\1"),
        (r"(?<![\\A-Za-z])E(?=_)", r"\\Xi "),
        (r"(?<=[A-Za-z])(?:\^\{?\s*+\\prime\s*+\}?|'(?!'))", "_{prime}"),
        (rf"(?<![\\A-Za-z])(?:np\.|math\.)?({_FUNCTIONS})(?=\()", r"\\\1"),
        (r"\\(sin|cos|tan)\s*+\^\s*+\{\s*+-1\s*+\}", r"\\arc\1"),
        (r"(?<=\d)\.(?=\s*/)", ""),
        (r"\A\s*+(?:\\text\s*+\{\s*+)?(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer(?: is)?\s*+[:=]\s*+(?:\}\s*+)?", ""),
    )
)  # fmt: skip
_BETWEEN = re.compile(r"(?<!\s)\s*+\\text\s*+\{\s*+(?:and|or)\s*+\}\s*+")
_OR = re.compile(r"(?<!\s)\s*+(?:\\text\s*+\{\s*+or\s*+\}|\\lor|\bor\b)\s*+")
_BOUND = re.compile(r"[A-Za-z]\s*+(<|>|\\(?:le|ge)q?(?![A-Za-z]))\s*+([^<>=,]+)")
_OF_NUMBERS = r"(?:\\(?:[dt]?frac|sqrt|pi|times|cdot)(?![A-Za-z])|\^\{?\\circ\}?|[-+*/^.,(){}\s\d])++"
_NUMBER = re.compile(rf"\A(?=[^\d]*\d){_OF_NUMBERS}")
_MEASURED = re.compile(
    rf"\A({_OF_NUMBERS})(?:{_TEXT}|\\Omega|\\AA|(?<=[\d}})\s])[A-Za-z]{{2,}})"
    rf"(?:{_TEXT}|\\cdot|\\Omega|\\AA|[A-Za-z]|/|\^\{{?-?\d\}}?|\s)*+\.?"
)
"""A number and its unit."""
_BASE = re.compile(r"([-+]?[0-9A-F]+(?:\.[0-9A-F]+)?)\s*+_\s*+(?:\{\s*+)?(\d+|[a-z]{3,7})\s*+\}?")
_BASES = {
    word: str(number)
    for number, word in enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), 2)
}
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)\s*+(?:([ap])\.?\s*+m\.?)?")
_THOUSANDS = re.compile(r",(?:\\!)?\d{3}(?!\d)")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w{2})")


def plain(answer: str) -> str:
    """An answer without what only looks, and with one command for what has several.

    ``E_1`` gets another letter, since math-verify fails on an index of what it takes for Euler's number.
    """
    for pattern, spelling in _SPELLINGS:
        answer = pattern.sub(spelling, answer)
    answer = (_union(answer) or _BETWEEN.sub(", ", answer)).strip()
    return answer[1:-1].strip() if answer.startswith("{") and _is_one_group(answer) else answer


def _union(answer: str) -> str | None:
    """Bounds of one variable with "or" between them, as a union of intervals; ``None`` for anything else."""
    bounds = [_BOUND.fullmatch(part.strip()) for part in _OR.split(answer)]
    if len(bounds) < 2:
        return None
    intervals = []
    for bound in bounds:
        if not bound:
            return None
        sign, end = bound[1], bound[2].strip()
        closed = sign not in "<>"
        below = f"(-\\infty, {end}{']' if closed else ')'}"
        intervals.append(below if sign == "<" or sign.startswith("\\le") else f"{'[' if closed else '('}{end}, \\infty)")
    return " \\cup ".join(intervals)


def without_unit(answer: str) -> str:
    """A number without the unit or the words after it; anything else as it is."""
    measured = _MEASURED.fullmatch(answer)
    number = measured[1].strip() if measured else ""
    return number if is_number(number) else answer


def is_number(answer: str) -> bool:
    """Whether nothing but digits and arithmetic stands in an answer: no name and no word."""
    return _NUMBER.fullmatch(answer) is not None


def in_base(answer: str) -> tuple[str, str] | None:
    """Digits and base of a number like ``1011_2`` or ``52_{eight}``."""
    found = _BASE.fullmatch(answer)
    return (found[1], _BASES.get(found[2], found[2])) if found else None


def same_time(first: str, second: str) -> bool | None:
    """Whether two times of day are the same, where one may lack a.m. or p.m.; ``None`` unless both are times."""
    one, other = (_CLOCK.fullmatch(words(each).lower()) for each in (first, second))
    if not one or not other:
        return None
    return [int(part) for part in one.groups()[:2]] == [int(part) for part in other.groups()[:2]] and (one[3] or other[3]) == (
        other[3] or one[3]
    )


def words(answer: str) -> str:
    """An answer with the contents of its text commands instead of the commands."""
    return re.sub(_TEXT, lambda command: command[0][command[0].index("{") + 1 : -1], answer).strip()


def same_words(first: str, second: str) -> bool:
    """Whether two answers are the same text, but for spaces, capitals and an article."""
    one, other = (re.sub(r"\$|(?<!\d)\s+|\s+(?!\d)", "", _ARTICLE.sub("", words(each).lower())).rstrip(".") for each in (first, second))
    return bool(one) and one == other


def _is_one_group(answer: str) -> bool:
    """Whether the brace that opens an answer closes at its end."""
    depths = accumulate({"{": 1, "}": -1}.get(sign, 0) for sign in answer)
    return next((place for place, depth in enumerate(depths) if depth == 0), -1) == len(answer) - 1


def parts(answer: str) -> list[str]:
    """The answers that an answer lists: those between commas outside brackets, but for commas of thousands."""
    depth, cuts = 0, [-1]
    for place, sign in enumerate(answer):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign, 0)
        if sign == "," and depth == 0 and not _THOUSANDS.match(answer, place):
            cuts.append(place)
    return [answer[begin + 1 : end].strip() for begin, end in pairwise([*cuts, len(answer)])]
