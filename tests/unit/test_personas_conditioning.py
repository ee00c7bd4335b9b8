"""Where a persona stands in a conversation."""

from __future__ import annotations

import pytest

from rlhi_dagster.personas.conditioning import Messages, PersonaPlacement, with_persona

SHOWN = "What is known about the user:\n- Ann likes it short."
ASK = {"role": "user", "content": "How?"}
SAID = {"role": "assistant", "content": "So."}
RULES = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("messages", "placement", "expected"),
    [
        ([ASK, SAID], PersonaPlacement.SYSTEM, [{"role": "system", "content": SHOWN}, ASK, SAID]),
        ([ASK, SAID, ASK], PersonaPlacement.FIRST_USER, [{"role": "user", "content": f"{SHOWN}\n\nHow?"}, SAID, ASK]),
        ([RULES, ASK], PersonaPlacement.FIRST_USER, [RULES, {"role": "user", "content": f"{SHOWN}\n\nHow?"}]),
    ],
)
def test_the_persona_stands_where_it_is_placed(messages: Messages, placement: PersonaPlacement, expected: Messages) -> None:
    before = [dict(message) for message in messages]
    assert with_persona(messages, "- Ann likes it short.", placement) == expected
    assert messages == before


@pytest.mark.parametrize("placement", PersonaPlacement)
def test_no_persona_changes_nothing(placement: PersonaPlacement) -> None:
    assert with_persona([RULES, ASK], "", placement) == [RULES, ASK]


def test_system_is_the_default() -> None:
    assert with_persona([ASK], "- x") == with_persona([ASK], "- x", PersonaPlacement.SYSTEM)


def test_without_a_user_message_there_is_no_place_before_it() -> None:
    with pytest.raises(ValueError, match="no place for the persona"):
        with_persona([SAID], "- x", PersonaPlacement.FIRST_USER)
