"""Who prefers what: hidden preferences of the village's users, which go together, and how a reply meets them.

A user is of one of four temperaments and holds three or four preferences, most of them those of the temperament. What belongs here: drawing
preferences, and comparing them with what the checkers read. What does not: reading texts (``checkers.py``), and when somebody changes their
mind (``logs.py``).
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from rlhi_dagster.feedback import Aspect
from rlhi_dagster.simulation.village.checkers import read

Preference = Mapping[Aspect, str]
"""The wanted value of each aspect that a user cares about."""

VALUES: dict[Aspect, tuple[str, ...]] = {
    Aspect.LENGTH: ("short", "long"),
    Aspect.FORMAT: ("bullets", "numbered", "prose"),
    Aspect.EXAMPLES: ("with", "without"),
    Aspect.EXCLAMATION: ("with", "without"),
    Aspect.CLOSING: ("question", "statement"),
    Aspect.OPENING: ("direct",),
}
"""What can be preferred."""

TEMPERAMENTS: dict[str, Preference] = {
    "hurried": {
        Aspect.LENGTH: "short",
        Aspect.FORMAT: "prose",
        Aspect.OPENING: "direct",
        Aspect.EXAMPLES: "without",
        Aspect.CLOSING: "statement",
    },
    "orderly": {Aspect.FORMAT: "numbered", Aspect.LENGTH: "long", Aspect.OPENING: "direct", Aspect.EXCLAMATION: "without"},
    "sociable": {Aspect.EXCLAMATION: "with", Aspect.CLOSING: "question", Aspect.EXAMPLES: "with", Aspect.FORMAT: "prose"},
    "practical": {Aspect.FORMAT: "bullets", Aspect.EXAMPLES: "with", Aspect.LENGTH: "short", Aspect.EXCLAMATION: "without"},
}
"""What people of each temperament tend to prefer."""
TRUE_TO_TEMPERAMENT = 0.75
FEWEST, MOST = 3, 4

HELD_OUT_COMBINATIONS: tuple[frozenset[tuple[Aspect, str]], ...] = (
    frozenset({(Aspect.LENGTH, "short"), (Aspect.FORMAT, "numbered")}),
    frozenset({(Aspect.FORMAT, "bullets"), (Aspect.EXCLAMATION, "with")}),
    frozenset({(Aspect.EXAMPLES, "with"), (Aspect.OPENING, "direct")}),
    frozenset({(Aspect.LENGTH, "short"), (Aspect.CLOSING, "question")}),
)
"""Pairs of values that only held-out users prefer together; each of the values alone occurs among training users."""


def draw(rng: random.Random) -> tuple[str, dict[Aspect, str]]:
    """A temperament, and a preference."""
    name = rng.choice(list(TEMPERAMENTS))
    wanted: dict[Aspect, str] = {}
    count = rng.randint(FEWEST, MOST)
    while len(wanted) < count:
        if rng.random() < TRUE_TO_TEMPERAMENT:
            aspect = rng.choice(list(TEMPERAMENTS[name]))
            wanted.setdefault(aspect, TEMPERAMENTS[name][aspect])
        else:
            aspect = rng.choice(list(VALUES))
            wanted.setdefault(aspect, rng.choice(VALUES[aspect]))
    return name, {aspect: wanted[aspect] for aspect in VALUES if aspect in wanted}


def changed(preference: Preference, rng: random.Random) -> dict[Aspect, str]:
    """The preference with another value of one aspect."""
    aspect = rng.choice([aspect for aspect in preference if len(VALUES[aspect]) > 1])
    return {**preference, aspect: rng.choice([value for value in VALUES[aspect] if value != preference[aspect]])}


def has_held_out_combination(preference: Preference) -> bool:
    """Whether it has a combination that training users never have."""
    return any(pair <= set(preference.items()) for pair in HELD_OUT_COMBINATIONS)


def unmet(preference: Preference, reply: str) -> list[Aspect]:
    """Aspects in which the reply is not what is preferred."""
    found = read(reply)
    return [aspect for aspect, value in preference.items() if found[aspect] != value]
