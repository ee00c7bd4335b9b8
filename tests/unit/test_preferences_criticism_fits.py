"""Whether what a follow-up asks for is missing from a reply that its user never saw."""

from __future__ import annotations

import pytest

from rlhi_dagster.feedback.aspects import LANGUAGES
from rlhi_dagster.preferences.criticism_fits import (
    CODES,
    follow_up_applies,
    language_of,
    rewrite_meets,
    town_follow_up_applies,
    town_rewrite_meets,
)
from rlhi_dagster.simulation.town.content import TOPICS
from rlhi_dagster.simulation.town.dialogue import ASKS
from rlhi_dagster.simulation.town.style import VALUES, Style, render

LIST = "Here:\n- salt\n- rice\n- water"
PROSE = "Cook the rice with salt in the water for ten minutes and serve it."
SPANISH = "Cocina el arroz con sal en el agua por diez minutos y sirve todo con pan."


@pytest.mark.parametrize(
    ("follow_up", "reply", "logged", "applies"),
    [
        ("Make it shorter, please.", "x" * 100, "x" * 100, True),
        ("Make it shorter, please.", "x" * 70, "x" * 100, False),
        ("Make it longer, please.", "x" * 100, "x" * 100, True),
        ("Make it longer, please.", "x" * 140, "x" * 100, False),
        ("Use bullet points.", PROSE, PROSE, True),
        ("Use bullet points.", LIST, PROSE, False),
        ("Make it a numbered list.", LIST, PROSE, True),
        ("Make it a numbered list.", "1. salt\n2. rice", PROSE, False),
        ("Without bullet points, please.", LIST, LIST, True),
        ("Without bullet points, please.", PROSE, LIST, False),
        ("Answer in Spanish.", PROSE, PROSE, True),
        ("Answer in Spanish.", SPANISH, PROSE, False),
        ("Answer in English.", SPANISH, SPANISH, True),
        ("Answer in German.", PROSE, PROSE, True),
        ("Answer in German.", "Koche den Reis mit Salz zehn Minuten lang im Wasser und serviere ihn.", PROSE, False),
        ("Answer in French.", SPANISH, PROSE, True),
        ("Answer in Spanish.", "12345", PROSE, None),
        ("Just one paragraph.", PROSE, PROSE, None),
        ("Just one paragraph.", LIST, PROSE, None),
        ("In English, please.", SPANISH, PROSE, None),
        ("Be more friendly.", PROSE, PROSE, None),
        ("Thanks!", PROSE, PROSE, None),
    ],
)
def test_the_rules(follow_up: str, reply: str, logged: str, applies: bool | None) -> None:
    assert follow_up_applies(follow_up, reply, logged) is applies


def test_one_missing_wish_of_several_is_enough() -> None:
    both = "Use bullet points. Answer in Spanish."
    assert follow_up_applies(both, "- el arroz con la sal\n- y el agua", PROSE) is False
    assert follow_up_applies(both, LIST + "\n- the water", PROSE) is True


@pytest.mark.parametrize(("wish", "follow_up"), [(wish, text) for wish, texts in ASKS.items() for text in texts])
def test_the_town_reads_every_wish_of_its_users_exactly(wish: tuple[str, str], follow_up: str) -> None:
    aspect, value = wish
    style = Style(*(values[0] for values in VALUES.values()))
    other = next(each for each in VALUES[aspect] if each != value)
    has, lacks = (render(TOPICS[2], style.with_value(aspect, each)) for each in (value, other))
    assert town_follow_up_applies(follow_up, has, lacks) is False
    assert town_follow_up_applies(follow_up, lacks, lacks) is True


def test_the_town_falls_back_to_the_rules_for_broken_text() -> None:
    assert town_follow_up_applies("Use bullet points.", "Certainly. Certainly.", PROSE) is True
    assert town_follow_up_applies("Be more friendly.", "Certainly. Certainly.", PROSE) is None


@pytest.mark.parametrize(
    ("feedback", "rewrite", "original", "meets"),
    [
        ("Make it shorter, please.", "x" * 75, "x" * 100, True),
        ("Make it shorter, please.", "x" * 76, "x" * 100, None),
        ("Make it shorter, please.", "x" * 100, "x" * 100, False),
        ("Make it longer, please.", "x" * 134, "x" * 100, True),
        ("Make it longer, please.", "x" * 110, "x" * 100, None),
        ("Make it longer, please.", "", "x" * 100, False),
        ("Use bullet points.", LIST, PROSE, True),
        ("Use bullet points. Make it shorter.", LIST, "x" * 100, True),
        ("Use bullet points. Make it shorter.", LIST, "x", False),
        ("Use bullet points, be more friendly.", LIST, PROSE, True),
        ("Answer in Spanish.", PROSE, PROSE, False),
        ("Be more friendly.", PROSE, PROSE, None),
        ("Thanks!", PROSE, PROSE, None),
    ],
)
def test_a_rewrite_meets_feedback_if_it_has_all_that_can_be_read(feedback: str, rewrite: str, original: str, meets: bool | None) -> None:
    assert rewrite_meets(feedback, rewrite, original) is meets


@pytest.mark.parametrize(("wish", "feedback"), [(wish, text) for wish, texts in ASKS.items() for text in texts])
def test_the_town_tells_whether_any_wish_of_its_users_is_met(wish: tuple[str, str], feedback: str) -> None:
    aspect, value = wish
    style = Style(*(values[0] for values in VALUES.values()))
    other = next(each for each in VALUES[aspect] if each != value)
    topic = TOPICS[2]
    met, unmet = (render(topic, style.with_value(aspect, each)) for each in (value, other))
    said = [topic.request(0), "Go on."]
    assert town_rewrite_meets(said, feedback, met) is True
    assert town_rewrite_meets(said, feedback, unmet) is False
    assert town_rewrite_meets([TOPICS[3].request(0)], feedback, met) is False


def test_languages_are_told_for_all_that_can_be_asked_for() -> None:
    assert set(CODES) == {name.lower() for name in LANGUAGES}
    assert len(set(CODES.values())) == len(CODES)
    texts = {
        "de": "Die Kinder spielen heute im Garten, weil das Wetter so schön ist.",
        "fr": "Les enfants jouent dans le jardin parce qu'il fait très beau aujourd'hui.",
        "it": "I bambini giocano in giardino perché oggi il tempo è molto bello.",
        "ru": "Дети играют в саду, потому что сегодня очень хорошая погода.",
        "zh": "今天天气很好，所以孩子们在花园里玩耍。",
        "ja": "今日は天気がとても良いので、子供たちは庭で遊んでいます。",
        "ko": "오늘은 날씨가 아주 좋아서 아이들이 정원에서 놀고 있습니다.",
        "pl": "Dzieci bawią się dzisiaj w ogrodzie, ponieważ pogoda jest bardzo ładna.",
    }
    assert {language_of(text) for text in texts.values()} == set(texts)
    assert [language_of(text) for text in texts.values()] == list(texts)


@pytest.mark.parametrize("text", ["", "   ", "12345", "?!", "```python\nfor the in of and: to = is\n```", "https://example.org/the/and/of"])
def test_what_has_no_words_has_no_language(text: str) -> None:
    assert language_of(text) is None


def test_code_does_not_hide_the_language_around_it() -> None:
    code = "```\n" + "if the and of: return this\n" * 20 + "```"
    assert language_of(f"{SPANISH}\n{code}") == "es"
