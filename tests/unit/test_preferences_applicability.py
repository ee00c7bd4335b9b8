"""Whether what a follow-up asks for is missing from a reply that its user never saw."""

from __future__ import annotations

import pytest

from rlhi_dagster.preferences.applicability import follow_up_applies, town_follow_up_applies
from rlhi_dagster.simulation.content import TOPICS
from rlhi_dagster.simulation.dialogue import ASKS
from rlhi_dagster.simulation.style import VALUES, Style, render

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
        ("Without bullet points, please.", LIST, LIST, True),
        ("Without bullet points, please.", PROSE, LIST, False),
        ("Answer in Spanish.", PROSE, PROSE, True),
        ("Answer in Spanish.", SPANISH, PROSE, False),
        ("Answer in English.", SPANISH, SPANISH, True),
        ("Answer in Spanish.", "12345", PROSE, None),
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
    assert town_follow_up_applies("Use bullet points.", "Certainly. Certainly.", LIST) is True
    assert town_follow_up_applies("Be more friendly.", "Certainly. Certainly.", LIST) is None
