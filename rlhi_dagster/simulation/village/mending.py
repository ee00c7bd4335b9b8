"""How a user mends a reply by hand, so that it becomes what they prefer: a few cuts and marks, as people make them.

What belongs here: one small edit for each value that can be had without writing anything new. What does not: whether the edit did what it
should, which the checkers tell (``mended`` asks them).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rlhi_dagster.feedback import Aspect
from rlhi_dagster.simulation.village import checkers
from rlhi_dagster.simulation.village.preferences import Preference, unmet

_SENTENCE = re.compile(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(*A-Z0-9])")
_LAST_NUMBER = re.compile(r"(?<!\s)\s+\d{1,2}[.)]\Z")
_MARKER = re.compile(r"^[ \t]*(?:[-*•+–]|\d{1,2}[.)])[ \t]+")
_QUESTIONS = (
    "Would you like to hear more about {x}?",
    "What would you like to know next about {x}?",
    "Have you any experience with {x}?",
    "Which part of it matters most to you?",
)


def mended(reply: str, preference: Preference, topic: str, draw: Callable[[int], int]) -> str | None:
    """The reply with its unmet aspects put right as far as cuts and marks go; ``None`` if nothing is met that was not.

    Args:
        reply: What the assistant wrote, perhaps cut off at its limit.
        preference: What the user prefers.
        topic: What the request was about.
        draw: Gives a number below its argument.
    """
    before = unmet(preference, reply)
    text = whole(reply)
    # What takes text away comes first, then what marks it up, then what is put at its end.
    for aspect in (Aspect.OPENING, Aspect.EXAMPLES, Aspect.CLOSING, Aspect.LENGTH, Aspect.FORMAT, Aspect.EXCLAMATION):
        value = preference.get(aspect)
        if value is not None and checkers.CHECKERS[aspect](text) != value and (aspect, value) in _EDITS:
            text = _EDITS[aspect, value](text)
    if preference.get(Aspect.CLOSING) == "question" and checkers.closing(text) != "question":
        text = f"{text} {_QUESTIONS[draw(len(_QUESTIONS))].format(x=topic)}"
    return text if text and len(unmet(preference, text)) < len(before) else None


def whole(reply: str) -> str:
    """The reply without a sentence or a line that was cut off; all of it, if nothing else is left."""
    text = reply.strip()
    if re.search(r"[.!?:)\"”*`]\Z", text):
        return text
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|\Z)|\n", text)]
    kept = text[: ends[-1]].strip() if ends else text
    return _LAST_NUMBER.sub("", kept) or text


def sentences(text: str) -> list[str]:
    """The sentences of a text, each without a mark of a list; lines are sentences."""
    lines = (_MARKER.sub("", line).strip() for line in text.splitlines())
    return [said for line in lines if line for said in _SENTENCE.split(line) if said.strip()]


def _shortened(text: str) -> str:
    kept = ""
    for sentence in sentences(text):
        longer = f"{kept} {sentence}".strip()
        if checkers.word_count(longer) > checkers.SHORT_WORDS:
            break
        kept = longer
    return kept or " ".join(text.split()[: checkers.SHORT_WORDS])


def _without_preamble(text: str) -> str:
    kept = text
    while checkers.opening(kept) == "preamble":
        line, *rest = kept.split("\n", 1)
        _first, *others = _SENTENCE.split(line.strip(), maxsplit=1)
        kept = "\n".join(filter(None, [*others, *rest])).strip()
        if not kept:
            return text
    return kept


def _without_examples(text: str) -> str:
    return " ".join(said for said in sentences(text) if checkers.examples(said) == "without") or text


def _without_questions(text: str) -> str:
    said = sentences(text)
    while said and checkers.closing(said[-1]) == "question":
        said.pop()
    return " ".join(said) or text


_EDITS: dict[tuple[Aspect, str], Callable[[str], str]] = {
    (Aspect.LENGTH, "short"): _shortened,
    (Aspect.FORMAT, "bullets"): lambda text: "\n".join(f"- {said}" for said in sentences(text)),
    (Aspect.FORMAT, "numbered"): lambda text: "\n".join(f"{place}. {said}" for place, said in enumerate(sentences(text), 1)),
    (Aspect.FORMAT, "prose"): lambda text: " ".join(sentences(text)),
    (Aspect.EXAMPLES, "without"): _without_examples,
    (Aspect.EXCLAMATION, "without"): lambda text: text.replace("!", "."),
    (Aspect.EXCLAMATION, "with"): lambda text: re.sub(r"\.(?=\s|\Z)", "!", text, count=1),
    (Aspect.CLOSING, "statement"): _without_questions,
    (Aspect.OPENING, "direct"): _without_preamble,
}
