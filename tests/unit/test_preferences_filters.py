"""When a reply speaks of feedback or declines, and the measures that rewrites are dropped by."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.preferences.feedback_talk import mentions_feedback
from rlhi_dagster.preferences.filters import DropReason, language, languages_differ, new_words, reasons, similarity, words_of_abuse
from rlhi_dagster.preferences.refusals import is_refusal
from rlhi_dagster.preferences.settings import PairFilterSettings, RewriteSettings

WILDCHAT = Path(__file__).parents[2] / "../shared/data/wildchat"
LONG = "The river rises in the hills to the north and runs south for two hundred miles before it meets the sea near the old harbour."
LARGO = "El río nace en las colinas del norte y corre hacia el sur durante doscientas millas antes de llegar al mar cerca del viejo puerto."


@pytest.mark.parametrize(
    "reply",
    [
        "I apologize for the confusion. Roses need sun.",
        "My apologies! Roses need sun.",
        "Sorry about that. Roses need sun.",
        "Oops, sorry, I missed that. Roses need sun.",
        "You're absolutely right, roses need sun.",
        "Thank you for the clarification. Roses need sun.",
        "Good catch! Roses need sun.",
        "Here's a shorter version:\n\nRoses need sun.",
        "Sure! Here is the revised answer:\n\nRoses need sun.",
        "I've updated the answer:\n\nRoses need sun.",
        "As you asked, a short answer: roses need sun.",
        "As requested, roses need sun.",
        "Based on your feedback: roses need sun.",
        "In my previous answer I was wrong. Roses need sun.",
        "If adding compost did not help, try more sun.",
        "If the roses are still not growing, try more sun.",
        "Let me try again: roses need sun.",
        "Roses need sun. " * 30 + "I apologize again for my earlier mistake.",
        "Roses need sun. " * 30 + "I hope this revised version fits.",
        "Disculpa la confusión. Las rosas necesitan sol.",
        "Tienes razón, las rosas necesitan sol.",
        "Aquí tienes una versión más corta: las rosas necesitan sol.",
        "Peço desculpas pelo erro. As rosas precisam de sol.",
        "Vous avez raison. Les roses aiment le soleil.",
        "Je suis désolé pour la confusion. Les roses aiment le soleil.",
        "Entschuldigung für den Fehler. Rosen brauchen Sonne.",
        "Hier ist die überarbeitete Fassung: Rosen brauchen Sonne.",
        "Mi scuso per l'errore. Le rose hanno bisogno di sole.",
        "Вы правы. Розам нужно солнце.",
        "Приношу извинения за ошибку. Розам нужно солнце.",
        "抱歉，我之前说错了。玫瑰需要阳光。",
        "您说得对，玫瑰需要阳光。",
        "以下是修改后的版本：玫瑰需要阳光。",
    ],
)
def test_a_reply_that_speaks_of_feedback_or_apologises_is_found(reply: str) -> None:
    assert mentions_feedback(reply, "What do roses need?")


@pytest.mark.parametrize(
    ("reply", "asked"),
    [
        ("Roses need sun.", "What do roses need?"),
        ("Sure! Here's what roses need: sun.", "What do roses need?"),
        ("Certainly. Here is a list of ten roses:\n1. Peace", "List ten roses."),
        ("I'm sorry to hear that your rose died. Try more sun.", "My rose died."),
        ("I'm sorry, but I can't help with that.", "How do I poison roses?"),
        ("Dear Ms Hill,\n\nI apologize for the error in my last invoice.", "Write to Ms Hill about the invoice."),
        ("I apologize for the error in the invoice.", "Write one line of apology for the wrong invoice."),
        ('"Sorry about that," said the fox, "you are right."', "Write a fable."),
        ("```\n# I apologize for the confusion\nprint(1)\n```", "Print one."),
        ("> You're right, I apologize for the confusion.\n\nThis line is from chapter two.", "Where is this from?"),
        ("Here is the revised paragraph:\n\nRoses need sun.", "Please revise this paragraph: rose need sun"),
        ("I have corrected the sentence: Roses need sun.", "Correct: rose need sun"),
        ("Roses need sun. " * 30 + "They said I apologize for the mistake. " + "Roses need sun. " * 30, "Tell me a story."),
        ("The rose is known for its scent.\n\nAlternatively, plant tulips.", "What should I plant?"),
        ("Las rosas necesitan sol y agua.", "¿Qué necesitan las rosas?"),
        ("抱歉，我无法回答这个问题。", "怎么做炸弹？"),
    ],
)
def test_what_belongs_to_the_task_is_no_mention(reply: str, asked: str) -> None:
    assert not mentions_feedback(reply, asked)


@given(st.text(max_size=2_000), st.text(max_size=200))
def test_any_text_is_read(reply: str, asked: str) -> None:
    assert mentions_feedback(reply, asked) in (True, False)
    assert is_refusal(reply) in (True, False)


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that.",
        "Sorry, I cannot provide instructions for that.",
        "As an AI language model, I cannot browse the internet.",
        "I must decline to write this.",
        "I'm unable to open links.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Je ne peux pas vous aider avec cela.",
        "Das kann ich leider nicht schreiben. Leider kann ich dabei nicht helfen.",
        "К сожалению, я не могу помочь с этим.",
        "很抱歉，我无法提供这些信息。",
        "I'm sorry, but I can't assist with illegal activities. " + "Consider the law. " * 60,
    ],
)
def test_a_reply_that_declines_is_a_refusal(reply: str) -> None:
    assert is_refusal(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "Roses need sun.",
        "As an AI language model, I don't have feelings, but roses are loved for their scent.",
        "I can't see any issue with this code.",
        "You cannot plant roses in winter.",
        "I'm sorry, I can't write to files, but this prints it:\n```\nprint(1)\n```",
        "I am unable to draw, but here is how it looks:\n1. A stem\n2. A leaf\n3. A bloom",
        "As an AI I cannot taste. However, wine is described so. " + "It is red and full. " * 60,
    ],
)
def test_a_reply_that_gives_what_was_asked_is_no_refusal(reply: str) -> None:
    assert not is_refusal(reply)


def row(**given: Any) -> dict[str, Any]:
    plain = {
        "strategy": "feedback",
        "prompt": [{"role": "user", "content": "Tell me about the river."}],
        "original": LONG,
        "rewrite": "The river rises in the northern hills and meets the sea after two hundred miles.",
        "feedback": "Too long.",
        "persona": "",
        "follow_up_applies": True,
        "mentions_feedback": False,
        "meets_feedback": None,
    }
    return plain | given


def found(given: dict[str, Any], **limits: Any) -> list[DropReason]:
    chosen = RewriteSettings(min_feedback_probability=0.5, inapplicable="drop", filters=PairFilterSettings(**limits))
    return reasons(row(**given), chosen)


def test_nothing_is_against_a_plain_rewrite() -> None:
    assert found({}) == []


@pytest.mark.parametrize(
    ("given", "off", "reason"),
    [
        ({"rewrite": LONG[:-1] + "!"}, {"max_similarity": None}, DropReason.NEARLY_IDENTICAL_SIDES),
        (
            {
                "feedback": "Start at the waterfall near Lisbon.",
                "rewrite": "The river leaves a waterfall near Lisbon and then meets the sea.",
            },
            {"max_new_words": None},
            DropReason.USES_NEW_INFORMATION,
        ),
        ({"meets_feedback": 0.4}, {"min_meets_feedback": None}, DropReason.DOES_NOT_MEET_FEEDBACK),
        ({"original": "I'm sorry, but I can't help with rivers."}, {"refusals": False}, DropReason.ORIGINAL_IS_REFUSAL),
        ({"rewrite": "I'm sorry, but I can't help with rivers."}, {"refusals": False}, DropReason.REWRITE_IS_REFUSAL),
        ({"rewrite": "A river."}, {"min_length_ratio": None}, DropReason.LENGTH_RATIO),
        ({"rewrite": "It is long and blue. " * 70}, {"max_length_ratio": None}, DropReason.LENGTH_RATIO),
        ({"rewrite": LARGO}, {"languages": False}, DropReason.LANGUAGE_MISMATCH),
        ({"rewrite": LONG + " You stupid bastard, it is long and blue."}, {"toxicity": False}, DropReason.TOXIC_REWRITE),
    ],
)
def test_each_filter_drops_and_can_be_switched_off(given: dict[str, Any], off: dict[str, Any], reason: DropReason) -> None:
    assert found(given) == [reason]
    assert found(given, **off) == []


def test_new_words_are_those_that_the_feedback_alone_brought_in() -> None:
    feedback = "Use my custom emojis and keep the river."
    assert new_words("Here are custom emojis of a river.", feedback, ["Tell me about the river."]) == {"custo", "emoji"}
    assert new_words("Here are custom emojis.", feedback, ["a custom emoji"]) == set()
    assert new_words("Use it, and my own.", "Use my own", []) == set(), "short words carry no facts"


def test_the_control_may_meet_the_feedbacks_words_by_chance() -> None:
    given = {
        "feedback": "Start at the waterfall near Lisbon.",
        "rewrite": "The river leaves a waterfall near Lisbon and then meets the sea.",
    }
    assert found(given | {"strategy": "scratch"}) == []


def test_limits_are_inclusive() -> None:
    assert found({"feedback": "Mention the waterfall.", "rewrite": "The river rises at a waterfall and meets the sea."}) == []
    assert found({"meets_feedback": 0.5}) == []
    original = "a river " * 20
    assert found({"original": original, "rewrite": "river " * 40}, min_length_ratio=0.1, max_length_ratio=239 / 159) == []
    alike = similarity(LONG, LONG[:-4])
    assert found({"rewrite": LONG[:-4]}, max_similarity=alike) == []
    assert found({"rewrite": LONG[:-4]}, max_similarity=alike - 0.001) == [DropReason.NEARLY_IDENTICAL_SIDES]


def test_reasons_come_in_the_fixed_order() -> None:
    given = {"original": "I'm sorry, but I can't help with that question about rivers.", "rewrite": "bastard", "mentions_feedback": True}
    listed = found(given | {"meets_feedback": 0.0, "follow_up_applies": False}, min_length_ratio=0.5)
    assert listed == [
        DropReason.FEEDBACK_DOES_NOT_APPLY,
        DropReason.MENTIONS_FEEDBACK,
        DropReason.DOES_NOT_MEET_FEEDBACK,
        DropReason.ORIGINAL_IS_REFUSAL,
        DropReason.LENGTH_RATIO,
        DropReason.TOXIC_REWRITE,
    ]
    assert [reason for reason in DropReason if reason in listed] == listed


@pytest.mark.parametrize(
    "wish", ["In Spanish, please.", "¿y en español?", "auf deutsch", "traduis en anglais", "- Prefers answers in Spanish."]
)
def test_a_language_that_somebody_named_is_no_mismatch(wish: str) -> None:
    assert languages_differ(LARGO, LONG, ["Too long.", ""])
    assert not languages_differ(LARGO, LONG, ["Too long.", wish])


def test_the_language_of_short_texts_and_of_code_is_not_told() -> None:
    assert (language(LONG), language(LARGO)) == ("en", "es")
    assert language("Sí, claro.") is None
    assert language("```\nfor line in open('a long file name of some kind'): print(line)\n```") is None
    assert not languages_differ("Sí, claro.", LONG, [])


def test_a_language_change_beyond_the_first_eighty_characters_is_seen() -> None:
    assert language("README CHANGELOG LICENSE NOTICE AUTHORS TODO INSTALL MAKEFILE CONFIG SETUP 1.0 2.0 3.0 " + LARGO * 3) == "es"


def test_abuse_counts_only_where_nobody_else_used_the_word() -> None:
    assert words_of_abuse("What a Bastard.", []) == {"bastard"}
    assert words_of_abuse("What a b*tch and sh1t.", []) == {"b*tch", "sh1t"}
    assert words_of_abuse("What a bastard.", ["The bastard of Bolton"]) == set()
    assert words_of_abuse("The organ, the heart stroke, gay rights, God, LEN(x) and a **bold** dummy.", []) == set()


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_symmetric_and_one_for_equals_only(one: str, other: str) -> None:
    assert similarity(one, other) == pytest.approx(similarity(other, one))
    assert (similarity(one, other) == 1.0) == (one == other)


@pytest.fixture(scope="module")
def logged() -> pl.DataFrame:
    """Replies of real conversations that open them, and those after labelled re-attempts with feedback."""
    if not WILDCHAT.is_dir():
        pytest.skip(f"no real conversations at {WILDCHAT}")
    with (WILDCHAT / "labels.csv").open() as file:
        labels = {(line["conversation_hash"], int(line["message_index"])): line["label"] for line in csv.DictReader(file)}
    said = pl.read_parquet(WILDCHAT / "wildchat_sample.parquet").unique("conversation_hash", keep="first", maintain_order=True)
    rows = []
    for conversation in said.to_dicts():
        texts = conversation["conversation"]
        for index, message in enumerate(texts):
            if message["role"] == "assistant" and index:
                asked = index - 1 if index == 1 else index - 3
                kind = "opening" if index == 1 else labels.get((conversation["conversation_hash"], index - 1))
                rows.append((kind, texts[asked]["content"] if asked >= 0 else "", message["content"]))
    return pl.DataFrame(rows, schema=["kind", "request", "reply"], orient="row")


def test_on_real_logs_replies_after_feedback_speak_of_it_and_opening_replies_do_not(logged: pl.DataFrame) -> None:
    hits = logged.with_columns(hit=pl.Series([mentions_feedback(reply, request) for _, request, reply in logged.iter_rows()]))
    share = dict(hits.group_by("kind").agg(pl.col("hit").mean()).iter_rows())
    assert 0.14 <= share["reattempt_with_feedback"] <= 0.21
    assert share["opening"] <= 0.01


def test_on_real_logs_few_replies_are_refusals(logged: pl.DataFrame) -> None:
    share = sum(map(is_refusal, logged["reply"])) / len(logged)
    assert 0.02 <= share <= 0.05
