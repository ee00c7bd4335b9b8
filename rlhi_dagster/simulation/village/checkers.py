r"""What a reply is like, told by code: the aspects that the village's users care about, in the manner of IFEval's verifiable instructions.

What belongs here: reading a text. What does not: who prefers what (``preferences.py``) and what is said about it (``wordings.py``). The
checkers know nothing of who wrote a text, and nothing of how it came about. Source of the idea: Zhou et al., 2023, arXiv:2311.07911.

Code (fences and back quotes) is never read, so a list in a program is no list of the reply. Quotations are: whoever wants no exclamation
marks sees those in quotations, too; only a question that closes a quotation is nobody's question to the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from rlhi_dagster.feedback import Aspect

SHORT_WORDS = 40
"""Most words of a short reply."""
LONG_WORDS = 55
"""Fewest words of a long one."""
LIST_LINES = 2
"""Fewest lines that make a list."""

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")
_BULLET = re.compile(r"^[ \t]*[-*•+–][ \t]+(?=\S*\w|\*\*)", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*(?:\*\*)?(?:step[ \t]+)?\(?(\d{1,2})(?:[.):](?:\*\*)?[ \t]+)(?=\S)", re.MULTILINE | re.IGNORECASE)
_EXAMPLE = re.compile(
    r"\b(?:for (?:example|instance)|such as|e\.g\.|as an example|to give an example|examples?:|examples? (?:is|are))", re.IGNORECASE
)
_IMAGE_OR_UNEQUAL = re.compile(r"!(?=[\[=])")
_TRAILING_MARKS = re.compile(r"(?<![\s*_)~\U0001f300-\U0001faff☀-➿\ufe0f])[\s*_)~\U0001f300-\U0001faff☀-➿\ufe0f]+\Z")
_PREAMBLE = re.compile(
    r"(?:sure|certainly|of course|absolutely|definitely|great|good|excellent|wonderful|what an? \w+|thank you|thanks|"
    r"hello|hi|hey|dear|welcome|that's an? |as an? (?:ai|language|assistant)|let's|let me|"
    r"i(?:'m| am|'d| would| will|'ll| can|'ve) (?:be )?(?:so |very |more than )?"
    r"(?:happy|glad|excited|delighted|thrilled|pleased|here|sorry|love|help|assist)|"
    r"(?:here|below|following) (?:is|are)|here's|to (?:get started|begin|start|help|answer)|when it comes to|in (?:this|today's)|"
    r"(?:the|this) (?:question|answer|following))\b",
    re.IGNORECASE,
)


def prose(text: str) -> str:
    """The text without its code."""
    return _CODE.sub(" ", text)


def word_count(text: str) -> int:
    """Words; a number of a list is none, and "e.g." and "don't" are one each."""
    return len(_WORD.findall(_NUMBERED.sub("", prose(text))))


def length(text: str) -> str | None:
    """``short``, ``long``, or neither."""
    words = word_count(text)
    return "short" if words <= SHORT_WORDS else "long" if words >= LONG_WORDS else None


def form(text: str) -> str | None:
    """``bullets``, ``numbered`` or ``prose``, which has no line of either; ``None`` for a mixture, and a list of one line."""
    plain = prose(text)
    bullets, numbers = len(_BULLET.findall(plain)), [int(number) for number in _NUMBERED.findall(plain)]
    if not bullets and not numbers:
        return "prose"
    is_counting = any(later == earlier + 1 for earlier, later in pairwise(numbers))
    if bullets >= LIST_LINES and not is_counting:
        return "bullets"
    return "numbered" if is_counting and bullets < LIST_LINES else None


def exclamation(text: str) -> str:
    """``with`` an exclamation mark, or ``without``."""
    return "with" if "!" in _IMAGE_OR_UNEQUAL.sub("", prose(text)) else "without"


def closing(text: str) -> str:
    """``question`` if the last sentence asks the reader something, else ``statement``."""
    return "question" if _TRAILING_MARKS.sub("", prose(text)).endswith("?") else "statement"


def opening(text: str) -> str:
    """``direct`` if the first sentence says something of the matter, ``preamble`` if it greets, praises, announces or ends in a colon."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    first = re.sub(r"^[#*_\s\"“]+", "", lines[0]) if lines else ""
    return "preamble" if not first or _PREAMBLE.match(first) or lines[0].rstrip("*_ ").endswith(":") else "direct"


def examples(text: str) -> str:
    """``with`` words that introduce an example, or ``without``."""
    return "with" if _EXAMPLE.search(prose(text)) else "without"


CHECKERS: dict[Aspect, Callable[[str], str | None]] = {
    Aspect.LENGTH: length,
    Aspect.FORMAT: form,
    Aspect.EXAMPLES: examples,
    Aspect.EXCLAMATION: exclamation,
    Aspect.CLOSING: closing,
    Aspect.OPENING: opening,
}
"""By aspect, what says which of its values a text has; ``None`` for none of them."""


def read(text: str) -> dict[Aspect, str | None]:
    """The value that a text has in each aspect."""
    return {aspect: check(text) for aspect, check in CHECKERS.items()}
