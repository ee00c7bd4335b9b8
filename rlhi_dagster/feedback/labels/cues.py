"""Cheap signs in a follow-up, its request and its reply that tell what the follow-up does with the reply.

What belongs here: the named numbers computed from the three texts alone, declared once in ``CUES``. What does not: vectors of a
sentence encoder and weights (``classifier``). Changing a cue changes the meaning of stored weights: bump ``CUES_VERSION``.

Every cue lies in [0, 1] or near it, so that one outlying message cannot outweigh all else.
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from rlhi_dagster.feedback import Aspect
from rlhi_dagster.feedback.aspects import requests

CUES_VERSION = 1
HEAD = 1_500
"""Characters of a follow-up and of a request that are read for words; the rest counts only through lengths."""
EDITED = 0.4
"""Share of the runs of three characters of two messages that both have, from which one is the other with a change."""


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)


def _nothing_but(words: str) -> re.Pattern[str]:
    """A text of these words and punctuation alone; possessive, so that a long text of them that ends otherwise costs linear time."""
    return re.compile(rf"\A\W*+(?:(?:{words})(?!\w)\W*+)++", re.IGNORECASE)


# Signs anywhere in the follow-up.
_ANYWHERE: dict[str, re.Pattern[str]] = {
    "edit_verb": _words(
        r"rewrite|re-write|rephrase|reword|revise|edit|modify|change|fix|correct|adjust|update|improve|polish|refine|redo|convert|reformat|replace|remove|delete|drop|rename|swap|tweak|reescrib\w+|corrige|cambia|modifica|arregla|mejora|quita|reemplaza|измени|исправь|修改|改成"
    ),
    "extend_verb": _words(
        r"add|include|insert|extend|expand|elaborate|mention|incorporate|append|añade|agrega|incluye|amplía|добавь|дополни|加上"
    ),
    "make_it": _words(
        r"(?:make|keep|turn|write|put|do|convert|give|translate|explain|say|have) (?:it|this|that|them|these|those|the (?:above|previous|last|same))|hazlo|ponlo|escríbelo"
    ),
    "points_at_reply": _words(
        r"(?:the )?(?:above|previous|last|same|your) (?:code|answer|reply|response|output|text|list|one|version|script|story|email|paragraph|example|procedure|result)s?|you (?:said|wrote|gave|did|forgot|missed|used|didn'?t|skipped|mentioned|just|already|provided)|what you wrote"
    ),
    "comparative": _words(
        r"more|less|fewer|shorter|longer|better|simpler|easier|nicer|bigger|smaller|closer|stronger|clearer|friendlier|más|menos|mejor|плюс|больше|меньше|更"
    ),
    "too": _words(r"too|overly|demasiado|слишком|太"),
    "correction": _words(
        r"i mean(?:t)?|i said|i asked|i wanted|i'?m asking|not what|wrong|incorrect|mistake|error|false|that'?s not|that is not|isn'?t right|is not (?:right|correct|true)|should (?:be|have|not)|supposed to|you forgot|you missed|instead|actually|rather than|quise decir|quería decir|incorrecto|equivocad\w+|te equivocas|неправильно|ошибка|不对|错"
    ),
    "negation": _words(
        r"no|not|n'?t|don'?t|dont|doesn'?t|doesnt|didn'?t|didnt|isn'?t|won'?t|can'?t|cannot|never|without|nope|sin|nada|нет|не|without"
    ),
    "doubt": _words(
        r"are you sure|are u sure|r u sure|really\?|is (?:that|it|this) (?:right|correct|true)|double[- ]check|check again|you sure|estás segur[oa]|seguro que"
    ),
    "does_not_work": _words(
        r"(?:does|do|did|is|are|still)(?:n'?t| not|nt)? ?(?:work|working|run|running|help|compile|fit|match|answer)|not working|no funciona|still (?:not|the same|get\w*|doesn'?t|have|looks?)|same (?:error|problem|issue)|i (?:got|get|am getting|have) (?:this|an|the|a)? ?(?:error|issue|problem)"
    ),
    "code_trace": re.compile(
        r"traceback|exception|\wError\b|error:|\berrno\b|line \d+|at \w+\.\w+\(|undefined|cannot find|not found|```|SyntaxError|stack trace|failed",
        re.IGNORECASE,
    ),
    "again": _words(
        r"again|retry|once more|regenerate|another(?: one)?|others?|different (?:one|version|answer)s?|more (?:options|ideas|examples)|re-?do|otra vez|de nuevo|otr[oa]s?|ещё|еще|再|repeat|repite|encore"
    ),
    "thanks": _words(
        r"thanks?|thank you|thx|ty|great|perfect|awesome|excellent|amazing|nice|cool|good job|well done|love it|lovely|wonderful|gracias|perfecto|genial|excelente|спасибо|谢谢|merci|danke"
    ),
    "go_on": _words(
        r"continue|go on|carry on|keep going|proceed|next|go ahead|contin[uú]a|sigue|siguiente|adelante|продолжай|继续|then|and then|what happens next|finish"
    ),
    "next_part": _words(r"now|next|also|then|(?:chapter|part|step|question|scene|section|q) ?\d+|second|third|ahora|también|luego"),
    "question_word": _words(
        r"what|why|how|when|where|which|who|whose|can|could|does|do|is|are|qué|que|por qué|cómo|cuándo|dónde|cuál|quién|что|как|почему|где|когда"
    ),
    "refers_back": _words(
        r"it|its|that|this|they|them|their|those|these|there|ones?|he|she|him|her|eso|esto|ella|ese|esa|это|этот|它|这|那"
    ),
    "please": _words(r"please|pls|plz|por favor|kindly|пожалуйста|请"),
    "target_length": _words(
        r"(?:\d+|one|two|three|five|ten|hundred|thousand)[- ]?(?:words?|characters?|chars|lines?|sentences?|pages?|paragraphs?|palabras|líneas|frases)|(?:within|at least|at most|under|about|max(?:imum)?|minimum) \d+"
    ),
    "chatter": _words(
        r"hi|hello|hey|lol|haha\w*|ok(?:ay)?|hmm+|wow|yes|yeah|no|sure|cool|bye|good (?:morning|night|evening)|how are you|idk|whatever|hola|jaja\w*|vale|you are (?:useless|stupid|dumb|bad)|xd"
    ),
    "about_model": _words(r"are you|do you (?:know|think|like|have|feel)|who are you|you are|chatgpt|gpt|your (?:name|opinion)"),
}

# Signs at the very start of the follow-up.
_START: dict[str, re.Pattern[str]] = {
    "starts_no": re.compile(r"(?:no|nope|not|but|pero|wrong|incorrect|nah|нет|不)\b[\s,.!]*", re.IGNORECASE),
    "starts_edit": re.compile(
        r"\A(?:(?:please|now|can you|could you|ok(?:ay)?,?|but|and|just|great,?|thanks,?|no,?)\s+)*(?:rewrite|rephrase|revise|edit|modify|change|fix|correct|make|add|include|remove|shorten|expand|extend|use|convert|keep|turn|replace|put|don'?t|translate|haz|añade|cambia|usa)\b",
        re.IGNORECASE,
    ),
    "starts_and": re.compile(r"(?:and|also|so|then|y|what about|how about|what if)\b", re.IGNORECASE),
    "starts_question": re.compile(r"(?:what|why|how|when|where|which|who|can|could|does|do|is|are|qué|cómo|por qué|cuál|¿)", re.IGNORECASE),
    "starts_why": re.compile(
        r"(?:(?:and|but|y|so)\s+)?(?:why|how come|which|what about|how about|how (?:often|long|much|many)|por qué|cuál|cuánt\w+)\b",
        re.IGNORECASE,
    ),
    "starts_task": re.compile(
        r"(?:write|create|generate|give|tell|explain|describe|list|provide|translate|summari[sz]e|act as|i want you to|you are|imagine|find|calculate|solve|escribe|crea|dame|explica|haz un|напиши|写|请)\b",
        re.IGNORECASE,
    ),
}

# The whole follow-up is nothing but this (punctuation and case aside).
_WHOLE: dict[str, re.Pattern[str]] = {
    "only_thanks": _nothing_but(
        r"ok(?:ay)?|oh|yes|wow|that'?s|that is|this is|very|so|much|you|many|a lot|it'?s|muchas|muy bien|works?|just what i needed|exactly|works|that works|(?:that|this|it) (?:helps?(?:ed)?|works?(?: now)?)|what i (?:needed|wanted)|answer|good|for (?:the|your) (?:help|answer)|helpful|all|i (?:love|like) it|thanks?|thank|thx|ty|cheers|great|perfect|awesome|excellent|amazing|nice|cool|lovely|wonderful|brilliant|super|gracias|perfecto|genial|excelente|merci|danke|спасибо|谢谢"
    ),
    "only_again": _nothing_but(
        r"please|pls|ok|no|try|do|say|write|it|that|this|one|once|more|again|retry|regenerate|another|another one|repeat|redo|give me|more|options|otra vez|de nuevo|otr[oa]|intenta(?:lo)?|por favor|еще|ещё|再来一个|\d+"
    ),
    "only_go_on": _nothing_but(
        r"please|ok(?:ay)?|yes|and|then|continue|go on|go ahead|carry on|keep going|keep|proceed|next|more|sigue|contin[uú]a|adelante|siguiente|продолжай|继续"
    ),
    "only_chatter": _nothing_but(
        r"hi|hello|hey|there|lol|lmao|(?:ha){2,}h?|ok(?:ay)?|hm+|wow|idk|bye|hola|jaja\w*|xd|vale|ah+|oh+|um+|whatever|never ?mind|good (?:morning|night|evening)|how are you|😂|🙂|😀"
    ),
}

_NUMBERS: tuple[str, ...] = (
    "follow_up_length",
    "prompt_length",
    "reply_length",
    "length_to_prompt",
    "length_to_reply",
    "is_very_short",
    "is_short",
    "is_long",
    "exact_repeat",
    "near_repeat",
    "edited_repeat",
    "token_overlap_prompt",
    "token_overlap_reply",
    "new_token_share",
    "same_first_words",
    "character_overlap_prompt",
    "ends_in_question",
    "ends_in_exclamation",
    "line_breaks",
    "code_characters",
    "reply_has_code",
    "trace_after_code",
    "reply_asks",
    "reply_refuses",
    "reply_was_cut",
    "is_wordless",
    "non_latin",
    "script_changes",
    "style_request",
    "short_style_request",
    "style_requests",
    "correction_starts_no",
    "short_correction",
    "short_edit",
    "only_courtesy_and_style",
)

CUES: tuple[str, ...] = (*_ANYWHERE, *_START, *_WHOLE, *_NUMBERS)
"""Names of the cues, in the order of the vector."""

_TOKEN = re.compile(r"\w+", re.UNICODE)
_CODE = re.compile(r"[{}();=<>\[\]_/\\]")
_REFUSES = re.compile(r"\b(?:i'?m sorry|i am sorry|i apologi[sz]e|as an ai|i cannot|i can'?t|unable to|lo siento)\b", re.IGNORECASE)
_NON_LATIN = re.compile(r"[\u0370-\uffff]")
_TRACE_OR_CODE = re.compile(r"error|exception|traceback|failed|not (?:found|defined|work)|doesn'?t work", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text cut to ``HEAD`` and its lower-case tokens."""

    head: str
    tokens: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> _Text:
        head = text[:HEAD].strip()
        return cls(head, tuple(_TOKEN.findall(head.lower())))


def features(follow_up: str, previous_prompt: str, previous_reply: str) -> np.ndarray:
    """Compute the cues of one follow-up.

    Args:
        follow_up: The user message in question.
        previous_prompt: The user message before it.
        previous_reply: The reply to that, which the follow-up reacts to.

    Returns:
        float32 vector of ``len(CUES)``, in the order of ``CUES``.
    """
    text, prompt, reply = _Text.read(follow_up), _Text.read(previous_prompt), _Text.read(previous_reply)
    values = {name: float(is_there) for name, is_there in signs(text.head).items()}
    values |= {name: float(pattern.fullmatch(text.head) is not None) for name, pattern in _WHOLE.items()}
    values |= _sizes(follow_up, previous_prompt, previous_reply)
    values |= _overlaps(text, prompt, reply)
    values |= _shapes(text, prompt, previous_reply)
    values |= _wishes(follow_up, values)
    return np.array([values[name] for name in CUES], np.float32)


def signs(text: str) -> dict[str, bool]:
    """The cues that words of one text give, wherever they stand or at its start."""
    head = text[:HEAD].strip()
    found = {name: pattern.search(head) is not None for name, pattern in _ANYWHERE.items()}
    return found | {name: pattern.match(head) is not None for name, pattern in _START.items()}


def is_repeat(follow_up: str, previous_prompt: str) -> bool:
    """Whether a follow-up is the message before it, as it was or with a change."""
    mine, asked = (_trigrams(_Text.read(text).head) for text in (follow_up, previous_prompt))
    return len(mine & asked) >= EDITED * max(len(mine | asked), 1)


def _log_size(text: str) -> float:
    return math.log1p(len(text)) / 8.0


def _sizes(follow_up: str, prompt: str, reply: str) -> dict[str, float]:
    length = len(follow_up.strip())
    return {
        "follow_up_length": _log_size(follow_up),
        "prompt_length": _log_size(prompt),
        "reply_length": _log_size(reply),
        "length_to_prompt": length / (length + len(prompt) + 1),
        "length_to_reply": length / (length + len(reply) + 1),
        "is_very_short": float(length <= 15),
        "is_short": float(length <= 45),
        "is_long": float(length > 300),
    }


def _overlaps(text: _Text, prompt: _Text, reply: _Text) -> dict[str, float]:
    mine, asked, answered = set(text.tokens), set(prompt.tokens), set(reply.tokens)
    union = len(mine | asked) or 1
    jaccard = len(mine & asked) / union
    is_same = text.head.lower() == prompt.head.lower()
    grams_mine, grams_asked = _trigrams(text.head), _trigrams(prompt.head)
    grams = len(grams_mine & grams_asked) / (len(grams_mine | grams_asked) or 1)
    return {
        "exact_repeat": float(is_same),
        "near_repeat": float(grams >= 0.85),
        "edited_repeat": float(EDITED <= grams < 0.97 and not is_same),
        "token_overlap_prompt": jaccard,
        "token_overlap_reply": len(mine & answered) / (len(mine) or 1),
        "new_token_share": len(mine - asked - answered) / (len(mine) or 1),
        "same_first_words": float(len(text.tokens) >= 3 and text.tokens[:3] == prompt.tokens[:3]),
        "character_overlap_prompt": grams,
    }


def _trigrams(text: str) -> set[str]:
    squeezed = " ".join(text.lower().split())
    return {squeezed[i : i + 3] for i in range(len(squeezed) - 2)}


def _shapes(text: _Text, prompt: _Text, reply: str) -> dict[str, float]:
    head, tail = reply[:300], reply[-200:].rstrip()
    reply_has_code = float("```" in reply or len(_CODE.findall(reply[:2_000])) > 60)
    non_latin = float(_NON_LATIN.search(text.head[:200]) is not None)
    return {
        "ends_in_question": float(text.head.endswith(("?", "\uff1f"))),
        "ends_in_exclamation": float(text.head.endswith("!")),
        "line_breaks": min(text.head.count("\n"), 10) / 10,
        "code_characters": min(len(_CODE.findall(text.head)) / (len(text.head) + 1) * 10, 1.0),
        "reply_has_code": reply_has_code,
        "trace_after_code": reply_has_code * float(_TRACE_OR_CODE.search(text.head) is not None),
        "reply_asks": float(tail.endswith("?")),
        "reply_refuses": float(_REFUSES.search(head) is not None),
        "reply_was_cut": float(bool(tail) and tail[-1].isalnum()),
        "is_wordless": float(not text.tokens),
        "non_latin": non_latin,
        "script_changes": abs(non_latin - float(_NON_LATIN.search(prompt.head[:200]) is not None)),
    }


def _wishes(follow_up: str, values: dict[str, float]) -> dict[str, float]:
    wishes = [each for each in requests(follow_up) if each.aspect is not Aspect.PROGRAMMING_LANGUAGE]  # which is no matter of style
    spoken = sum(len(wish.span) for wish in wishes) / (len(follow_up.strip()) + 1)
    is_short = values["is_short"]
    return {
        "style_request": float(bool(wishes)),
        "short_style_request": float(bool(wishes)) * is_short,
        "style_requests": min(len(wishes), 3) / 3,
        "correction_starts_no": values["starts_no"] * values["correction"],
        "short_correction": is_short * values["correction"],
        "short_edit": is_short * max(values["starts_edit"], values["make_it"]),
        "only_courtesy_and_style": float(spoken > 0.4),
    }
