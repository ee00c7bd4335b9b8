"""Which wishes are about the model's answers, and which are said to hold in general."""

import pytest

from rlhi_dagster.personas.lasting import about_answers


@pytest.mark.parametrize(
    "text",
    [
        "Always answer in Spanish.",
        "From now on, use bullet points.",
        "Keep your answers short.",
        "I prefer short answers with examples.",
        "Please never use emojis.",
        "Every time I ask for code, give me the full code.",
        "I only code in Python, so write it in Python.",
        "De ahora en adelante, más corto.",
        "以后请写得简洁一些",
    ],
)
def test_a_wish_can_be_said_to_hold_in_general(text: str) -> None:
    found = about_answers(text, opens_task=False)
    assert found
    assert all(is_general for _, is_general in found)


@pytest.mark.parametrize("text", ["Make it shorter, please.", "Too long.", "I like it, but make it shorter.", "In Spanish, please."])
def test_a_wish_about_one_answer_is_not_general(text: str) -> None:
    assert [is_general for _, is_general in about_answers(text, opens_task=False)] == [False]


def test_what_holds_in_general_is_told_by_the_sentence_of_the_wish() -> None:
    found = about_answers("You always get this right. But make it shorter.", opens_task=False)
    assert [is_general for _, is_general in found] == [False]


@pytest.mark.parametrize(
    "text",
    [
        "Make this e-mail shorter: Dear all, the meeting of the gardening club has been moved to Friday because of the rain.",
        "Please rewrite the following paragraph more formally.",
        "translate this into German please",
        'Correct and make more formal. "We was glad that you come to our little shop and we hope to see you another time."',
        "make it longer\n\nThe wind is on the water, the gulls are on the pier",
    ],
)
def test_what_is_asked_for_of_the_users_own_text_is_no_wish_about_answers(text: str) -> None:
    assert about_answers(text, opens_task=True) == []


@pytest.mark.parametrize("text", ["Make it shorter.", "translate this into German please", "rewrite the paragraph more formally"])
def test_the_same_words_in_a_follow_up_are_about_the_answer(text: str) -> None:
    assert len(about_answers(text, opens_task=False)) == 1
