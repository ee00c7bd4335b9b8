"""How one kind of stretch is found in a text: a sign, a pattern, a test of what the pattern found.

What belongs here: the form of a rule and how it is applied. What does not: the rules (``keys``, ``numbers``, ``words``).

Signs that Polars looks for find the few texts worth a closer look; those are searched with Python's `re`. No pattern may cost more than
linear time, whatever the text: it takes in the whole of what looks like one, without going back, and what must hold of it beside that is
told by Python afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to find a kind.

    Attributes:
        sign: Whether a text is worth a closer look; never false where the pattern matches.
        pattern: What may be one.
        span: Where in the text the part to replace is; ``None`` if what was found is none.
        mark: If given, one lies within a line that has it: only those lines are searched.
    """

    sign: Callable[[pl.Expr], pl.Expr]
    pattern: re.Pattern[str]
    span: Callable[[re.Match[str]], Span | None]
    mark: re.Pattern[str] | None = None

    def replaced(self, text: str, placeholder: str) -> tuple[str, int]:
        """The text with a placeholder for each, and how many there were."""
        if self.mark is None:
            return self._replaced(text, placeholder)
        found = [self._replaced(line, placeholder) if self.mark.search(line) else (line, 0) for line in text.split("\n")]
        return "\n".join(line for line, _ in found), sum(count for _, count in found)

    def _replaced(self, text: str, placeholder: str) -> tuple[str, int]:
        parts: list[str] = []
        at = 0
        for match in self.pattern.finditer(text):
            span = self.span(match)
            if span is not None and span[0] >= at:
                parts += [text[at : span[0]], placeholder]
                at = span[1]
        return "".join([*parts, text[at:]]), len(parts) // 2


def whole(match: re.Match[str]) -> Span:
    """All that was found."""
    return match.span()


def if_is(test: Callable[[str], bool], group: str | int = 0) -> Callable[[re.Match[str]], Span | None]:
    """The span of a group, if the test holds of it."""
    return lambda match: match.span(group) if match[group] is not None and test(match[group]) else None


def has_any(literals: Sequence[str]) -> Callable[[pl.Expr], pl.Expr]:
    """A sign: one of the literals is there."""
    return lambda text: text.str.contains_any(list(literals))


def matches(pattern: str) -> Callable[[pl.Expr], pl.Expr]:
    """A sign: a pattern of Polars is there, whose engine does not go back."""
    return lambda text: text.str.contains(pattern)


def has_word(words: Sequence[str]) -> Callable[[pl.Expr], pl.Expr]:
    """A sign: one of the words is there, in whatever capitals. A pattern takes a third of the time of a search for literals."""
    plain, others = ("|".join(re.escape(word) for word in words if word.isascii() is is_ascii) for is_ascii in (True, False))
    return matches(f"(?i-u:{plain})|(?i:{others})" if others else f"(?i-u:{plain})")
