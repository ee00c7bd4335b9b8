"""How the village's operator tells the assistant in which style to reply: by one exchange that stands before the conversation.

So small a model heeds few instructions and copies what it is shown. What belongs here: styles, and the exchange that shows one. What does
not: the assistant's replies, which the model writes, and what they are like, which the checkers tell. No log has the exchange.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from rlhi_dagster.engines.base import Messages
from rlhi_dagster.feedback import Aspect

Style = Mapping[Aspect, str]
"""The shown value of each aspect; of the opening also ``preamble``, which nobody prefers."""
_WEIGHTS: dict[Aspect, dict[str, float]] = {
    Aspect.LENGTH: {"short": 0.5, "long": 0.5},
    Aspect.FORMAT: {"prose": 0.5, "bullets": 0.25, "numbered": 0.25},
    Aspect.EXAMPLES: {"with": 0.35, "without": 0.65},
    Aspect.EXCLAMATION: {"with": 0.3, "without": 0.7},
    Aspect.CLOSING: {"question": 0.3, "statement": 0.7},
    Aspect.OPENING: {"direct": 0.6, "preamble": 0.4},
}


@dataclass(frozen=True, slots=True)
class _Exchange:
    request: str
    preamble: str
    facts: tuple[str, str, str, str, str]
    example: str
    question: str


_EXCHANGES = (
    _Exchange(
        "How do I boil an egg?",
        "Sure, I am happy to help with that.",
        (
            "Bring a pot of water to the boil.",
            "Put the egg in with a spoon and wait eight minutes.",
            "Cool it under cold water so that it peels well.",
            "Eggs that come straight from the fridge take about a minute longer than others.",
            "A little salt or vinegar in the water keeps the white together if the shell breaks.",
        ),
        "For example, a large egg from the fridge needs nine minutes.",
        "How do you like your eggs?",
    ),
    _Exchange(
        "What is a glacier?",
        "What a great question.",
        (
            "A glacier is a large body of ice that moves slowly.",
            "It forms where more snow falls than melts.",
            "Over many years the snow is pressed together and turns to ice under its own weight.",
            "The ice then flows downhill and carries sand and stones along with it.",
            "Where it ends, often far below the snow, it melts and feeds a river.",
        ),
        "For example, the Aletsch Glacier in Switzerland is over twenty kilometres long.",
        "Have you ever seen one?",
    ),
    _Exchange(
        "Help me pack for a day hike.",
        "Of course, let me help you.",
        (
            "Take two litres of water and something to eat.",
            "Wear shoes that you have walked in before.",
            "Put a rain jacket and a warm layer in your bag.",
            "Bring a map made of paper, because phones often lose their signal in valleys.",
            "Tell somebody at home where you go and when you will be back.",
        ),
        "For instance, nuts and dried fruit give you energy and weigh little.",
        "How long will your hike be?",
    ),
)
_SHORT_FACTS = 2


def drawn(rng: random.Random) -> dict[Aspect, str]:
    """A style, every aspect by itself."""
    return {aspect: rng.choices(list(values), list(values.values()))[0] for aspect, values in _WEIGHTS.items()}


def towards(style: Style, aspect: Aspect, value: str) -> dict[Aspect, str]:
    """The style with one value."""
    return {**style, aspect: value}


def demonstrated(style: Style, place: float) -> Messages:
    """A request and a reply in the style; ``place`` between 0 and 1 tells which request."""
    shown = _EXCHANGES[int(place * len(_EXCHANGES))]
    said = list(shown.facts[: _SHORT_FACTS if style[Aspect.LENGTH] == "short" else None])
    if style[Aspect.EXAMPLES] == "with":
        said.insert(1, shown.example)
    if style[Aspect.EXCLAMATION] == "with":
        said = [f"{sentence[:-1]}!" if index % 2 == 0 else sentence for index, sentence in enumerate(said)]
    lines = {"prose": [" ".join(said)], "bullets": [f"- {each}" for each in said]}
    lines["numbered"] = [f"{number}. {each}" for number, each in enumerate(said, 1)]
    text = "\n".join(
        [
            *([shown.preamble] if style[Aspect.OPENING] == "preamble" else []),
            *lines[style[Aspect.FORMAT]],
            *([shown.question] if style[Aspect.CLOSING] == "question" else []),
        ]
    )
    if style[Aspect.FORMAT] == "prose":
        text = text.replace("\n", " ")
    return [{"role": "user", "content": shown.request}, {"role": "assistant", "content": text}]
