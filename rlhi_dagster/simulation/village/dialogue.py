"""Who says what in the village: a user with hidden preferences talks to an assistant whose replies a language model wrote.

What belongs here: one conversation, turn by turn, with what the user does outright. What does not: where the replies come from (handed in)
and how a conversation becomes a row (``logs.py``). The user's words depend on the checkers' verdict on the reply, and on chance.

The assistant is not the same from day to day: an operator shows it in what style to reply (``operator.py``), or does not; no
log has that.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from rlhi_dagster.conversations.sources.records import FeedbackKind
from rlhi_dagster.engines.base import ChatRequest, Messages
from rlhi_dagster.feedback import Aspect, Feedback
from rlhi_dagster.simulation.village import wordings
from rlhi_dagster.simulation.village.content import Topic
from rlhi_dagster.simulation.village.mending import mended
from rlhi_dagster.simulation.village.operator import Style, demonstrated, drawn, towards
from rlhi_dagster.simulation.village.preferences import VALUES, Preference, unmet
from rlhi_dagster.simulation.wildchat import Message

Reply = Callable[[ChatRequest], str | None]
"""The reply to a request; ``None`` if it was not written yet."""


class Manner(StrEnum):
    """How a follow-up says what it says."""

    PLAIN = "plain"
    """Names what is wanted."""
    INDIRECT = "indirect"
    """Complains, and leaves it to the reader what about."""
    CONTENT = "content"
    """Is about what the reply says."""
    MISTAKEN = "mistaken"
    """Asks for what the user does not prefer."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How users and assistant behave; probabilities, all ours.

    Attributes:
        instructed: The operator shows the assistant a style.
        states: The opening request states one preference.
        asks: A user asks for a change when a reply misses something.
        indirect: Without naming it.
        mistaken: A user asks for what they do not prefer.
        content: A user criticises what a reply says.
        complies: After a wish the operator shows the assistant what is meant.
        stays: After a turn without criticism the user writes another message.
        thumbs: A reply that meets everything (up), or misses half or more (down), gets a thumb.
        slips: A thumb is the other one.
        edits: A reply that misses something is mended by hand.
        regenerates: A reply that misses something is written again; the user keeps the better one of the two.
        longest: Most user messages in a conversation.
    """

    instructed: float = 0.7
    states: float = 0.08
    asks: float = 0.75
    indirect: float = 0.35
    mistaken: float = 0.03
    content: float = 0.06
    complies: float = 0.7
    stays: float = 0.3
    thumbs: float = 0.15
    slips: float = 0.1
    edits: float = 0.12
    regenerates: float = 0.12
    longest: int = 3


@dataclass(frozen=True, slots=True)
class Act:
    """What a user does outright about the reply at ``message_index``; fields as of ``wildchat.Click``."""

    message_index: int
    kind: FeedbackKind
    value: float | None
    text: str | None
    is_noise: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """The truth about a follow-up that is feedback; without an aspect it is about content."""

    message_index: int
    manner: Manner
    aspect: Aspect | None = None
    value: str | None = None


@dataclass(slots=True)
class Dialogue:
    """A conversation and the truth about it, as far as replies are there.

    Attributes:
        messages: User and assistant in turn.
        wishes: What the user meant with feedback.
        acts: Thumbs, edits and regenerations.
        missing: The reply that must be written before it goes on; ``None`` if it is complete.
    """

    messages: list[Message] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    missing: ChatRequest | None = None


class _MissingError(Exception):
    """A reply that was not written yet."""

    def __init__(self, request: ChatRequest) -> None:
        super().__init__()
        self.request = request


def converse(preference: Preference, topic: Topic, other: Topic, habits: Habits, rng: random.Random, reply: Reply) -> Dialogue:
    """Play one conversation.

    Args:
        preference: What the user prefers at the time.
        topic: What it is about.
        other: What the user turns to if they change the topic.
        habits: How both behave.
        rng: Source of all chance.
        reply: Where the assistant's replies come from.

    Returns:
        The conversation, cut short at the first reply that is missing.
    """
    said = Dialogue()
    try:
        _play(_Scene(preference, habits, rng, reply, said, topic), other)
    except _MissingError as missing:
        said.missing = missing.request
    return said


@dataclass(slots=True)
class _Scene:
    """The state of a conversation."""

    preference: Preference
    habits: Habits
    rng: random.Random
    reply: Reply
    said: Dialogue
    topic: Topic
    style: Style | None = None

    def happens(self, probability: float) -> bool:
        return self.rng.random() < probability

    def asked(self, style: Style | None, sample_index: int = 0) -> str:
        """The assistant's reply to all that was said."""
        said: Messages = [{"role": message.role, "content": message.content} for message in self.said.messages]
        shown = demonstrated(style, self.rng.random()) if style else []
        request = ChatRequest([*shown, *said], sample_index)
        found = self.reply(request)
        if found is None:
            raise _MissingError(request)
        return found

    def tell(self, text: str, label: Feedback | None = None) -> None:
        self.said.messages.append(Message("user", text, label))

    def answer(self) -> None:
        """Let the assistant reply, and the user do what they do outright."""
        text, index = self.asked(self.style), len(self.said.messages)
        if unmet(self.preference, text) and self.happens(self.habits.regenerates):
            again = self.asked(_style(self.habits, self.rng), 1)
            kept, left = (again, text) if len(unmet(self.preference, again)) <= len(unmet(self.preference, text)) else (text, again)
            is_better = len(unmet(self.preference, kept)) < len(unmet(self.preference, left))
            self.said.acts.append(Act(index, FeedbackKind.REGENERATION, None, left, not is_better))
            text = kept
        self.said.messages.append(Message("assistant", text))
        missed = len(unmet(self.preference, text))
        if self.happens(self.habits.thumbs) and (missed == 0 or 2 * missed >= len(self.preference)):
            slips = self.happens(self.habits.slips)
            self.said.acts.append(Act(index, FeedbackKind.THUMB, 1.0 if (missed == 0) != slips else -1.0, None, slips))
        if missed and self.happens(self.habits.edits):
            edit = mended(text, self.preference, self.topic.name, self.rng.randrange)
            if edit is not None:
                self.said.acts.append(Act(index, FeedbackKind.EDIT, None, edit, False))


def _style(habits: Habits, rng: random.Random) -> Style | None:
    """What the operator shows the assistant today."""
    return drawn(rng) if rng.random() < habits.instructed else None


def _play(scene: _Scene, other: Topic) -> None:
    rng, habits = scene.rng, scene.habits
    scene.style = _style(habits, rng)
    request = scene.topic.request(rng.choice(scene.topic.forms), rng.randrange(2))
    if scene.happens(habits.states):
        aspect, value = rng.choice(list(scene.preference.items()))
        request = f"{request} {rng.choice(wordings.IN_REQUEST[aspect, value])}"
        scene.style = towards(scene.style or drawn(rng), aspect, value)
    scene.tell(request)
    scene.answer()
    for _ in range(habits.longest - 1):
        if not _goes_on(scene, request, other):
            return
        scene.answer()


def _goes_on(scene: _Scene, request: str, other: Topic) -> bool:
    """The user's next message, if there is one that asks for a reply; thanks and small talk end a conversation."""
    rng, habits = scene.rng, scene.habits
    missed = unmet(scene.preference, scene.said.messages[-1].content)
    if scene.happens(habits.mistaken):
        return _wishes(scene, *_mistake(scene.preference, rng), Manner.MISTAKEN)
    if missed and scene.happens(habits.asks):
        aspect = rng.choice(missed)
        manner = Manner.INDIRECT if scene.happens(habits.indirect) else Manner.PLAIN
        return _wishes(scene, aspect, scene.preference[aspect], manner)
    if scene.happens(habits.content):
        scene.said.wishes.append(Wish(len(scene.said.messages), Manner.CONTENT))
        scene.tell(rng.choice(wordings.CONTENT), Feedback.REATTEMPT_WITH_FEEDBACK)
        return True
    if not scene.happens(habits.stays):
        return False
    kind = rng.choices(("again", "repeat", "continue", "new", "thanks", "other"), (8, 4, 24, 18, 34, 6))[0]
    match kind:
        case "again":
            scene.tell(rng.choice(wordings.AGAIN), Feedback.REATTEMPT_WITHOUT_FEEDBACK)
        case "repeat":
            scene.tell(request, Feedback.REATTEMPT_WITHOUT_FEEDBACK)
        case "continue":
            scene.tell(rng.choice(wordings.CONTINUE), Feedback.CONTINUATION)
        case "new":
            scene.topic = other
            scene.tell(other.request(rng.choice(other.forms), rng.randrange(2)), Feedback.NEW_REQUEST)
        case _:
            said, label = (wordings.THANKS, Feedback.POSITIVE) if kind == "thanks" else (wordings.OTHER, Feedback.OTHER)
            scene.tell(rng.choice(said), label)
            scene.said.messages.append(Message("assistant", wordings.WELCOME))
            return False
    return True


def _wishes(scene: _Scene, aspect: Aspect, value: str, manner: Manner) -> bool:
    words = wordings.INDIRECT if manner is Manner.INDIRECT else wordings.PLAIN
    scene.said.wishes.append(Wish(len(scene.said.messages), manner, aspect, value))
    scene.tell(scene.rng.choice(words[aspect, value]), Feedback.REATTEMPT_WITH_FEEDBACK)
    if scene.happens(scene.habits.complies):
        scene.style = towards(scene.style or drawn(scene.rng), aspect, value)
    return True


def _mistake(preference: Preference, rng: random.Random) -> tuple[Aspect, str]:
    """A value that the user does not prefer."""
    others = [(aspect, value) for aspect, values in VALUES.items() for value in values if preference.get(aspect) not in (None, value)]
    return rng.choice(others)
