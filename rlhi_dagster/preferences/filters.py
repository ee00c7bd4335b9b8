"""Which pairs are kept: every reason against a rewrite or another pair of sides, measured on its texts.

What belongs here: the reasons, in the order in which they are looked at, and their measures. What does not: what a reward model says of a
pair (``rewrites.rewrite_pairs``), the lexicons (``mentions``, ``refusals``), and how the counts are shown (``waterfall``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from rlhi_dagster.base.language_id import MOST_READ, detected
from rlhi_dagster.feedback.aspects import LANGUAGES
from rlhi_dagster.preferences import Strategy
from rlhi_dagster.preferences.refusals import is_refusal
from rlhi_dagster.preferences.settings import PairFilterSettings, RewriteSettings, SideFilterSettings


class DropReason(StrEnum):
    """Why a rewrite, or what a user said outright, makes no pair, in the order in which reasons are looked at.

    Of what users say outright, the rewrite is the preferred side, and the original the other.
    """

    REWRITE_FAILED = "rewrite_failed"
    """There is no rewrite."""
    CLARIFIES_REQUEST = "clarifies_request"
    """The follow-up says what the request meant, which the trained model cannot know."""
    FEEDBACK_DOES_NOT_APPLY = "feedback_does_not_apply"
    """The regenerated reply lacks the defect that the user criticised."""
    CONTRADICTED = "contradicted"
    """The user's thumbs say the opposite."""
    WEAK_EVIDENCE = "weak_evidence"
    """The user asked for another reply, and nothing else says which one is the better."""
    EMPTY_ORIGINAL = "empty_original"
    """What was left is white space: an error, or a reply that broke off before it began."""
    EMPTY_REWRITE = "empty_rewrite"
    """The rewrite is white space."""
    IDENTICAL_SIDES = "identical_sides"
    """Both sides are the same, but for white space."""
    NEARLY_IDENTICAL_SIDES = "nearly_identical_sides"
    """Both sides are nearly the same, letter by letter."""
    MENTIONS_FEEDBACK = "mentions_feedback"
    """The rewrite speaks of feedback that its reader has not given, or apologises."""
    USES_NEW_INFORMATION = "uses_new_information"
    """The rewrite uses words that only the feedback brought in: facts, material or a task that the trained model cannot know."""
    DOES_NOT_MEET_FEEDBACK = "does_not_meet_feedback"
    """The pair judge says that the rewrite does not do what the feedback asks."""
    ORIGINAL_IS_REFUSAL = "original_is_refusal"
    """A proper refusal is never the rejected side."""
    REWRITE_IS_REFUSAL = "rewrite_is_refusal"
    """The rewriter declined."""
    LENGTH_RATIO = "length_ratio"
    """One side is many times as long as the other."""
    LANGUAGE_MISMATCH = "language_mismatch"
    """The sides differ in language, and nobody named one."""
    TOXIC_REWRITE = "toxic_rewrite"
    """The rewrite has words of abuse that neither conversation, original nor feedback has."""
    REWARD_BELOW_FLOOR = "reward_below_floor"
    """The reward of the rewrite is too low."""
    REWARD_MARGIN_TOO_SMALL = "reward_margin_too_small"
    """The rewrite's reward is not far enough above the original's."""
    REWARD_FAILED = "reward_failed"
    """The reward model could not score a side."""


LEAST_LANGUAGE_CHARACTERS = 40
"""Of a shorter text the language is not told: below, the small model is wrong too often (docs/concepts/rewrites.md)."""
LEAST_LANGUAGE_PROBABILITY = 0.7
LEAST_NEW_CHARACTERS = 4
_STEM_CHARACTERS = 5

_CLARIFIES = re.compile(r"\bI meant\b|\bI was asking (?:about|for)\b|\bquise decir\b|\bme refer[íi]a a\b", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_OTHER_NAMES = (
    "anglais|espagnol|allemand|russe|chinois|italien|portugais|japonais|néerlandais|englisch|spanisch|französisch|russisch|chinesisch|"
    "italienisch|portugiesisch|inglese|spagnolo|francese|tedesco|russo|cinese|inglês|espanhol|alemão|bengali|bangla|urdu|hebrew|greek|persian|"
    "farsi|thai|romanian|czech|swedish|danish|norwegian|finnish|hungarian|tamil|malay|filipino|tagalog|latin\\b"
)
_NAMES_A_LANGUAGE = re.compile(
    rf"\b(?:{'|'.join(LANGUAGES.values())}|{_OTHER_NAMES})|\b(?:translat|tradu[ciz]|[uü]bersetz)|перев[её]д|перевод|\wск(?:ом|ий)\b|翻译|译成|[英中日韩法德俄]文|[英法德俄韩日汉]语",
    re.IGNORECASE,
)
_ALPHANUMERIC = re.compile(r"[^\W_]+")
_WORD = re.compile(r"[\w@$]+(?:\*+[\w@$]+)*")
_ABUSE = re.compile(
    "fuck|fuk|fcuk|phuk|shit|cunt|twat|bitch|asshole|arsehole|dumbass|jackass|bastard|bollock|whore|slut|skank|wank|piss|douchebag|cocksuc"
    "|dickhead|nigg(?!le)|kike|fag|gook|spic$|wetback|paki$|retarded|pussy|jizz|blowjob|cumshot"
)
"""Which words of better_profanity's list are abuse or obscenity: most of it is not ("organ", "stroke", "gay", "LEN")."""


def reasons(row: Mapping[str, Any], settings: RewriteSettings) -> list[DropReason]:
    """Every reason against a rewrite that its texts and its judges give, in the order of ``DropReason``.

    Args:
        row: Of ``REWRITES``.
        settings: What to do where feedback does not apply, and the limits.
    """
    found = {
        DropReason.REWRITE_FAILED: row["rewrite"] is None,
        DropReason.CLARIFIES_REQUEST: bool(_CLARIFIES.search(row["feedback"])),
        DropReason.FEEDBACK_DOES_NOT_APPLY: settings.inapplicable == "drop" and row["follow_up_applies"] is False,
    }
    if row["rewrite"] is not None:
        found |= _of_texts(row, settings.filters)
    return [reason for reason in DropReason if found.get(reason)]


def _of_texts(row: Mapping[str, Any], limits: PairFilterSettings) -> dict[DropReason, bool]:
    found = of_sides(row["rewrite"], row["original"], row["prompt"], [row["feedback"], row["persona"]], limits)
    if DropReason.EMPTY_REWRITE in found:
        return found
    return found | {
        DropReason.MENTIONS_FEEDBACK: bool(row["mentions_feedback"]),
        DropReason.USES_NEW_INFORMATION: row["strategy"] != Strategy.SCRATCH
        and _is_over(limits.max_new_words, lambda _: len(new_words(row["rewrite"], row["feedback"], _known(row)))),
        DropReason.DOES_NOT_MEET_FEEDBACK: _fails(row, limits.min_meets_feedback),
    }


def of_sides(
    chosen: str, rejected: str, prompt: Iterable[Mapping[str, str]], wishes: list[str], limits: SideFilterSettings
) -> dict[DropReason, bool]:
    """Which reasons that two sides give hold; without a preferred side that is the only one.

    Args:
        chosen: The preferred side.
        rejected: The other one.
        prompt: Messages that both answer.
        wishes: What the user asked for beside them; a language that is named there may differ.
        limits: From where on a reason holds.
    """
    new, old = (_SPACE.sub(" ", side).strip() for side in (chosen, rejected))
    if not new:
        return {DropReason.EMPTY_REWRITE: True}
    same = new == old
    return {
        DropReason.IDENTICAL_SIDES: same,
        DropReason.NEARLY_IDENTICAL_SIDES: not same and _is_over(limits.max_similarity, lambda most: similarity(new, old, most)),
        DropReason.ORIGINAL_IS_REFUSAL: limits.refusals and is_refusal(rejected),
        DropReason.REWRITE_IS_REFUSAL: limits.refusals and is_refusal(chosen),
        DropReason.LENGTH_RATIO: not _is_within(len(new) / max(len(old), 1), limits.min_length_ratio, limits.max_length_ratio),
        DropReason.LANGUAGE_MISMATCH: limits.languages and languages_differ(chosen, rejected, wishes),
        DropReason.TOXIC_REWRITE: limits.toxicity
        and bool(words_of_abuse(chosen, [rejected, *wishes, *(said["content"] for said in prompt)])),
    }


def new_words(rewrite: str, feedback: str, known: Iterable[str]) -> set[str]:
    """Words of ``rewrite`` that ``feedback`` has and no text of ``known``: what only the feedback can have brought in.

    Words of at least ``LEAST_NEW_CHARACTERS`` letters and digits, compared by their first ``_STEM_CHARACTERS``, so that "emojis" is no
    news where "emoji" was said.
    """
    return (_stems(rewrite) & _stems(feedback)).difference(*map(_stems, known))


def _stems(text: str) -> set[str]:
    return {word[:_STEM_CHARACTERS] for word in _ALPHANUMERIC.findall(text.lower()) if len(word) >= LEAST_NEW_CHARACTERS}


def _known(row: Mapping[str, Any]) -> list[str]:
    return [row["original"], row["persona"], *(said["content"] for said in row["prompt"])]


def similarity(one: str, other: str, least: float = 0.0) -> float:
    """1 - Levenshtein distance / longer length; 0 where it is below ``least``, which saves most of the work."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(one, other, score_cutoff=least))


def language(text: str) -> str | None:
    """The language's code, by fastText's small model; ``None`` where the text is short or the model unsure. Code and links are not read."""
    prose = " ".join(_NO_PROSE.sub(" ", text[: 2 * MOST_READ]).split())
    if len(prose) < LEAST_LANGUAGE_CHARACTERS:
        return None
    code, probability = detected(prose)
    return code if probability >= LEAST_LANGUAGE_PROBABILITY else None


def languages_differ(rewrite: str, original: str, wishes: Iterable[str]) -> bool:
    """Whether both sides are surely in languages of their own; a wish (follow-up, persona) that names any language excuses it."""
    if any(_NAMES_A_LANGUAGE.search(wish) for wish in wishes):
        return False
    now, before = language(rewrite), language(original)
    return None not in (now, before) and now != before


def words_of_abuse(text: str, known: list[str]) -> set[str]:
    """Words of abuse or obscenity in ``text`` that no text of ``known`` has, in disguise too (better_profanity)."""
    new = _words(text).difference(*map(_words, known))
    return {word for word in new if _is_abuse(word)}


def _fails(row: Mapping[str, Any], least: float | None) -> bool:
    """Whether the judge's verdict counts against the row; not of the control, which must not know the feedback, not even by selection."""
    met = row["meets_feedback"]
    return row["strategy"] != Strategy.SCRATCH and least is not None and met is not None and met < least


def _is_within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _is_over(limit: float | None, measure: Callable[[float], float]) -> bool:
    return limit is not None and measure(limit) > limit


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


@functools.cache
def _abuse() -> list[Any]:
    from better_profanity import Profanity  # type: ignore[import-untyped]

    listed = [str(word) for word in Profanity().CENSOR_WORDSET]
    return list(Profanity([word for word in listed if _ABUSE.search(word)]).CENSOR_WORDSET)


@functools.lru_cache(maxsize=200_000)
def _is_abuse(word: str) -> bool:
    return word in _abuse()  # compares by shape, so it is no set
