"""No text runs a regular expression of the package away: its cost grows with the text's length and no faster."""

# ruff: noqa: E501 -- a string on one line can be searched and compared with its neighbours

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from rlhi_dagster.base.boxes import boxes
from rlhi_dagster.base.thoughts import spoken
from rlhi_dagster.conversations.redaction.numbers import IDENTITY_NUMBERS, identity_numbers
from rlhi_dagster.conversations.sources.layouts import claude_code, codex
from rlhi_dagster.engines.questions import _reading
from rlhi_dagster.evaluation.benchmarks.pushback import stance
from rlhi_dagster.feedback.aspects import MAX_CHARACTERS, lexicon, requests
from rlhi_dagster.feedback.labels import cues
from rlhi_dagster.personas.chat_writer import verbatim
from rlhi_dagster.preferences import feedback_talk, filters, refusals
from rlhi_dagster.reasoning import choice_answers, math_answers, math_spelling
from rlhi_dagster.simulation.village import checkers, mending
from tests import patterns
from tests.patterns import MOST, Found, Growth, Unseen, hostile, worst

MADE_AT_RUN_TIME: dict[Unseen, str] = {
    Unseen("rlhi_dagster/base/escapes.py", "_longest"): "one character of a set",
    Unseen("rlhi_dagster/base/plots.py", "svg"): "of the palette's colours, on what Matplotlib drew",
    Unseen("rlhi_dagster/conversations/redaction/numbers.py", "_identity"): "on what the pattern of all forms found, a number",
    Unseen("rlhi_dagster/conversations/redaction/numbers.py", "identity_numbers"): "tried below",
    Unseen("rlhi_dagster/conversations/sources/parts.py", "of"): "a value of the modules that call it",
    Unseen("rlhi_dagster/engines/control_tokens.py", "__init__"): "one character of a set",
    Unseen("rlhi_dagster/engines/openai/wording.py", "learn"): "a name of a field between word boundaries",
    Unseen("rlhi_dagster/engines/questions.py", "_reading"): "tried below",
    Unseen("rlhi_dagster/evaluation/benchmarks/pushback.py", "_asserts"): "tried below",
    Unseen("rlhi_dagster/feedback/aspects.py", "_any_of"): "tried below",
    Unseen("rlhi_dagster/feedback/aspects.py", "lexicon"): "tried below",
    Unseen("rlhi_dagster/feedback/labels/cues.py", "_words"): "a value of the module",
    Unseen("rlhi_dagster/feedback/labels/cues.py", "_nothing_but"): "a value of the module",
    Unseen("rlhi_dagster/reasoning/simulated_user.py", "fault"): "a number of a step",
    Unseen("rlhi_dagster/reasoning/simulated_user.py", "_says"): "of a known answer of PRM800K",
}
"""Calls whose patterns are made of what only a run knows, and why that is no hole."""

UNITS = (
    " ", "\n", "\t", " \n", "a", "a ", "1", "1 ", "1.", "1,", "a.", ". ", "é", "中", "_", "-", "*", "#", "# ", "`", "```", "``` ", "\"", "'", "“", "«",
    "(", ")", "[", "]", "{", "}", "<", ">", "<a", "</", "\\", "\\boxed{", "\\text{", "\\text {a ", "$", "=", ":", "@", "a@", "a@b.", "://", "//a:", "+1",
    "+1 ", "sk-", "sk-a-", "eyJ", "eyJ-", "ghp_", "Bearer ", "-----BEGIN PRIVATE KEY-----", "<think>", "</think>", "<think> `", "[THINK]", "Answer: ",
    "answer is ", "the answer is (A", "no ", "please ", "ok ", "not", "sorry ", "i can't ", "what's ", "обновлен", "translate ", "ско", "user_a_session_",
    "<system-reminder>", "<ide_a>", "</ide_a>", "<command-name>a</command-name>", "<command-args>", "[Request interrupted by user", "<details ", "said: ",
    "1: ", "- ", "1. ", "word, ", "but ", "\x00", "«a", "a*", "nbut", "GB82 ", "4111 ", "password is ", "key = ", "token: \"", "1-", "1/", "a:", "::", "2001:",
)  # fmt: skip
"""What odd and hostile texts repeat."""


def _feedback(text: str) -> object:
    return filters.languages_differ(text, "reply", [text]), filters.new_words(text, text, [text]), filters.words_of_abuse(text, [])


WORK: dict[str, Callable[[str], object]] = {
    "aspects.requests": requests,
    "boxes": lambda text: list(boxes(text)),
    "choice_answers": choice_answers.chosen_letter,
    "claude_code": claude_code._typed,
    "codex": codex._INSERTED.without,
    "cues": lambda text: cues.features(text, text, text),
    "feedback_talk": lambda text: feedback_talk.mentions_feedback(text, text),
    "filters": _feedback,
    "math_answers": math_answers.announced_answer,
    "math_spelling.plain": math_spelling.plain,
    "math_spelling.parts": math_spelling.parts,
    "math_spelling.without_unit": math_spelling.without_unit,
    "mending.whole": mending.whole,
    "mending.sentences": mending.sentences,
    "pushback": lambda text: stance(text, ["4", "four"], ["5", "five"]),
    "refusals": refusals.is_refusal,
    "thoughts": spoken,
    "verbatim": lambda text: verbatim(text[: len(text) // 2] + "!", text),
    "village": checkers.read,
}
"""What reads texts with patterns, and may go over them again and again."""


def test_every_pattern_is_tried_or_listed() -> None:
    found, unseen = patterns.collected()
    assert len(found) > 150
    assert set(unseen) == MADE_AT_RUN_TIME.keys()


def _explained(found: Found, growth: Growth | None) -> str:
    assert growth is not None, f"no string was made for {found.place}"
    return (
        f"{found.place} runs away on {growth.text!r}…: {growth.length:,} characters cost {growth.cost:.0f} times a bare search, per character "
        f"{growth.growth:.1f} times what a quarter of them cost. Its pattern: {found.pattern.pattern}"
    )


@pytest.mark.parametrize("part", range(8))
def test_no_pattern_runs_away(part: int) -> None:
    made = [Found(f"aspects.lexicon {rule.aspect}: {rule.value}", rule.pattern, longest=MAX_CHARACTERS) for rule in lexicon()]
    made += [Found("aspects.lexicon needs", needs) for needs in {rule.needs for rule in lexicon()} - {None} if needs]
    made += [Found("identity_numbers", rule.pattern) for rule in identity_numbers(sorted(IDENTITY_NUMBERS))]
    made.append(Found("questions._reading", _reading(frozenset({"message", "follow_up"})).__self__, is_anchored=True))
    every = [*patterns.collected()[0], *made]
    bad = []
    for found in every[part::8]:
        # What never reads more than a few hundred characters may grow with their square, and no faster.
        most = MOST if found.longest is None else 20 * MOST
        growth = worst(found.run, hostile(found.pattern), most, longest=found.longest)
        if growth is None or growth.runs_away:
            bad.append(_explained(found, growth))
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("name", WORK)
def test_no_text_runs_away_what_reads_it(name: str) -> None:
    def maker(unit: str, end: str) -> Callable[[int], str]:
        return lambda length: unit * max(length // len(unit), 1) + end

    growth = worst(WORK[name], [maker(unit, end) for unit in UNITS for end in ("", "!")], most=20_000)
    assert growth is not None
    assert not growth.runs_away, growth


@pytest.mark.parametrize(
    ("pattern", "is_linear"),
    [
        (r"sk-(?:[a-z]+-)*(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}", False),  # cubic: what redaction once had
        (r"\w+ский\b", False),  # quadratic on one long word
        (r"\s+$", False),
        (r"(a|a)*b", False),  # exponential
        (r"<a>.*?</a>", False),
        (r'"[^"]*"|\bword\b', True),
        (r"(?<!\s)\s+$", True),
        (r"(?<!a)(?>a|a)*+b", True),
        (r"<a>[^<]*</a>", True),
    ],
)
def test_what_runs_away_is_noticed(pattern: str, is_linear: bool) -> None:
    found = Found("planted", re.compile(pattern))
    growth = worst(found.run, hostile(found.pattern))
    assert growth is not None
    assert growth.runs_away is not is_linear, growth
