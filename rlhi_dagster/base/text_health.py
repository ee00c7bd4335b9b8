"""Whether a sampled reply is broken text, told without knowing its language.

What belongs here: the signs of broken text, as functions of a prompt and a reply. What does not: sampling (``workers/probe.py``) and
judging how good a reply is (``evaluation/judges.py``).

A language model that training has broken goes on without end, repeats itself, writes bytes that are no text, or falls into another script.
Fluent nonsense has none of these signs: the share of broken replies is a lower bound.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

LOOP_WORDS = 8
"""Fewest words in a row that only repeat. Sound replies repeat much, but seldom the same thing three times straight after itself: of 805
replies each, this calls none of GPT-4 a loop and 2 of GPT-3.5, where Gopher's bound on repeated runs of five words (Rae et al., 2021) calls
17 and 34 so."""
_LONGEST_PERIOD = 64
_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+")
_BROKEN = {"Cc", "Co", "Cn", "Cs"}
_WHITE = frozenset("\t\n\r")
_TOGETHER = {"HIRAGANA": "CJK", "KATAKANA": "CJK"}


class Flaw(StrEnum):
    """Why a reply is broken text; of several, the first."""

    EMPTY = "empty"
    """No letter and no digit."""
    NO_TEXT = "no_text"
    """A replacement character (bytes that are no UTF-8), a control character or a code point that Unicode does not assign."""
    LOOP = "loop"
    """The same words three times straight after themselves, or more."""
    RAN_ON = "ran_on"
    """No end within the limit."""
    OTHER_SCRIPT = "other_script"
    """Most letters are in scripts that are not Latin and that the prompt has none of."""


def flaw(prompt: str, reply: str, *, has_ended: bool) -> Flaw | None:
    """What is wrong with a reply's text; ``None`` if nothing shows.

    Args:
        prompt: What the reply answers.
        reply: Its text.
        has_ended: Whether the model ended the reply itself.
    """
    if not any(map(str.isalnum, reply)):
        return Flaw.EMPTY
    if any(letter == "\ufffd" or (unicodedata.category(letter) in _BROKEN and letter not in _WHITE) for letter in reply):
        return Flaw.NO_TEXT
    if loops(_WORD.findall(reply.lower())):
        return Flaw.LOOP
    if not has_ended:
        return Flaw.RAN_ON
    written = _scripts(reply)
    known = {"LATIN", *_scripts(prompt)}
    if 2 * sum(count for script, count in written.items() if script not in known) > written.total():
        return Flaw.OTHER_SCRIPT
    return None


def flaws(replies: Iterable[tuple[str, str, bool]]) -> dict[str, int]:
    """How many replies have which flaw, by `Flaw`; of (prompt, reply, has ended)."""
    found = Counter(flaw(prompt, reply, has_ended=has_ended) for prompt, reply, has_ended in replies)
    return {kind.value: found[kind] for kind in Flaw if found[kind]}


def loops(words: Sequence[str]) -> bool:
    """Whether some stretch of up to 64 words stands three times in a row, with at least ``LOOP_WORDS`` words repeated."""
    longest = min(len(words) // 2, _LONGEST_PERIOD)
    return any(_longest_run(words, period) >= max(2 * period, LOOP_WORDS) for period in range(1, longest + 1))


def _longest_run(words: Sequence[str], period: int) -> int:
    """Most words in a row that are the same as ``period`` words before."""
    longest = run = 0
    for word, earlier in zip(words[period:], words, strict=False):
        run = run + 1 if word == earlier else 0
        longest = max(longest, run)
    return longest


def _scripts(text: str) -> Counter[str]:
    """Letters of a text by script."""
    names = (unicodedata.name(letter, "").split(" ")[0] for letter in text if letter.isalpha())
    return Counter(_TOGETHER.get(name, name) for name in names)
