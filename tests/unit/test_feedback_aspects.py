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
        ("Put that into a list, please.", Aspect.FORMAT, "bullets"),
        ("As a list please", Aspect.FORMAT, "bullets"),
        ("Explain what this Python function does, in bullet points.", Aspect.FORMAT, "bullets"),
        ("short this to two lines", Aspect.LENGTH, "short"),
        ("The slogan must be short!", Aspect.LENGTH, "short"),
        ("In under 60 words please", Aspect.LENGTH, "short"),
        ("It should fill at least 4 pages", Aspect.LENGTH, "long"),
        ("Make it friendly and detailed.", Aspect.LENGTH, "long"),
        ("In detail, please.", Aspect.LENGTH, "long"),
        ("Короче, пожалуйста", Aspect.LENGTH, "short"),
        ("Bitte ausführlicher!", Aspect.LENGTH, "long"),
        ("plus court s'il te plaît", Aspect.LENGTH, "short"),
        ("请写得简洁一些", Aspect.LENGTH, "short"),
        ("用中文回答", Aspect.LANGUAGE, "chinese"),
        ("explain it like a high school student would", Aspect.SIMPLICITY, "simple"),
        ("keep it casual", Aspect.TONE, "friendly"),
        ("Show me the code only.", Aspect.CODE, "only"),
        ("Do it without any external library.", Aspect.CODE, "plain"),
        ("don't use numpy", Aspect.CODE, "plain"),
        ("How do I reverse a string in Python?", Aspect.PROGRAMMING_LANGUAGE, "python"),
        ("write a java script function for that", Aspect.PROGRAMMING_LANGUAGE, "javascript"),
        ("I need it in C++.", Aspect.PROGRAMMING_LANGUAGE, "c++"),
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
        "how many unique elements are in a list?",
        "multiply all of the numbers in a list",
        "Return the result as a list.",
        "put them in a list and append the integers",
        "Read the csv file into a table",
        "Describe the castle in detail, with its towers.",
        "in no more than 400 words",
        "The python ate the frog.",
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
    ruled = {(rule.aspect, rule.value) for rule in lexicon()}
    assert ruled == {(aspect, value) for aspect, lines in LINES.items() for value in lines}
    assert all(rule.pattern.flags & re.IGNORECASE for rule in lexicon())
