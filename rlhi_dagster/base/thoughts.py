"""What a model says, without what it thought: the tags between which models write down their thoughts.

What belongs here: finding thoughts in a text. What does not: what becomes of a reply that is nothing else (``engines/replies.py``).

Tags in back quotes or in fenced code are a reply's own words: a reply may explain them.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable

_NAME = "(?:seed:)?(?:think|thinking|thought)"
_BEGIN = rf"(?:<(?i:{_NAME})\s*>|\[THINK\]|◁think▷)"
_END = rf"(?:</(?i:{_NAME})\s*>|\[/THINK\]|◁/think▷)"
MAY_THINK = rf"(?i)</?{_NAME}|\[/?THINK\]|◁/?think▷"
"""A pattern, also for Polars, that every text with a tag matches."""

_THOUGHTS = re.compile(rf"{_BEGIN}.*?(?P<end>{_END}|\Z)", re.DOTALL)
_FENCE = "```"
_MARKS = (re.compile(_FENCE), re.compile("`"), re.compile("\n"))


def spoken(text: str) -> str:
    """The text without thoughts; as it is if it has none, and empty if it is nothing else.

    Thoughts stand between tags. Where the prompt's template wrote the first tag, the text begins with thoughts and has the last tag alone;
    where a limit cut the thoughts, that one is missing: then a tag at the beginning of a line begins thoughts, and no other.
    """
    is_code = _code_of(text)

    def without(found: re.Match[str]) -> str:
        is_whole = bool(found["end"]) or not text[text.rfind("\n", 0, found.start()) + 1 : found.start()].strip()
        return "" if is_whole and not is_code(found.start()) else found[0]

    said = _THOUGHTS.sub(without, text)
    is_code = _code_of(said)
    ends = [found.end() for found in re.finditer(_END, said) if not is_code(found.start())]
    said = said[ends[-1] :] if ends else said
    return text if said == text else said.strip()


def begun(prompt: str) -> str:
    """The tag with which a prompt ends, so that the model goes on with thoughts; empty if there is none."""
    found = re.search(rf"{_BEGIN}\s*\Z", prompt)
    return found[0] if found else ""


def _code_of(text: str) -> Callable[[int], bool]:
    """Tells whether a place is in code, in fences or within its line, that ends after it."""
    fences, ticks, lines = ([found.start() for found in sign.finditer(text)] for sign in _MARKS)
    last_fence = text.rfind(_FENCE)

    def is_code(place: int) -> bool:
        is_fenced = bisect_right(fences, place - len(_FENCE)) % 2 == 1 and place <= last_fence
        line = bisect_left(lines, place)
        begin, end = lines[line - 1] if line else 0, lines[line] if line < len(lines) else len(text)
        before, until = bisect_left(ticks, place), bisect_left(ticks, end)
        return is_fenced or ((before - bisect_left(ticks, begin)) % 2 == 1 and until > before)

    return is_code
