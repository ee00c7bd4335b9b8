"""Regenerated replies beside logged ones, and which follow-ups still fit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import FEEDBACK_LABELS, TURNS, WILDLLAMACHAT, Table
from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.preferences.pair_judge import FollowUp, Judged, Rewritten, RulePairJudge
from rlhi_dagster.reconstruction.wildllamachat import feedback_ids, mismatches, user_messages, wildllamachat

NOON = datetime(2023, 4, 2, 12, tzinfo=UTC)


class Judge:
    """Says what it is told to about each reply, and remembers what it was shown."""

    name = "fake"

    def __init__(self, **holds: Judged) -> None:
        self.holds, self.asked = holds, list[FollowUp]()

    def applies(self, items: Sequence[FollowUp]) -> list[Judged]:
        self.asked += items
        return [self.holds[item.reply] for item in items]

    def meets(self, items: Sequence[Rewritten]) -> list[Judged]:
        raise AssertionError(items)


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


LAST = "last: "
"""Begins a message that nobody answered."""


def turns(**conversations: list[str]) -> pl.DataFrame:
    rows = [
        {"turn_id": f"{name}:{2 * number}", "conversation_id": name, "user_id": f"u-{name}", "month": "2023-04", "turn": number + 1}
        | {"asked_at": NOON + timedelta(seconds=number), "prompt": text.removeprefix(LAST)}
        | {"reply": None if text.startswith(LAST) else f"logged {name}{number}"}
        for name, said in conversations.items()
        for number, text in enumerate(said)
    ]
    return table(TURNS, rows)


def labels(**given: tuple[str, float]) -> pl.DataFrame:
    return table(
        FEEDBACK_LABELS,
        [{"turn_id": turn.replace("_", ":"), "label": label, "reattempt_probability": p} for turn, (label, p) in given.items()],
    )


def answer(text: str | None, call_id: str = "") -> ChatAnswer:
    return ChatAnswer(text, None if text is not None else "prompt_too_long: 9", "stop" if text else None, 1, 1, call_id=call_id)


WITH, WITHOUT = Feedback.REATTEMPT_WITH_FEEDBACK.value, Feedback.REATTEMPT_WITHOUT_FEEDBACK.value
SAID = turns(a=["plan a day", "shorter", "again", "in a list"], b=["hello"])
ANSWERS = {"a": [answer("r0", "k0"), answer("r1", "k1"), answer("r2", "k2"), answer("r3", "k3")], "b": [answer("s0")]}
LABELS = labels(a_2=(WITH, 0.9), a_4=(WITHOUT, 0.1), a_6=(WITH, 0.9))


def built(judge: Judge, given: pl.DataFrame = LABELS, answers: dict[str, list[ChatAnswer]] = ANSWERS, least: float = 0.5) -> pl.DataFrame:
    return wildllamachat(SAID, given, answers, "policy@1", judge, least)


def test_every_turn_has_its_reply_on_the_regenerated_history() -> None:
    judge = Judge(r0=Judged(True), r2=Judged(True))
    found = built(judge)
    assert found.schema == WILDLLAMACHAT.schema
    assert found["turn_id"].to_list() == sorted(SAID["turn_id"])
    third = found.row(by_predicate=pl.col("turn_id") == "a:4", named=True)
    assert [message["content"] for message in third["history"]] == ["plan a day", "r0", "shorter", "r1"]
    assert (third["logged_reply"], third["reply"], third["call_id"], third["follow_up_id"]) == ("logged a2", "r2", "k2", "a:6")
    last = found.row(by_predicate=pl.col("turn_id") == "a:6", named=True)
    assert (last["follow_up_id"], last["follow_up"], last["applies_judge"]) == (None, None, None)
    assert found["follow_up"].to_list() == ["shorter", "again", "in a list", None, None]
    assert found["call_id"].to_list() == ["k0", "k1", "k2", "k3", None]
    assert user_messages(SAID) == {"a": ["plan a day", "shorter", "again", "in a list"], "b": ["hello"]}


def test_only_feedback_is_judged_and_the_verdict_keeps_its_call() -> None:
    judge = Judge(r0=Judged(False, 0.2, ("c0",)), r2=Judged(None, None, ("c2",)))
    found = built(judge)
    assert [(item.reply, item.logged_reply, item.follow_up) for item in judge.asked] == [
        ("r0", "logged a0", "shorter"),
        ("r2", "logged a2", "in a list"),
    ]
    assert [message["content"] for message in judge.asked[1].prompt] == ["plan a day", "r0", "shorter", "r1", "again"]
    columns = ["follow_up_applies", "applies_probability", "applies_judge", "applies_call_id"]
    assert found.select("turn_id", *columns).rows() == [
        ("a:0", False, 0.2, "fake", "c0"),
        ("a:2", None, None, None, None),
        ("a:4", None, None, "fake", "c2"),
        ("a:6", None, None, None, None),
        ("b:0", None, None, None, None),
    ]


def test_a_follow_up_below_the_probability_criticises_nothing() -> None:
    assert feedback_ids(LABELS, 0.95).to_list() == []
    judge = Judge(r0=Judged(True))
    unsure = labels(a_2=(WITH, 0.5), a_6=(WITH, 0.49))
    assert built(judge, unsure)["applies_judge"].to_list() == ["fake", None, None, None, None]


def test_a_reply_that_could_not_be_regenerated_is_an_error_row_that_nobody_judges() -> None:
    judge = Judge(r2=Judged(True))
    found = built(judge, answers={**ANSWERS, "a": [answer(None), *ANSWERS["a"][1:]]})
    first = found.row(0, named=True)
    assert (first["reply"], first["error"], first["applies_judge"]) == (None, "prompt_too_long: 9", None)
    assert [message["content"] for message in found.row(1, named=True)["history"]] == ["plan a day", ""]
    assert len(judge.asked) == 1


def test_a_last_word_criticises_the_reply_before_it_and_gets_no_row_of_its_own() -> None:
    said = turns(a=["plan a day", "shorter", f"{LAST}in a list"], b=["hello"])
    assert user_messages(said) == {"a": ["plan a day", "shorter"], "b": ["hello"]}, "nobody is asked to answer it"
    judge = Judge(r0=Judged(True), r1=Judged(False))
    given = labels(a_2=(WITH, 0.9), a_4=(WITH, 0.9))
    found = wildllamachat(said, given, {"a": [answer("r0"), answer("r1")], "b": [answer("s0")]}, "m", judge, 0.5)
    assert found.select("turn_id", "follow_up_id", "follow_up", "follow_up_applies").rows() == [
        ("a:0", "a:2", "shorter", True),
        ("a:2", "a:4", "in a list", False),
        ("b:0", None, None, None),
    ]
    assert [item.follow_up for item in judge.asked] == ["shorter", "in a list"]
    assert mismatches(found).filter(of="wish format")["mismatched"].to_list() == [1]


def test_nothing_in_nothing_out() -> None:
    found = wildllamachat(TURNS.empty(), FEEDBACK_LABELS.empty(), {}, "m", Judge(), 0.5)
    assert found.schema == WILDLLAMACHAT.schema
    assert mismatches(found).row(0, named=True)["mismatch_fraction"] is None


def test_the_rule_decides_where_it_can_read_the_wish() -> None:
    said = turns(a=["plan", "Make it shorter, please.", "make it rhyme"])
    given = labels(a_2=(WITH, 0.9), a_4=(WITH, 0.9))
    answers = {"a": [answer("logged"), answer("x"), answer("y")]}
    found = wildllamachat(said, given, answers, "m", RulePairJudge(), 0.5)
    assert found["follow_up_applies"].to_list() == [False, None, None], "already much shorter; a rhyme cannot be told"
    assert found["applies_judge"].to_list() == ["rule", "rule", None]


def test_the_mismatch_counts_what_could_be_told_by_user_judge_and_wish() -> None:
    conversations = {f"c{number}": ["plan", "shorter, in a list"] for number in range(8)} | {"d0": ["plan", "make it rhyme"]}
    said = turns(**conversations)
    given = labels(**{f"{name}_2": (WITH, 0.9) for name in conversations})
    verdicts = {**{f"r{number}": Judged(number >= 2) for number in range(7)}, "r7": Judged(None), "e": Judged(False)}
    answers = {name: [answer(f"r{name[1:]}" if name != "d0" else "e"), answer("x")] for name in conversations}
    found = mismatches(wildllamachat(said, given, answers, "m", Judge(**verdicts), 0.5))
    rows = {row["of"]: row for row in found.to_dicts()}
    assert list(rows) == ["all", "judge fake", "wish format", "wish length", "wish no wish read"]
    overall = rows["all"]
    assert (overall["follow_ups"], overall["untold"], overall["mismatched"], overall["users"]) == (9, 1, 3, 8)
    assert overall["mismatch_fraction"] == pytest.approx(3 / 8)
    assert 0 <= overall["ci_low"] < 3 / 8 < overall["ci_high"] <= 1
    assert (rows["wish length"]["follow_ups"], rows["wish length"]["mismatched"]) == (8, 2)
    assert (rows["wish no wish read"]["follow_ups"], rows["wish no wish read"]["mismatched"]) == (1, 1)
    assert rows["judge fake"] == overall | {"of": "judge fake"}
