"""What the village asks: 150 topics of seven kinds by twelve forms of request, in English.

Pure vocabulary. A form takes topics of certain kinds only, so that every combination is a sentence that somebody could write. Who asks
what is in ``logs.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What sort of thing a topic is, which decides the forms that fit it."""

    SKILL = "skill"
    """An activity, as a gerund."""
    THING = "thing"
    """Something that can be explained."""
    PAIR = "pair"
    """Two things that can be compared, joined by "and"."""
    OPTIONS = "options"
    """The same, of which one can be chosen."""
    EVENT = "event"
    """Something that takes planning."""
    PURCHASE = "purchase"
    """Something to buy."""
    NOTE = "note"
    """What a short message is for: an infinitive."""


TOPICS: dict[Kind, tuple[str, ...]] = {
    Kind.SKILL: (
        *("knitting socks", "baking bread", "playing chess", "growing tomatoes", "learning Spanish", "running long distances"),
        *(
            "painting with watercolours",
            "keeping a diary",
            "repairing a bicycle",
            "playing the guitar",
            "speaking in public",
            "saving money",
        ),
        *("taking photographs", "swimming", "writing short stories", "making soup", "keeping bees", "meditating", "drawing faces"),
        *("training a puppy", "sewing clothes", "sleeping better", "making compost", "cooking rice", "giving feedback", "reading faster"),
        *("learning to dance", "cleaning windows", "keeping house plants alive", "working from home", "negotiating a salary"),
        *("remembering names", "hiking in the mountains", "making friends in a new city", "ironing shirts", "learning to sing"),
        *("growing herbs indoors", "building a bookshelf", "brewing coffee", "studying for exams"),
    ),
    Kind.THING: (
        *("inflation", "photosynthesis", "the water cycle", "compound interest", "gravity", "the immune system", "plate tectonics"),
        *("a black hole", "the food chain", "an electric motor", "a vaccine", "a solar panel", "the greenhouse effect", "jet lag"),
        *("a rainbow", "the tide", "a leap year", "insulin", "an eclipse", "the stock market", "a mortgage", "evaporation"),
        *("a heat pump", "natural selection", "a search engine", "the ozone layer", "bread dough", "a thunderstorm", "caffeine"),
        *("a magnet", "the speed of sound", "cholesterol", "an earthquake", "a pension", "muscle memory", "a suspension bridge"),
    ),
    Kind.PAIR: (
        *("frogs and toads", "jam and jelly", "rivers and canals", "alligators and crocodiles", "weather and climate"),
        *("viruses and bacteria", "novels and short stories", "cities and towns"),
    ),
    Kind.OPTIONS: (
        *("tea and coffee", "cats and dogs", "buses and trains", "butter and margarine", "gas and electric stoves", "pens and pencils"),
        *("laptops and tablets", "renting and buying a home", "yoga and pilates", "stocks and bonds", "running and cycling"),
        *("wool and cotton", "wired and wireless headphones", "credit and debit cards", "fresh and frozen vegetables", "rice and pasta"),
    ),
    Kind.EVENT: (
        *("a birthday party for ten children", "a weekend trip to Lisbon", "a move to another city", "a camping trip", "a job interview"),
        *(
            "a family dinner",
            "a garden for a small balcony",
            "a picnic",
            "a surprise party",
            "a week without sugar",
            "a visit to the dentist",
        ),
        *("a long train journey", "a school play", "a yard sale", "a wedding speech", "a day at the beach", "a book club"),
        *("a home office", "a winter holiday", "a neighbourhood meeting"),
    ),
    Kind.PURCHASE: (
        *("a used bicycle", "running shoes", "a laptop for school", "a mattress", "a winter coat", "a kitchen knife", "a tent"),
        *("a second-hand car", "a backpack", "a desk lamp", "a washing machine", "a camera", "a pair of glasses", "a bird feeder"),
        *("an office chair", "a musical instrument"),
    ),
    Kind.NOTE: (
        *("to thank a neighbour for watering my plants", "to invite a colleague to lunch", "to cancel a gym membership"),
        *("to congratulate a friend on a new job", "to ask my landlord to fix the heating", "to apologise for being late"),
        *("to remind my team of a meeting", "to welcome a new neighbour", "to ask a teacher for advice", "to sell an old sofa"),
        *("to wish my grandmother a happy birthday", "to turn down an invitation", "to recommend a good book to a friend"),
        *("to ask for a day off",),
    ),
}

FORMS: dict[str, tuple[tuple[Kind, ...], tuple[str, ...]]] = {
    "start": ((Kind.SKILL,), ("How do I get started with {x}?", "I want to begin with {x}. How?")),
    "tips": ((Kind.SKILL,), ("Give me some tips for {x}.", "What helps with {x}?")),
    "mistakes": ((Kind.SKILL,), ("What mistakes do beginners make when {x}?", "What should I avoid when {x}?")),
    "explain": ((Kind.THING,), ("Explain {x} to me.", "Can you tell me what {x} is?")),
    "child": ((Kind.THING,), ("How would you describe {x} to a child?", "Tell a ten-year-old about {x}.")),
    "facts": ((Kind.THING,), ("What should everybody know about {x}?", "Tell me something interesting about {x}.")),
    "compare": ((Kind.PAIR, Kind.OPTIONS), ("What is the difference between {x}?", "Compare {x} for me.")),
    "choose": ((Kind.OPTIONS,), ("How do I choose between {x}?", "Help me decide between {x}.")),
    "plan": ((Kind.EVENT,), ("Help me plan {x}.", "I am planning {x}. What comes first?")),
    "prepare": ((Kind.EVENT,), ("What do I need for {x}?", "How do I prepare for {x}?")),
    "buy": ((Kind.PURCHASE,), ("What should I look for when I buy {x}?", "I need {x}. What matters?")),
    "write": ((Kind.NOTE,), ("Write a short message {x}.", "I need a few lines {x}.")),
}
"""The twelve forms: the kinds of topics that each takes, and its wordings with ``{x}`` for the topic."""


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """One thing that a user can ask about."""

    kind: Kind
    name: str

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms of request that fit it."""
        return tuple(form for form, (kinds, _) in FORMS.items() if self.kind in kinds)

    def request(self, form: str, wording: int) -> str:
        """The request in one of the form's wordings.

        Raises:
            ValueError: The form takes topics of another kind.
        """
        kinds, wordings = FORMS[form]
        if self.kind not in kinds:
            raise ValueError(f"form {form} does not fit {self.name}, which is a topic of kind {self.kind.value}")
        return wordings[wording].format(x=self.name)


ALL_TOPICS: tuple[Topic, ...] = tuple(Topic(kind, name) for kind, names in TOPICS.items() for name in names)
