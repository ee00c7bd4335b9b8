"""What users complain about: complaints and their requests, wishes by rule, groups of similar texts, their names, and what is counted."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.base.tables import FEEDBACK_LABELS, TURNS, UNMET_WISHES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.feedback.wishes import counts
from rlhi_dagster.feedback.wishes.clusters import NO_GROUP, clusters, foreign_language
from rlhi_dagster.feedback.wishes.complaints import complaints
from rlhi_dagster.feedback.wishes.grouping import (
    OTHER_TOPICS,
    OTHER_WISHES,
    complaints_are_conserved,
    groups_have_enough_users,
    unmet_wishes,
)
from rlhi_dagster.feedback.wishes.kinds import Kind, wish_of
from rlhi_dagster.feedback.wishes.names import LONGEST, ChatNamer, key_phrases

COMPLAINT, AGAIN, NEW, GO_ON = "reattempt_with_feedback", "reattempt_without_feedback", "new_request", "continuation"
START = datetime(2023, 4, 1, tzinfo=UTC)


def log(name: str, *labels: str, is_answered: bool = True, user: str = "u") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Turns and labels of a conversation: an opening, and a follow-up for each label."""
    ids = {"conversation_id": name, "user_id": user, "month": "2023-04"}
    turns = [
        dict.fromkeys(TURNS.columns)
        | ids
        | {"turn_id": f"{name}:{2 * n}", "turn": n + 1, "asked_at": START, "prompt": f"{name} says {n}", "reply": f"reply {n}"}
        for n in range(len(labels) + 1)
    ]
    turns[-1]["reply"] = "the end" if is_answered else None
    found = [
        dict.fromkeys(FEEDBACK_LABELS.columns) | ids | {"turn_id": f"{name}:{2 * n}", "turn": n + 1, "label": label}
        for n, label in enumerate(labels, 1)
    ]
    return turns, found


def of(*logs: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> pl.DataFrame:
    turns, labels = ([row for each in logs for row in each[part]] for part in (0, 1))
    return complaints(pl.LazyFrame(labels, schema=FEEDBACK_LABELS.schema), pl.LazyFrame(turns, schema=TURNS.schema))


@pytest.mark.parametrize(
    ("labels", "is_answered", "resolved"),
    [
        ([COMPLAINT], True, [None]),
        ([COMPLAINT], False, [False]),
        ([COMPLAINT, GO_ON], True, [True]),
        ([COMPLAINT, NEW], False, [True]),
        ([COMPLAINT, AGAIN], True, [False]),
        ([COMPLAINT, COMPLAINT], True, [False, None]),
        ([COMPLAINT, COMPLAINT], False, [False, False]),
        ([COMPLAINT, COMPLAINT, GO_ON], True, [True, True]),
        ([GO_ON, COMPLAINT, AGAIN], True, [False]),
        ([COMPLAINT, GO_ON, COMPLAINT], True, [True, None]),
    ],
)
def test_a_complaint_is_settled_by_a_later_message_that_is_no_reattempt(labels: list[str], is_answered: bool, resolved: list[Any]) -> None:
    assert of(log("c", *labels, is_answered=is_answered))["is_resolved"].to_list() == resolved


def test_a_complaint_is_about_the_latest_request_before_it() -> None:
    found = of(log("c", COMPLAINT, COMPLAINT, NEW, COMPLAINT, GO_ON, COMPLAINT), log("d", GO_ON, COMPLAINT))
    told = {row["turn_id"]: (row["text"], row["previous_prompt"], row["request"]) for row in found.to_dicts()}
    assert told == {
        "c:2": ("c says 1", "c says 0", "c says 0"),
        "c:4": ("c says 2", "c says 1", "c says 0"),
        "c:8": ("c says 4", "c says 3", "c says 3"),
        "c:12": ("c says 6", "c says 5", "c says 3"),
        "d:4": ("d says 2", "d says 1", "d says 0"),
    }


def test_without_complaints_there_is_nothing() -> None:
    found = of(log("c", GO_ON, NEW, AGAIN), log("d"))
    assert found.is_empty()
    assert unmet_wishes(found, letters, 5).equals(UNMET_WISHES.empty())


@pytest.mark.parametrize(
    ("text", "before", "wish"),
    [
        ("Shorter, please.", "Describe tulips.", "short answers"),
        ("more formal and shorter", "Describe tulips.", "short answers"),
        ("in Spanish please", "Describe tulips.", "answers in Spanish"),
        ("it still doesn't work", "Write a sort.", Kind.DOES_NOT_WORK),
        ("in Python pls", "Write a sort.", "code in Python"),
        ("my Python code fails with KeyError: 'tulips'", "Write a sort.", Kind.DOES_NOT_WORK),
        ("KeyError: 'tulips'", "Write a sort.", Kind.DOES_NOT_WORK),
        ("Write a letter of 100 words to the mayor about trees", "Write a letter to the mayor about trees", Kind.CHANGED_REQUEST),
        ("Write a short letter in simple words to the mayor", "Write a short letter in simple words to him", Kind.CHANGED_REQUEST),
        ("Write a letter in simple words to the mayor", "Write a letter to the mayor", "simple words"),
        ("No, I meant the other tulip.", "Describe tulips.", Kind.CORRECTION),
        ("in at most 200 words", "Describe tulips.", Kind.LENGTH),
        ("mention the bulbs too", "Describe tulips.", Kind.ADDITION),
        ("rename the heading", "Describe tulips.", Kind.EDIT),
        ("what a pity for the garden", "Describe tulips.", None),
        ("x", "", None),
    ],
)
def test_wishes_are_told_by_rule(text: str, before: str, wish: str | None) -> None:
    assert wish_of(text, before) == wish


def letters(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors: a direction for each first letter, a little of another one for the whole text."""
    vectors = np.zeros((len(texts), 400), np.float32)
    for row, text in enumerate(texts):
        vectors[row, ord(text[0].lower()) % 128] = 1.0
        vectors[row, 128 + sum(map(ord, text)) % 272] = 0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


TEXTS = [f"{letter}{n}" for letter in "abcde" for n in range(12)]


@pytest.mark.parametrize("most", [60, 20])
def test_similar_texts_are_one_group_whatever_their_order(most: int) -> None:
    found = clusters(TEXTS, letters, 0.5, most)
    of_letter = {letter: set(found[12 * n : 12 * n + 12].tolist()) for n, letter in enumerate("abcde")}
    assert all(len(groups) == 1 for groups in of_letter.values()), of_letter
    assert len(set().union(*of_letter.values())) == 5
    shuffled = random.Random(1).sample(TEXTS * 2, 2 * len(TEXTS))
    again = dict(zip(shuffled, clusters(shuffled, letters, 0.5, most), strict=True))
    assert [again[text] for text in TEXTS] == found.tolist()


def test_a_text_that_is_near_to_no_group_joins_none() -> None:
    found = clusters([*TEXTS, "z"], letters, 0.5, most=60)
    alone = clusters([*TEXTS, "z"], letters, 0.5, most=1)
    assert len(set(found.tolist())) == 6
    assert NO_GROUP in alone
    assert set(alone.tolist()) == {NO_GROUP, 0}


def test_few_texts_are_groups_too() -> None:
    assert clusters([], letters).tolist() == []
    assert clusters(["a", "a"], letters).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Please describe how tulips grow in a garden.", None),
        ("shorter", None),
        ("print(x[0])", None),
        ("123", None),
        ("", None),
        ("Опиши, как растут тюльпаны", "ru"),
        ("写一首关于郁金香的诗", "zh"),
        ("Bitte beschreibe mir, wie Tulpen im Garten wachsen und gedeihen.", "de"),
    ],
)
def test_texts_in_another_language_are_told(text: str, code: str | None) -> None:
    assert foreign_language(text) == code


def said(*texts: str) -> list[tuple[str, str]]:
    return [(f"u{n}", text) for n, text in enumerate(texts)]


def test_groups_are_named_by_what_their_users_say_and_others_do_not() -> None:
    groups = [
        said("make the letter sound human", "it should sound human", "the letter must sound human, you know"),
        said("the plot needs a twist", "add a twist to the plot", "where is the twist"),
        said("郁金香太长了", "郁金香不好看"),
        said("हिन्दी में लिखो", "हिन्दी चाहिए"),
    ]
    names = key_phrases(groups, said("the letter is nice", "you know it", "nice plot"))
    assert names[0] == "human, letter" or names[0] == "human, sound, letter"
    assert names[1] == "twist, plot"
    assert names[2] == "郁金, 金香"
    assert names[3] == "हिन्दी"


def test_a_phrase_of_one_user_names_nothing() -> None:
    group = [("ann", "call Jonathan Example"), ("ann", "Jonathan Example again"), ("bob", "the phone")]
    assert key_phrases([group], []) == [None]
    assert key_phrases([], said("a")) == []
    assert key_phrases([said("1", "?")], []) == [None]


class Model:
    """Answers with names in turn; ``None`` is an error."""

    def __init__(self, *names: str | None) -> None:
        self.names, self.asked = list(names), list[ChatRequest]()

    def __call__(self, requests: list[ChatRequest]) -> list[ChatAnswer]:
        self.asked += requests
        return [
            ChatAnswer(
                None if name is None else json.dumps({"name": name}), "timeout" if name is None else None, "stop", 1, 1, call_id=f"call-{n}"
            )
            for n, (_, name) in enumerate(zip(requests, self.names, strict=True))
        ]


def test_a_model_names_groups_and_reads_one_message_of_a_user() -> None:
    model = Model("  sound\n human ", None, "", "x" * (LONGEST + 1))
    group = [("ann", "first of ann"), ("bob", "first of bob"), ("ann", "second of ann")]
    found = ChatNamer.with_default_prompt(model).names([group] * 4, "what the users ask for")
    assert found == [("sound human", "call-0"), (None, "call-1"), (None, "call-2"), (None, "call-3")]
    text = model.asked[0].messages[0]["content"]
    assert "first of ann" in text
    assert "first of bob" in text
    assert "second of ann" not in text
    assert model.asked[0].json_schema


def frame(rows: Sequence[tuple[str, str, str]]) -> pl.DataFrame:
    """Complaints as ``complaints`` gives them, of (user, text, request)."""
    return pl.DataFrame(
        [
            {"turn_id": f"t{n:03}", "conversation_id": f"c{n}", "user_id": user, "month": "2023-04", "asked_at": START}
            | {"text": text, "previous_prompt": "-", "request": request, "is_resolved": None}
            for n, (user, text, request) in enumerate(rows)
        ],
        schema={**{name: UNMET_WISHES.schema[name] for name in ("turn_id", "conversation_id", "user_id", "month", "asked_at")}}
        | dict.fromkeys(("text", "previous_prompt", "request"), pl.String())
        | {"is_resolved": pl.Boolean()},
    )


def rows_of(users: int, text: str, request: str) -> list[tuple[str, str, str]]:
    return [(f"{text[0]}{n}", f"{text} {n}", f"{request} {n}") for n in range(users)]


MIXED = frame(
    [
        *rows_of(5, "shorter", "gardens: plant tulips in a row, number"),
        *rows_of(4, "more formal", "gardens: plant tulips in a row, number"),
        *rows_of(5, "humans would say the words otherwise, no", "houses: paint the walls blue, number"),
        *rows_of(4, "quite a pity for gardeners", "Опиши, как растут тюльпаны"),
        *[("q0", f"quite a pity for gardeners {n}", "Опиши, как растут тюльпаны") for n in range(9)],
    ]
)


def test_only_groups_of_enough_users_stand() -> None:
    found = unmet_wishes(MIXED, letters, 5)
    wishes = dict(found.group_by("wish").agg(pl.col("user_id").n_unique()).iter_rows())
    (cluster,) = set(wishes) - {"short answers", OTHER_WISHES}
    assert wishes == {"short answers": 5, cluster: 5, OTHER_WISHES: 8}
    assert "humans" in cluster
    topics = dict(found.group_by("topic").agg(pl.col("user_id").n_unique()).iter_rows())
    assert topics.pop(OTHER_TOPICS) == 4, "too few for the language"
    assert sorted(topics.values()) == [5, 9]
    assert groups_have_enough_users(found.lazy(), 5).passed
    assert not groups_have_enough_users(found.lazy(), 6).passed
    assert found["call_ids"].list.len().sum() == 0
    assert unmet_wishes(MIXED.reverse(), letters, 5).equals(found)


def test_groups_of_one_name_are_one_and_name_the_call() -> None:
    """A model calls the cluster of wishes what the lexicon calls another one, and names no topic."""
    namer = ChatNamer.with_default_prompt(lambda requests: Model("short answers", *[None] * (len(requests) - 1))(requests))
    found = unmet_wishes(MIXED, letters, 5, namer)
    named = found.filter(wish="short answers")
    assert named["user_id"].n_unique() == 10
    assert set(named.filter(pl.col("call_ids").list.contains("call-0"))["user_id"]) >= {f"h{n}" for n in range(5)}


def test_each_complaint_is_one_row() -> None:
    labels = pl.DataFrame({"turn_id": ["a", "b", "c"], "label": [COMPLAINT, COMPLAINT, GO_ON]}).lazy()
    for rows, passed in ((["a", "b"], True), (["a"], False), (["a", "b", "c"], False), (["a", "a"], False), ([], False)):
        assert complaints_are_conserved(pl.DataFrame({"turn_id": rows}, schema={"turn_id": pl.String()}).lazy(), labels).passed is passed


def counted(rows: Sequence[tuple[str, str, str, str, bool | None]]) -> pl.DataFrame:
    """The table, of (user, month, wish, topic, is resolved)."""
    made = [
        dict.fromkeys(UNMET_WISHES.columns)
        | {"turn_id": f"t{n}", **dict(zip(("user_id", "month", "wish", "topic", "is_resolved"), row, strict=True))}
        for n, row in enumerate(rows)
    ]
    return pl.DataFrame(made, schema=UNMET_WISHES.schema)


def test_counts_leave_out_whatever_is_of_few_users() -> None:
    table = counted(
        [
            *[(f"u{n}", "2023-04", "short answers", "gardens", n % 2 == 0) for n in range(6)],
            *[(f"u{n}", "2023-05", "short answers", "houses", None) for n in range(4)],
            *[(f"u{n}", "2023-05", OTHER_WISHES, "gardens", True) for n in range(20)],
            *[(f"u{n}", "2023-05", "tables", "gardens", True) for n in range(4)],
        ]
    )
    wishes = counts.by_group(table, "wish", 5)
    assert wishes.select("wish", "complaints", "users", "value", "n").rows() == [
        ("short answers", 10, 6, 0.5, 6),
        (OTHER_WISHES, 20, 20, 1.0, 20),
    ]
    assert counts.by_month(table, 5).select("month", "wish", "value", "n").rows() == [("2023-04", "short answers", 1.0, 6)]
    assert counts.by_topic(table, 5).rows() == [(OTHER_WISHES, "gardens", 20), ("short answers", "gardens", 6)]
    assert counts.wishes_plot(wishes).axes
    assert counts.months_plot(counts.by_month(table, 5)).axes


def test_nothing_is_counted_of_nothing() -> None:
    nothing = UNMET_WISHES.empty()
    assert counts.by_group(nothing, "wish", 5).is_empty()
    assert counts.by_month(nothing, 5).is_empty()
    assert counts.by_topic(nothing, 5).is_empty()
