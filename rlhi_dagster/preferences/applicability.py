"""Does what a follow-up asks for miss from a reply that the user never saw?

Rules only: what the follow-up asks for is read by the lexicon (``feedback.aspects``), and whether the reply has it by its form. Where no
rule can tell, the answer is ``None`` and the pair stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rlhi_dagster.feedback import Aspect
from rlhi_dagster.feedback.aspects import requests
from rlhi_dagster.simulation import style

_LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_FUNCTION_WORDS = {
    "english": frozenset(
        [
            "the",
            "of",
            "and",
            "to",
            "in",
            "is",
            "it",
            "that",
            "for",
            "with",
            "you",
            "this",
            "are",
            "on",
            "be",
            "as",
            "at",
            "or",
            "your",
            "from",
        ]
    ),
    "spanish": frozenset(
        ["el", "la", "los", "las", "de", "y", "en", "es", "que", "un", "una", "por", "con", "para", "se", "del", "lo", "como", "su", "al"]
    ),
}
_MUCH_SHORTER = 0.75


def follow_up_applies(follow_up: str, reply: str, logged_reply: str) -> bool | None:
    """Whether something that ``follow_up`` asks for is missing from ``reply``.

    Length is relative: a wish for less holds unless the reply is already much shorter than the logged one that drew the wish, and the
    other way round. Format and language (English, Spanish) are read off the reply. Other wishes cannot be told.
    """
    return _any(_is_missing(asked.aspect, asked.value, reply, logged_reply) for asked in requests(follow_up))


def town_follow_up_applies(follow_up: str, reply: str, logged_reply: str) -> bool | None:
    """The sample town's own rule: the reply's style is read exactly; broken text falls back to ``follow_up_applies``."""
    reading = style.read(reply)
    if reading is None:
        return follow_up_applies(follow_up, reply, logged_reply)
    return _any(
        reading.style.value(asked.aspect) != asked.value if asked.aspect in style.ASPECTS else None for asked in requests(follow_up)
    )


def _any(found: Iterable[bool | None]) -> bool | None:
    verdicts = [verdict for verdict in found if verdict is not None]
    return any(verdicts) if verdicts else None


def _is_missing(aspect: Aspect, value: str, reply: str, logged_reply: str) -> bool | None:
    if aspect is Aspect.LENGTH:
        ratio = len(reply) / max(len(logged_reply), 1)
        return ratio > _MUCH_SHORTER if value == "short" else ratio < 1 / _MUCH_SHORTER
    if aspect is Aspect.FORMAT and value in {"bullets", "numbered", "prose"}:
        has_list = len(_LIST_LINE.findall(reply)) >= 1
        return has_list if value == "prose" else not has_list
    if aspect is Aspect.LANGUAGE and value in _FUNCTION_WORDS:
        words = re.findall(r"\w+", reply.lower())
        counts = {name: sum(word in known for word in words) for name, known in _FUNCTION_WORDS.items()}
        most = max(counts, key=lambda name: counts[name])
        return most != value if counts[most] > 0 else None
    return None
