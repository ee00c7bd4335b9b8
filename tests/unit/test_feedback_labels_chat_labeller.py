"""The chat labeller's questions and what is made of its answers, and the cascade of both labellers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import polars as pl
import pytest

from rlhi_dagster.base.tables import FEEDBACK_LABELS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels import cascade
from rlhi_dagster.feedback.labels.chat_labeller import LETTERS, SHOWN_CHARACTERS, ChatLabeller, exact_span
from rlhi_dagster.feedback.labels.metrics import LABELS

FOLLOW_UPS = ["Please make it shorter, thanks", "again", "and {answer} then?", "cut it"]


@dataclass
class Model:
    """Answers by what the follow-up says, and remembers what it was asked."""

    asked: list[ChatRequest] = field(default_factory=list)
    failing: str | None = None
    span: str = '"make it shorter"'

    def __call__(self, requests: list[ChatRequest]) -> list[ChatAnswer]:
        first = len(self.asked)
        self.asked += requests
        return [replace(self.answer(request), call_id=f"call {number}") for number, request in enumerate(requests, first)]

    def answer(self, request: ChatRequest) -> ChatAnswer:
        text = request.messages[0]["content"]
        if self.failing and self.failing in text:
            return ChatAnswer(None, "prompt_too_long", None, 9, 0)
        if not request.choices:
            return ChatAnswer(self.span, None, "stop", 9, 3)
        letter = "A" if "shorter" in text or "cut it" in text else "B" if "again\n" in text else "C"
        return ChatAnswer(letter, None, "stop", 9, 1, [0.75 if each == letter else 0.05 for each in LETTERS])


def pairs(follow_ups: list[str] = FOLLOW_UPS, reply: str = "Water it.") -> pl.DataFrame:
    n = len(follow_ups)
    columns = {name: ["x"] * n for name in ("conversation_id", "user_id")}
    texts = {"follow_up": follow_ups, "previous_prompt": ["How do I grow mint?"] * n, "previous_reply": [reply] * n}
    frame = pl.DataFrame({"turn_id": [f"x:{2 * i}" for i in range(1, n + 1)], "turn": list(range(2, n + 2)), **columns, **texts})
    return frame.with_columns(month=pl.lit("2023-04"), is_unanswered=pl.col("turn") == n + 1)


def labeller(model: Model) -> ChatLabeller:
    return ChatLabeller.with_default_prompts("m@1", model)


def test_one_choice_a_follow_up_and_a_span_where_it_is_feedback() -> None:
    model = Model()
    found = labeller(model).label(pairs())
    assert found.schema == FEEDBACK_LABELS.schema
    assert found["label"].to_list() == [
        Feedback.REATTEMPT_WITH_FEEDBACK,
        Feedback.REATTEMPT_WITHOUT_FEEDBACK,
        Feedback.CONTINUATION,
        Feedback.REATTEMPT_WITH_FEEDBACK,
    ]
    assert found["probability"].to_list() == [0.75] * 4
    assert found["reattempt_probability"].to_list() == [0.75, 0.05, 0.05, 0.75]
    assert found["span"].to_list() == ["make it shorter", None, None, None]
    assert [bool(request.choices) for request in model.asked] == [True] * 4 + [False] * 2
    assert found["labeller"].unique().to_list() == [labeller(model).name]
    assert found["call_ids"].to_list() == [["call 0", "call 4"], ["call 1"], ["call 2"], ["call 3", "call 5"]]


def test_the_letters_are_the_labels_in_order() -> None:
    question = labeller(Model()).question
    described = {
        Feedback.REATTEMPT_WITH_FEEDBACK: "says what is wrong or what to change",
        Feedback.REATTEMPT_WITHOUT_FEEDBACK: "without a word on what to change",
        Feedback.CONTINUATION: "moves the same topic forward",
        Feedback.NEW_REQUEST: "independent of the answer",
        Feedback.POSITIVE: "approves, thanks",
        Feedback.OTHER: "none of these",
    }
    for letter, label in zip(LETTERS, LABELS, strict=True):
        (line,) = [line for line in question.splitlines() if line.startswith(f"{letter}  ")]
        assert described[label] in line


def test_texts_are_shown_as_they_are_and_long_ones_without_their_middle() -> None:
    model = Model()
    labeller(model).label(pairs([FOLLOW_UPS[2]], "a" * 9_000 + "END"))
    shown = model.asked[0].messages[0]["content"]
    assert "and {answer} then?" in shown
    assert "How do I grow mint?" in shown
    assert f"[... {9_003 - SHOWN_CHARACTERS['answer']:,} characters left out ...]" in shown
    assert "aEND\n</answer>" in shown
    assert shown.count("a" * 100) < SHOWN_CHARACTERS["answer"] / 100


@pytest.mark.parametrize(
    ("answer", "span"),
    [
        ("make it shorter", "make it shorter"),
        (' "shorter"\n', "shorter"),
        ("Make it shorter", None),
        ("", None),
        (None, None),
        ('""', None),
    ],
)
def test_a_span_is_what_the_user_said_or_nothing(answer: str | None, span: str | None) -> None:
    assert exact_span(answer, FOLLOW_UPS[0]) == span


def test_a_follow_up_without_an_answer_has_no_label() -> None:
    assert labeller(Model(failing="again\n")).label(pairs())["turn_id"].to_list() == ["x:2", "x:6", "x:8"]
    assert labeller(Model(failing="mint")).label(pairs()).equals(FEEDBACK_LABELS.empty())
    assert labeller(Model()).label(pairs().clear()).schema == FEEDBACK_LABELS.schema


def given(probabilities: list[float]) -> pl.DataFrame:
    chosen = pairs().select("turn_id", "conversation_id", "user_id", "month", "turn", "is_unanswered")
    return FEEDBACK_LABELS.conform(
        chosen.with_columns(
            label=pl.lit("new_request"),
            probability=pl.Series(probabilities),
            reattempt_probability=pl.lit(0.1),
            span=pl.lit(None, pl.String),
            labeller=pl.lit("cheap"),
            call_ids=pl.lit([], pl.List(pl.String)),
        )
    )


def test_the_cascade_asks_only_where_the_classifier_is_not_sure() -> None:
    model = Model(failing="again\n")
    found = cascade.refined(given([0.9, 0.2, 0.69, 0.7]), pairs(), labeller(model), 0.7)
    assert found["turn_id"].to_list() == ["x:2", "x:4", "x:6", "x:8"]
    assert found["labeller"].to_list() == ["cheap", "cheap", labeller(model).name, "cheap"]  # the second got no answer
    assert found["label"].to_list() == ["new_request", "new_request", "continuation", "new_request"]
    assert found["call_ids"].list.len().to_list() == [0, 0, 1, 0], "only what the model decided names its call"
    assert len(model.asked) == 2
    assert found["is_unanswered"].to_list() == [False, False, False, True]
    assert cascade.agreement(given([0.9] * 4), found) == 0.0


def test_sure_at_one_leaves_all_to_the_model_and_at_zero_nothing() -> None:
    model = Model()
    certain = given([1.0] * 4)
    assert set(cascade.refined(certain, pairs(), labeller(model), 1.0)["labeller"]) == {labeller(model).name}
    asked = len(model.asked)
    assert cascade.refined(given([0.1] * 4), pairs(), labeller(model), 0.0).equals(given([0.1] * 4))
    assert len(model.asked) == asked
    assert cascade.agreement(certain, certain) is None
