r"""What stands in ``\boxed{...}``: how solutions of mathematical problems mark their answer.

What belongs here: finding boxes. What does not: other marks of an answer and what an answer means (``reasoning.math_answers``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"(?<!\\)[{}]")


def boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Boxes whose braces close, the last first: where the command starts, where the brace closes, and what is between the braces."""
    closings: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            closings[opened.pop()] = brace.start()
    for opening in reversed(list(_BOX.finditer(text))):
        end = closings.get(opening.end() - 1)
        if end is not None:
            yield opening.start(), end, text[opening.end() : end]
