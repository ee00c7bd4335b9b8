"""Which replies are rewritten, what the policy is asked, and which rewrites become pairs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.preferences.rewrites import criticised, rewrite_pairs, rewrite_request, rewrites
from rlhi_dagster.tables import FEEDBACK_LABELS, PERSONAS, REWRITE_PAIRS, REWRITES, USERS, WILDLLAMACHAT, Table

START = datetime(2023, 4, 1, tzinfo=UTC)
ASKED = "reattempt_with_feedback"


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


def chat(conversation: str, user: str, *turns: tuple[str, str | None], applies: bool | None = True) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    history: list[dict[str, str]] = []
    for number, (prompt, reply) in enumerate(turns):
        rows.append(
            {
                "turn_id": f"{conversation}:{2 * number}",
                "conversation_id": conversation,
                "user_id": user,
                "month": "2023-04",
                "turn": number + 1,
                "asked_at": START + timedelta(minutes=number),
                "prompt": prompt,
                "history": list(history),
                "reply": reply,
                "logged_reply": f"logged {reply}",
                "follow_up_id": f"{conversation}:{2 * number + 2}" if number + 1 < len(turns) else None,
                "follow_up_applies": applies,
            }
        )
        history += [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply or ""}]
    return rows


def label(turn_id: str, name: str = ASKED, probability: float = 0.9) -> dict[str, Any]:
    return {"turn_id": turn_id, "label": name, "probability": probability, "reattempt_probability": probability}


USERS_FRAME = table(USERS, [{"user_id": "ann", "split": "train"}, {"user_id": "eve", "split": "held_out"}])
PERSONAS_FRAME = table(
    PERSONAS,
    [
        {"persona_line_id": "p1", "user_id": "ann", "slot": "length", "line": "Wants it short.", "valid_from": START},
        {"persona_line_id": "p2", "user_id": "ann", "slot": "tone", "line": "Likes warmth.", "valid_from": START + timedelta(minutes=1)},
    ],
)


def select(rows: list[dict[str, Any]], labels: list[dict[str, Any]], least: float = 0.5, *, logged: bool = False) -> pl.DataFrame:
    frames = table(WILDLLAMACHAT, rows), table(FEEDBACK_LABELS, labels), USERS_FRAME, PERSONAS_FRAME
    return criticised(*frames, least, personas_at, logged_where_inapplicable=logged)


def answer(text: str | None, finish: str = "stop", error: str | None = None) -> ChatAnswer:
    return ChatAnswer(text, error, finish, 1, 1)


def one(rewrite: ChatAnswer, feedback: str = "Shorter, please.", reply: str = "long text", applies: bool | None = True) -> dict[str, Any]:
    rows = select(chat("c", "ann", ("q", reply), (feedback, "x"), applies=applies), [label("c:2")])
    return rewrite_pairs(rewrites(rows, [rewrite], "m"), drops_inapplicable=True).row(0, named=True)


def test_the_reply_before_the_feedback_is_criticised_with_the_persona_of_its_request() -> None:
    rows = select(chat("c", "ann", ("q", "r1"), ("go on", "r2"), ("Too long.", "r3")), [label("c:4"), label("c:2", "continuation")])
    row = rows.row(0, named=True)
    assert len(rows) == 1
    assert (row["turn_id"], row["follow_up_id"], row["original"], row["feedback"]) == ("c:2", "c:4", "r2", "Too long.")
    assert [message["content"] for message in row["prompt"]] == ["q", "r1", "go on"]
    # The second line is valid from the very moment of the request, so not yet before it.
    assert (row["persona"], row["persona_line_ids"]) == ("- Wants it short.", ["p1"])


def test_held_out_users_other_labels_and_weak_labels_are_left_out() -> None:
    said = (("q", "r1"), ("Too long.", "r2"))
    rows = [
        row for name, user in (("a", "ann"), ("b", "eve"), ("c", "ann"), ("d", "ann"), ("e", "nobody")) for row in chat(name, user, *said)
    ]
    labels = [label("a:2", probability=0.5), label("b:2"), label("c:2", probability=0.49), label("d:2", "positive"), label("e:2")]
    assert select(rows, labels)["turn_id"].to_list() == ["a:0"]


def test_a_reply_that_could_not_be_regenerated_is_not_rewritten() -> None:
    assert select(chat("c", "ann", ("q", None), ("Too long.", None)), [label("c:2")]).is_empty()


@pytest.mark.parametrize(("applies", "original"), [(True, "r"), (None, "r"), (False, "logged r")])
def test_the_logged_reply_stands_in_only_where_the_feedback_does_not_fit(applies: bool | None, original: str) -> None:
    said = chat("c", "ann", ("q", "r"), ("Too long.", "x"), applies=applies)
    row = select(said, [label("c:2")], logged=True).row(0, named=True)
    assert (row["original"], row["is_off_policy"]) == (original, applies is False)
    assert rewrite_request(row).messages[1]["content"] == original
    assert select(said, [label("c:2")])["original"].to_list() == ["r"]


def test_the_policy_sees_the_dialogue_up_to_the_feedback_and_no_persona() -> None:
    row = select(chat("c", "ann", ("q", "r"), ("Too long.", "x")), [label("c:2")]).row(0, named=True)
    assert [(m["role"], m["content"]) for m in rewrite_request(row).messages] == [("user", "q"), ("assistant", "r"), ("user", "Too long.")]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"rewrite": answer(None, error="prompt_too_long: 9")}, "rewrite_failed"),
        ({"rewrite": answer("half a sen", "length")}, "rewrite_failed"),
        ({"rewrite": answer("new"), "feedback": "No, I meant tulips."}, "clarifies_request"),
        ({"rewrite": answer("nuevo"), "feedback": "No, quise decir rosas."}, "clarifies_request"),
        ({"rewrite": answer("new"), "applies": False}, "feedback_does_not_apply"),
        ({"rewrite": answer(" \n ")}, "empty_rewrite"),
        ({"rewrite": answer(" long \n text ")}, "identical_sides"),
        ({"rewrite": answer("short")}, None),
        ({"rewrite": answer("short"), "applies": None}, None),
        ({"rewrite": answer(None), "feedback": "I meant roses.", "applies": False}, "rewrite_failed"),
        ({"rewrite": answer("long text"), "applies": False}, "feedback_does_not_apply"),
    ],
)
def test_drop_reasons_the_first_that_applies(given: dict[str, Any], reason: str | None) -> None:
    row = one(**given)
    assert (row["drop_reason"], row["is_kept"]) == (reason, reason is None)


def test_chosen_is_the_rewrite_and_the_prompt_ends_before_the_original() -> None:
    row = one(answer("short"))
    assert (row["chosen"], row["rejected"]) == ("short", "long text")
    assert [message["role"] for message in row["prompt"]] == ["user"]


def test_inapplicable_pairs_stay_if_the_profile_says_so() -> None:
    rows = select(chat("c", "ann", ("q", "r"), ("Too long.", "x"), applies=False), [label("c:2")])
    assert rewrite_pairs(rewrites(rows, [answer("short")], "m"), drops_inapplicable=False)["is_kept"].to_list() == [True]


def test_every_rewrite_is_a_pair_with_a_stable_id_of_its_own() -> None:
    rows = select(chat("a", "ann", ("q", "r1"), ("Too long.", "r2"), ("Still too long.", "r3")), [label("a:2"), label("a:4")])
    made = rewrites(rows, [answer("short"), answer(None, error="broken")], "m")
    pairs = rewrite_pairs(made, drops_inapplicable=True)
    assert (made.schema, pairs.schema) == (REWRITES.schema, REWRITE_PAIRS.schema)
    assert pairs["pair_id"].n_unique() == len(pairs) == 2
    again = rewrite_pairs(rewrites(rows, [answer("another"), answer("text")], "m"), drops_inapplicable=True)
    assert again["pair_id"].to_list() == pairs["pair_id"].to_list()


def test_nothing_criticised_makes_empty_tables() -> None:
    rows = select(chat("c", "ann", ("q", "r")), [])
    pairs = rewrite_pairs(rewrites(rows, [], "m"), drops_inapplicable=True)
    assert (len(pairs), pairs.schema) == (0, REWRITE_PAIRS.schema)
