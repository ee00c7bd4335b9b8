"""The style lexicon: what it hears, what it leaves alone."""

import re

import pytest

from rlhi_dagster.feedback import Aspect
from rlhi_dagster.feedback.aspects import LINES, lexicon, requests


@pytest.mark.parametrize(
    ("text", "aspect", "value"),
    [
        ("Make it shorter, please.", Aspect.LENGTH, "short"),
        ("Too long.", Aspect.LENGTH, "short"),
        ("not so long", Aspect.LENGTH, "short"),
        ("Demasiado largo.", Aspect.LENGTH, "short"),
        ("Más corto, por favor.", Aspect.LENGTH, "short"),
        ("too short", Aspect.LENGTH, "long"),
        ("don't make it so short", Aspect.LENGTH, "long"),
        ("Could you give more details?", Aspect.LENGTH, "long"),
        ("Use bullet points.", Aspect.FORMAT, "bullets"),
        ("Use bullet points, not paragraphs", Aspect.FORMAT, "bullets"),
        ("Con viñetas, por favor.", Aspect.FORMAT, "bullets"),
        ("As a normal paragraph, no list.", Aspect.FORMAT, "prose"),
        ("no lists", Aspect.FORMAT, "prose"),
        ("please don’t use bullets", Aspect.FORMAT, "prose"),
        ("Put it in a table.", Aspect.FORMAT, "table"),
        ("Be more friendly.", Aspect.TONE, "friendly"),
        ("less formal", Aspect.TONE, "friendly"),
        ("Sé más amistoso.", Aspect.TONE, "friendly"),
        ("More formal, please.", Aspect.TONE, "formal"),
        ("too casual", Aspect.TONE, "formal"),
        ("In Spanish, please.", Aspect.LANGUAGE, "spanish"),
        ("En español, por favor.", Aspect.LANGUAGE, "spanish"),
        ("En inglés, por favor.", Aspect.LANGUAGE, "english"),
        ("translate it to French", Aspect.LANGUAGE, "french"),
        ("simpler words please", Aspect.SIMPLICITY, "simple"),
        ("give me the full code", Aspect.CODE, "complete"),
        ("No emojis please", Aspect.EMOJI, "without"),
        ("with more examples", Aspect.EXAMPLES, "with"),
    ],
)
def test_a_wish_is_heard(text: str, aspect: Aspect, value: str) -> None:
    assert {request.aspect: request.value for request in requests(text)}.get(aspect) == value


@pytest.mark.parametrize(
    "text",
    [
        "How long does rice take?",
        "Write a short story about a cat.",
        "How do you say dog in Spanish?",
        "No, I meant tulips.",
        "give me a list of cities",
        "It has been so long since I cooked.",
        'The sign said "make it shorter".',
        "```\n# use bullet points, make it shorter\n```",
        "again",
        "thanks!",
        "",
    ],
)
def test_what_is_no_wish_is_left_alone(text: str) -> None:
    assert requests(text) == []


def test_the_last_mention_of_an_aspect_wins_and_aspects_are_independent() -> None:
    found = requests("Longer please. No wait, make it shorter. And use bullet points.")
    assert [(request.aspect, request.value) for request in found] == [(Aspect.LENGTH, "short"), (Aspect.FORMAT, "bullets")]


def test_the_span_is_a_substring_and_the_line_belongs_to_the_value() -> None:
    text = "Thanks, but please don’t use lists; keep it short!"
    for request in requests(text):
        assert request.span in text
        assert request.line == LINES[request.aspect][request.value]
    assert len(requests(text)) == 2


def test_pasted_material_is_not_read_but_the_sentences_around_it_are() -> None:
    pasted = "The committee asked for shorter reports in Spanish. " * 20
    assert requests(f"Here is a text. {pasted} That was all I have. What do you think?") == []
    found = requests(f"Rewrite this. {pasted} That is the text. More formal, please.")
    assert [request.value for request in found] == ["formal"]


def test_every_rule_has_a_line_and_every_line_a_rule() -> None:
    ruled = {(aspect, value) for aspect, value, _ in lexicon()}
    assert ruled == {(aspect, value) for aspect, lines in LINES.items() for value in lines}
    assert all(pattern.flags & re.IGNORECASE for _, _, pattern in lexicon())
