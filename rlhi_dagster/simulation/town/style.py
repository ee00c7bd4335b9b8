"""How a reply looks in the town: four binary style preferences, rendering and reading back.

A reply is an opener, one or three facts, and for a friendly one a closer. ``read`` accepts exactly what ``render`` can write, so
that everything else counts as broken text.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, replace

from rlhi_dagster.simulation.town.content import TOPICS, Topic

ASPECTS = ("length", "format", "tone", "language")
VALUES: dict[str, tuple[str, str]] = {
    "length": ("short", "long"),
    "format": ("prose", "bullets"),
    "tone": ("formal", "friendly"),
    "language": ("english", "spanish"),
}
_OPENERS = {
    ("formal", 0): "Certainly.",
    ("friendly", 0): "Sure, my friend!",
    ("formal", 1): "Por supuesto.",
    ("friendly", 1): "¡Claro, amigo!",
}
_CLOSERS = {0: "Enjoy!", 1: "¡Suerte!"}


@dataclass(frozen=True, slots=True)
class Style:
    """A value for each style aspect: what a user prefers, or what a reply has."""

    length: str
    format: str
    tone: str
    language: str

    @classmethod
    def draw(cls, rng: random.Random) -> Style:
        """A style with every aspect drawn uniformly."""
        return cls(*(rng.choice(VALUES[aspect]) for aspect in ASPECTS))

    def value(self, aspect: str) -> str:
        """The value of one aspect."""
        return str(getattr(self, aspect))

    def with_value(self, aspect: str, value: str) -> Style:
        """The same style with one aspect set."""
        return replace(self, **{aspect: value})

    def unmet(self, reply: Style) -> list[str]:
        """Aspects in which ``reply`` differs from this preference."""
        return [aspect for aspect in ASPECTS if self.value(aspect) != reply.value(aspect)]


@dataclass(frozen=True, slots=True)
class Reply:
    """A legible reply: its style, the topic and which of the topic's facts comes first."""

    style: Style
    topic: Topic
    first_fact: int


def render(topic: Topic, style: Style, first_fact: int = 0) -> str:
    """Write a reply about ``topic`` in ``style`` that starts with fact ``first_fact`` (0 or 1)."""
    language = VALUES["language"].index(style.language)
    facts = topic.facts(language)[first_fact:][: 1 if style.length == "short" else 3]
    parts = [_OPENERS[style.tone, language], *(f"- {fact}" if style.format == "bullets" else fact for fact in facts)]
    if style.tone == "friendly":
        parts.append(_CLOSERS[language])
    return ("\n" if style.format == "bullets" else " ").join(parts)


@functools.cache
def _legible() -> dict[str, tuple[Reply, ...]]:
    replies: dict[str, list[Reply]] = {}
    for topic in TOPICS:
        for bits in range(16):
            style = Style(*(VALUES[aspect][bits >> k & 1] for k, aspect in enumerate(ASPECTS)))
            for first_fact in (0, 1):
                replies.setdefault(render(topic, style, first_fact), []).append(Reply(style, topic, first_fact))
    return {text: tuple(found) for text, found in replies.items()}


def read(text: str, topic: Topic | None = None) -> Reply | None:
    """Read a reply back.

    Args:
        text: A reply; surrounding white space is ignored.
        topic: If given, only a reading about this topic counts.

    Returns:
        The reading, or ``None`` if the text is not exactly a reply of the town (broken text, or about another topic).
    """
    readings = _legible().get(text.strip(), ())
    return next((reply for reply in readings if topic is None or reply.topic == topic), None)


def topic_of(request: str) -> Topic | None:
    """The topic that a request asks about, by its English name; ``None`` if it names none or several."""
    words = request.replace("?", " ").replace(".", " ").replace(",", " ").split()
    found = {topic for topic in TOPICS if topic.name[0] in words}
    return found.pop() if len(found) == 1 else None
