"""What users of the town do outright: they click thumbs, mend replies by hand, and have replies written again.

What belongs here: how often users do each, how often it says something else than what they prefer, and the clicks on given conversations.
What does not: the conversations (``dialogue``, ``logs``), which are the same with clicks and without, because clicks are drawn from a
stream of their own. A reply that was left for another try is made up here and stands in the click alone.

The rates are ours: more than real users would click, so that the few conversations give enough pairs to measure. So is the noise: thumbs
that slip, tries out of curiosity, edits for an occasion that is not the user's usual one, and what goes wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rlhi_dagster.conversations.sources.records import FeedbackKind
from rlhi_dagster.simulation.town.style import ASPECTS, VALUES, Reply, Style, read, render
from rlhi_dagster.simulation.wildchat import Click


@dataclass(frozen=True, slots=True)
class Clicking:
    """How users click; probabilities.

    Attributes:
        thumbs: A legible reply gets a thumb, if it meets all of the preference (up) or misses half of it or more (down).
        slips: A thumb is the other one.
        edits: A reply that misses something is edited, into what the user prefers.
        careless: An edit takes away something that the user prefers instead.
        saves: An edit changes nothing but white space.
        regenerates: A reply is the second try, after one that met fewer preferences.
        curious: The first try was left out of curiosity: it is any other style.
        fails: The first try came to nothing, or is what the second one is, each half of the time.
        tells: The reply that was left had got a thumb.
    """

    thumbs: float = 0.15
    slips: float = 0.1
    edits: float = 0.06
    careless: float = 0.1
    saves: float = 0.05
    regenerates: float = 0.1
    curious: float = 0.3
    fails: float = 0.1
    tells: float = 0.25


def clicks(logs: Iterable[tuple[Mapping[str, Any], Style]], habits: Clicking, rng: random.Random) -> list[Click]:
    """The clicks on conversations.

    Args:
        logs: Rows in ``wildchat.WILDCHAT_SCHEMA``, each with its user's preference.
        habits: How users click.
        rng: Source of all chance.
    """
    found = []
    for row, preference in logs:
        for index, message in enumerate(row["conversation"]):
            reply = read(message["content"]) if message["role"] == "assistant" else None
            if reply is not None:
                for kind, value, text, is_noise in _on(reply, message["content"], preference, habits, rng):
                    given_at = message["timestamp"] + timedelta(seconds=rng.randrange(1, 30))
                    found.append(Click(row["conversation_hash"], index, kind, value, text, given_at, is_noise))
    return found


_Said = tuple[FeedbackKind, float | None, str | None, bool]


def _on(reply: Reply, text: str, preference: Style, habits: Clicking, rng: random.Random) -> Iterable[_Said]:
    missed = len(preference.unmet(reply.style))
    if rng.random() < habits.regenerates:
        yield _regeneration(reply, text, preference, habits, rng)
    if rng.random() < habits.thumbs and (missed == 0 or missed >= len(ASPECTS) / 2):
        slips = rng.random() < habits.slips
        yield FeedbackKind.THUMB, 1.0 if (missed == 0) != slips else -1.0, None, slips
    if rng.random() < habits.edits and missed:
        yield _edit(reply, text, preference, habits, rng)


def _edit(reply: Reply, text: str, preference: Style, habits: Clicking, rng: random.Random) -> _Said:
    met = [aspect for aspect in ASPECTS if aspect not in preference.unmet(reply.style)]
    draw = rng.random()
    if draw < habits.saves:
        return FeedbackKind.EDIT, None, text + "\n", True
    if draw < habits.saves + habits.careless and met:
        worse = _turned(reply.style, rng.choice(met))
        return FeedbackKind.EDIT, None, render(reply.topic, worse, reply.first_fact), True
    return FeedbackKind.EDIT, None, render(reply.topic, preference, reply.first_fact), False


def _regeneration(reply: Reply, text: str, preference: Style, habits: Clicking, rng: random.Random) -> _Said:
    met = [aspect for aspect in ASPECTS if aspect not in preference.unmet(reply.style)]
    draw = rng.random()
    if draw < habits.fails:
        is_same = draw < habits.fails / 2
        return FeedbackKind.REGENERATION, None, text if is_same else "", is_same
    if draw < habits.fails + habits.curious or not met:
        left = reply.style
        while left == reply.style:
            left = Style.draw(rng)
    else:
        left = reply.style
        for aspect in rng.sample(met, rng.randint(1, len(met))):
            left = _turned(left, aspect)
    is_worse = len(preference.unmet(left)) > len(preference.unmet(reply.style))
    thumb = (-1.0 if is_worse != (rng.random() < habits.slips) else 1.0) if rng.random() < habits.tells else None
    return FeedbackKind.REGENERATION, thumb, render(reply.topic, left, reply.first_fact), not is_worse


def _turned(style: Style, aspect: str) -> Style:
    """The style with the other value of one aspect."""
    return style.with_value(aspect, next(value for value in VALUES[aspect] if value != style.value(aspect)))
