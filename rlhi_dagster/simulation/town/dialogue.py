"""Who says what: a user with a hidden style preference talks to an assistant until content or tired.

One simulator serves the town's logs (the assistant sometimes ignores a request) and the policy's pre-training corpus (it never does).
Every kind of follow-up of the feedback codebook occurs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from rlhi_dagster.feedback import Feedback
from rlhi_dagster.simulation.town.content import TOPICS, Topic
from rlhi_dagster.simulation.town.style import Style, render
from rlhi_dagster.simulation.wildchat import Message

ASKS: dict[tuple[str, str], tuple[str, ...]] = {
    ("length", "short"): ("Make it shorter, please.", "Too long. Just the main point.", "Can you be more brief?", "Más corto, por favor."),
    ("length", "long"): ("Make it longer, please.", "Too short. Give me more details.", "Can you explain more?", "Más largo, por favor."),
    ("format", "bullets"): (
        "Use bullet points.",
        "Please put that in a list.",
        "Write it as bullet points, please.",
        "Como lista, por favor.",
    ),
    ("format", "prose"): ("No list, please.", "Write it as a paragraph.", "Without bullet points, please.", "Sin lista, por favor."),
    ("tone", "friendly"): ("Be more friendly.", "Too stiff. Make it warmer.", "Use a friendly tone, please.", "Más amistoso, por favor."),
    ("tone", "formal"): ("Be more formal.", "Too casual. Make it formal.", "Use a formal tone, please.", "Más formal, por favor."),
    ("language", "spanish"): ("In Spanish, please.", "Answer in Spanish.", "Translate that into Spanish.", "En español, por favor."),
    ("language", "english"): ("In English, please.", "Answer in English.", "Translate that into English.", "En inglés, por favor."),
}
"""How users ask for a value of an aspect; the last wording is Spanish."""

IN_REQUEST: dict[tuple[str, str], str] = {
    ("length", "short"): "Keep it short.",
    ("length", "long"): "Give me a long answer.",
    ("format", "bullets"): "Use bullet points.",
    ("format", "prose"): "No list, please.",
    ("tone", "friendly"): "Use a friendly tone.",
    ("tone", "formal"): "Use a formal tone.",
    ("language", "spanish"): "Answer in Spanish.",
    ("language", "english"): "Answer in English.",
}
"""How users state a wish together with the request."""

_AGAIN = ("again", "Try again.", "Another one, please.", "Regenerate.")
_CONTINUE = ("Go on.", "And what else?", "continue", "What comes next?")
_THANKS = ("Thanks!", "Perfect, thank you.", "Great, that helps.", "¡Gracias!")
_OTHER = ("lol", "hmm", "ok...", "you are a funny machine")
_WELCOME = "You are welcome!"
_HELLO = "How can I help?"
SMALL_TALK = frozenset((*_THANKS, *_OTHER))
"""What users say without wanting anything."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How users and assistant behave; probabilities.

    Attributes:
        asks: A user asks for a change when the reply differs from the preference.
        states: A user states one wish in the opening request.
        complies: The assistant follows a request for change.
        praises: A user who got what they prefer says so and leaves.
        stays: After a turn without complaint the user writes another message.
        longest: Most user messages in a conversation.
    """

    asks: float = 0.75
    states: float = 0.05
    complies: float = 0.9
    praises: float = 0.0
    stays: float = 0.35
    longest: int = 9


def converse(preference: Style, habits: Habits, rng: random.Random, opening: Style | None = None) -> list[Message]:
    """Play one conversation.

    Args:
        preference: What the user prefers.
        habits: How both behave.
        rng: Source of all chance.
        opening: Style of the first reply; drawn if not given.

    Returns:
        Alternating user and assistant messages; every user message but the first has a label.
    """
    topic, first_fact, style = rng.choice(TOPICS), 0, opening or Style.draw(rng)
    wording = rng.randrange(4)
    request = topic.request(wording)
    if rng.random() < habits.states:
        aspect = rng.choice(("length", "format", "tone", "language"))
        value = preference.value(aspect)
        request = f"{request} {IN_REQUEST[aspect, value]}"
        style = style.with_value(aspect, value)
    messages = [Message("user", request), Message("assistant", render(topic, style))]
    last_request = request
    while sum(message.role == "user" for message in messages) < habits.longest:
        unmet = preference.unmet(style)
        if unmet and rng.random() < habits.asks:
            aspect = rng.choice(unmet)
            value = preference.value(aspect)
            speaks_spanish = preference.language == "spanish" and rng.random() < 0.5
            text = ASKS[aspect, value][3 if speaks_spanish else rng.randrange(3)]
            if rng.random() < habits.complies:
                style = style.with_value(aspect, value)
            messages += [Message("user", text, Feedback.REATTEMPT_WITH_FEEDBACK), Message("assistant", render(topic, style, first_fact))]
            continue
        if not unmet and habits.praises and rng.random() < habits.praises:
            messages += [Message("user", rng.choice(_THANKS), Feedback.POSITIVE), Message("assistant", _WELCOME)]
            break
        if rng.random() >= habits.stays:
            break
        kind = rng.choices(("meant", "again", "repeat", "continue", "new", "thanks", "other"), (8, 7, 4, 24, 22, 24, 6))[0]
        if kind == "meant":
            topic = _other_topic(topic, rng, same_subject=True)
            first_fact, last_request = 0, topic.request(wording)
            said = Message("user", f"No, I meant {topic.name[0]}.", Feedback.REATTEMPT_WITH_FEEDBACK)
        elif kind == "again":
            said = Message("user", rng.choice(_AGAIN), Feedback.REATTEMPT_WITHOUT_FEEDBACK)
        elif kind == "repeat":
            first_fact = 0
            said = Message("user", last_request, Feedback.REATTEMPT_WITHOUT_FEEDBACK)
        elif kind == "continue":
            first_fact = 1
            said = Message("user", rng.choice(_CONTINUE), Feedback.CONTINUATION)
        elif kind == "new":
            topic, first_fact = _other_topic(topic, rng, same_subject=False), 0
            last_request = topic.request(rng.randrange(4))
            said = Message("user", last_request, Feedback.NEW_REQUEST)
        elif kind == "thanks":
            messages += [Message("user", rng.choice(_THANKS), Feedback.POSITIVE), Message("assistant", _WELCOME)]
            break
        else:
            messages += [Message("user", rng.choice(_OTHER), Feedback.OTHER), Message("assistant", _HELLO)]
            break
        messages += [said, Message("assistant", render(topic, style, first_fact))]
    return messages


def _other_topic(topic: Topic, rng: random.Random, *, same_subject: bool) -> Topic:
    others = [other for other in TOPICS if other != topic and (other.subject == topic.subject) == same_subject]
    return rng.choice(others)
