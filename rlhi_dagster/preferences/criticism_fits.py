"""Rules that tell, for some wishes, whether a reply lacks or has what a user asks for.

What belongs here: what is read off the texts alone. What a follow-up asks for is read by the lexicon (``feedback.aspects``); whether a
reply has it, by its length, form and language, or in a simulation by the town's grammar or the village's checkers. What does not: verdicts
by a model (``pair_judge``). Where no rule can tell, the answer is ``None``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rlhi_dagster.base.language_id import detected
from rlhi_dagster.feedback import Aspect
from rlhi_dagster.feedback.aspects import requests
from rlhi_dagster.simulation.town import style
from rlhi_dagster.simulation.village.checkers import CHECKERS
from rlhi_dagster.simulation.village.preferences import VALUES

CODES: dict[str, str] = {
    "english": "en",
    "spanish": "es",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "portuguese": "pt",
    "russian": "ru",
    "chinese": "zh",
    "japanese": "ja",
    "korean": "ko",
    "arabic": "ar",
    "hindi": "hi",
    "turkish": "tr",
    "polish": "pl",
    "dutch": "nl",
    "ukrainian": "uk",
    "indonesian": "id",
    "vietnamese": "vi",
}
"""ISO 639-1 code of each language that the lexicon knows."""

MIN_LANGUAGE_SCORE = 0.6
"""Least score of the language detector; below it the language cannot be told."""
MUCH_SHORTER = 0.75
"""Length relative to another reply's, at most, of a reply that is much shorter; one over it, at least, of one that is much longer."""

_LIST_LINE = re.compile(r"^[^\S\n]*+(?:[-*•]|\d+[.)])\s++\S", re.MULTILINE)
_NUMBERED_LINE = re.compile(r"^[^\S\n]*+\d+[.)]\s++\S", re.MULTILINE)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+", re.DOTALL)
_MOST_READ = 2_000
_MOST_TOLD = 80
"""Characters that the language is told from, once code and addresses are out."""


def follow_up_applies(follow_up: str, reply: str, logged_reply: str) -> bool | None:
    """Whether something that ``follow_up`` asks for is missing from ``reply``.

    Length is relative: a wish for less holds unless the reply is already much shorter than the logged one that drew the wish, and the
    other way round. Format (list or not) and language are read off the reply. Other wishes cannot be told, nor can one that the logged
    reply seems to fulfil: its user asked for something else than the lexicon read ("just one paragraph" of a text without lists).
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


def rewrite_meets(feedback: str, rewrite: str, original: str) -> bool | None:
    """Whether ``rewrite`` has all that ``feedback`` asks for, as far as rules can tell.

    As for ``follow_up_applies``, but a rewrite that is a little shorter than the original, where less was asked for, cannot be told.
    """
    return _all(_is_met(asked.aspect, asked.value, rewrite, original) for asked in requests(feedback))


def town_rewrite_meets(said: Sequence[str], feedback: str, rewrite: str) -> bool | None:
    """The same by the town's grammar: broken text, and text about another topic, meets nothing.

    Args:
        said: The user's messages up to the criticised reply, the last of which that names a topic says what it is about.
        feedback: The follow-up; if it names a topic, that is the wanted one.
        rewrite: The rewritten reply.
    """
    named = (topic for text in (feedback, *reversed(said)) if (topic := style.topic_of(text)))
    reading = style.read(rewrite, next(named, None))
    if reading is None:
        return False
    wishes = [asked for asked in requests(feedback) if asked.aspect in style.ASPECTS]
    about_topic = [True] if style.topic_of(feedback) else []
    return _all([*about_topic, *(reading.style.value(asked.aspect) == asked.value for asked in wishes)])


def village_follow_up_applies(follow_up: str, reply: str) -> bool | None:
    """The same by the village's checkers, which tell every aspect that its users speak of from the reply alone."""
    return _any(found != wanted for found, wanted in _checked(follow_up, reply))


def village_rewrite_meets(feedback: str, rewrite: str) -> bool | None:
    """The same by the village's checkers."""
    return _all(found == wanted for found, wanted in _checked(feedback, rewrite))


def _checked(asking: str, reply: str) -> list[tuple[str | None, str]]:
    """What the reply has and what is asked for, of each wish that the checkers can tell."""
    wishes = [asked for asked in requests(asking) if asked.value in VALUES.get(asked.aspect, ())]
    return [(CHECKERS[asked.aspect](reply), asked.value) for asked in wishes]


def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language of ``text`` without code and addresses; ``None`` if the detector is not sure, as of short texts."""
    plain = " ".join(_CODE.sub(" ", text)[:_MOST_READ].split())[:_MOST_TOLD]
    if not plain:
        return None
    code, score = detected(plain)
    return code if score >= MIN_LANGUAGE_SCORE else None


def _any(found: Iterable[bool | None]) -> bool | None:
    verdicts = [verdict for verdict in found if verdict is not None]
    return any(verdicts) if verdicts else None


def _all(found: Iterable[bool | None]) -> bool | None:
    verdicts = [verdict for verdict in found if verdict is not None]
    return all(verdicts) if verdicts else None


def _is_missing(aspect: Aspect, value: str, reply: str, logged_reply: str) -> bool | None:
    if aspect is Aspect.LENGTH:
        ratio = len(reply) / max(len(logged_reply), 1)
        return ratio > MUCH_SHORTER if value == "short" else ratio < 1 / MUCH_SHORTER
    has = _has(aspect, value, reply)
    return None if has is None or _has(aspect, value, logged_reply) else not has


def _is_met(aspect: Aspect, value: str, rewrite: str, original: str) -> bool | None:
    if aspect is Aspect.LENGTH:
        ratio = len(rewrite) / max(len(original), 1)
        wanted = ratio if value == "short" else 1 / max(ratio, 1e-9)
        return True if wanted <= MUCH_SHORTER else False if wanted >= 1 else None
    return _has(aspect, value, rewrite)


def _has(aspect: Aspect, value: str, reply: str) -> bool | None:
    """Whether the reply has a form or language; ``None`` where its looks do not say."""
    if aspect is Aspect.FORMAT and value in {"bullets", "prose"}:
        return bool(_LIST_LINE.search(reply)) == (value == "bullets")
    if aspect is Aspect.FORMAT and value == "numbered":
        return bool(_NUMBERED_LINE.search(reply))
    if aspect is Aspect.LANGUAGE and (found := language_of(reply)):
        return found == CODES[value]
    return None
