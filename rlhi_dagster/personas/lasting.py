r"""Which wishes in a message are about the model's answers, and which of them their user says to hold in general.

What belongs here: the words that tell it. What does not: which wishes a message has (``feedback.aspects``), and in how many conversations
a wish was said (``extractive``).

"Make this e-mail shorter: …" is about the user's own text, "make it shorter" about the answer. "Shorter, please" is about one answer;
"keep your answers short" and "always answer in Spanish" are about all.
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import re

from rlhi_dagster.feedback.aspects import MAX_CHARACTERS, AspectRequest, requests

_CHANGE = r"(?:re-?write|rephrase|reword|paraphrase|translate|shorten|summari[sz]e|condense|simplify|convert|correct|proof-?read|fix|improve|polish|edit|expand|turn|make|keep|reformat|put|change|format|list|extract|traduce|resume|corrige|reescribe)"
_TEXT = r"(?:text|paragraph|para|sentences?|passage|e-?mail|letter|message|article|essay|abstract|report|story|script|post|poem|notes?|words?|code|table|data|list|title|bio|review|conversation|transcript|statement|resume|cv)"
_GIVEN_TEXT = re.compile(
    rf"(?<!\w){_CHANGE}\W+(?:\w+\W+){{0,6}}?(?:(?:this|these|following|below|my|given|provided)\b|(?:the|his|her|our) (?:\w+ ){{0,2}}{_TEXT}\b)",
    re.IGNORECASE,
)
"""A verb of changing with a text as its object; in a message that opens a task, that text cannot be an answer."""
_HANDED_OVER = re.compile(r"[:：]\s*+\S.{60,}\Z|[\"“«][^\"”»]{60,}|\n[^\S\n]*+\S.{40,}\Z", re.DOTALL)
"""What comes after a colon or in a paragraph of its own, or is quoted, and is long."""

_ANSWERS = r"(?:answers|replies|responses|explanations|messages|outputs|respuestas|ответы)"
_GENERAL = re.compile(
    r"(?<!\w)(?:always|from now on|from here on|in (?:the )?future|going forward|every time|each time|whenever|by default|as a rule|"
    rf"(?:all|any|each|every)(?: of)?(?: (?:your|my|the|future|further|following|next))* (?:{_ANSWERS}|answer|reply|response|questions?)|"
    rf"(?:you|please|and|to) never|(?:never|don'?t ever|do not ever) (?:use|write|answer|reply|respond|add|give|ask|start|end|begin|include)|"
    rf"your {_ANSWERS}|(?:i|we) (?:\w+ ){{0,2}}(?:prefer|like|hate|dislike|want|need|can'?t stand) (?:\w+ ){{0,3}}{_ANSWERS}|"
    r"(?:i|we) (?:always|generally|usually|never|only) (?:want|need|like|prefer|read|speak|understand|use|write|code|work|program)|"
    r"siempre|nunca|a partir de ahora|de ahora en adelante|tus respuestas|всегда|впредь|отныне|immer|ab jetzt|toujours|désormais|sempre|a partir de agora)(?!\w)"
    r"|以后|每次|总是|从现在开始",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?\n。！？]")


def about_answers(text: str, *, opens_task: bool) -> list[tuple[AspectRequest, bool]]:
    """The wishes of a message that are about the model's answers, each with whether it is said to hold in general.

    Args:
        text: A user message.
        opens_task: Whether it asks for something new, so that it speaks of no answer that is there.
    """
    found = [(request, is_general(text, request.span)) for request in requests(text)]
    hands_over = (opens_task or len(text) > MAX_CHARACTERS) and (
        _GIVEN_TEXT.search(text) is not None or _HANDED_OVER.search(text) is not None
    )
    return [(request, in_general) for request, in_general in found if in_general or not hands_over]


def is_general(text: str, span: str) -> bool:
    """Whether the sentence with these words says that they hold beyond the answer at hand."""
    plain = text.replace("’", "'")
    start = max(plain.find(span.replace("’", "'")), 0)
    ends = [found.end() for found in _SENTENCE_END.finditer(plain)]
    begin = max((end for end in ends if end <= start), default=0)
    end = min((end for end in ends if end >= start + len(span)), default=len(plain))
    return _GENERAL.search(plain[begin:end]) is not None
