"""Opening requests, candidates, donors of personas, and rewards under three conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import CANDIDATE_REWARDS, CANDIDATES, PERSONAS, TURNS, USERS, Table
from rlhi_dagster.engines.base import ChatAnswer, RewardAnswer
from rlhi_dagster.personas.conditioning import PersonaPlacement
from rlhi_dagster.personas.donors import donors
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.preferences.candidates import (
    candidate_requests,
    candidate_rewards,
    candidates,
    conditioned,
    opening_requests,
    reward_requests,
)

NOON = datetime(2023, 4, 2, 12, tzinfo=UTC)


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


def turn(turn_id: str, user: str, month: str = "2023-04", number: int = 1, template: str | None = None) -> dict[str, Any]:
    shared = {"turn_id": turn_id, "user_id": user, "month": month, "turn": number, "template_id": template}
    return {**shared, "asked_at": NOON, "prompt": f"ask {turn_id}"}


def line(user: str) -> dict[str, Any]:
    before = datetime(2023, 4, 1, tzinfo=UTC)
    return {"persona_line_id": f"p-{user}", "user_id": user, "slot": "length", "line": f"{user} likes it short.", "valid_from": before}


USERS_FRAME = table(USERS, [{"user_id": name, "split": "test" if name == "eve" else "train"} for name in ("ann", "bob", "cid", "eve")])
PERSONAS_FRAME = table(PERSONAS, [line(user) for user in ("ann", "bob", "eve")])


def openings(rows: list[dict[str, Any]], most: int | None = None, seed: int = 7, *, known_only: bool = False) -> pl.DataFrame:
    return opening_requests(table(TURNS, rows), USERS_FRAME, PERSONAS_FRAME, most, seed, personas_at, with_persona_only=known_only)


def sampled(*users: str, texts: tuple[str | None, ...] = ("one", "two", "three")) -> pl.DataFrame:
    requests = openings([turn(f"t{number}", user) for number, user in enumerate(users)])
    answers = [ChatAnswer(text, None if text else "broken", "stop" if text else None, 1, 1) for _ in requests["turn_id"] for text in texts]
    return candidates(requests, answers, len(texts), "m")


def test_only_openings_of_training_users_outside_templates() -> None:
    rows = [turn("a", "ann"), turn("b", "eve"), turn("c", "ann", number=2), turn("d", "ann", template="x"), turn("e", "cid")]
    assert openings(rows)["turn_id"].to_list() == ["a", "e"]
    assert openings(rows, known_only=True)["turn_id"].to_list() == ["a"]


def test_the_draw_is_per_month_and_depends_on_the_seed_alone() -> None:
    rows = [turn(f"{month}-{number:02d}", "ann", month) for month in ("2023-04", "2023-05") for number in range(30)]
    drawn = openings(rows, 5)
    assert drawn.group_by("month").len()["len"].to_list() == [5, 5]
    assert openings(rows[::-1], 5).equals(drawn)
    assert set(openings(rows, 5, seed=8)["turn_id"]) != set(drawn["turn_id"])
    assert set(drawn["turn_id"]) < set(openings(rows, 6)["turn_id"])


def test_requests_show_the_persona_and_tell_samples_apart() -> None:
    asked = candidate_requests(openings([turn("a", "ann"), turn("b", "cid")]), 2)
    assert [request.sample_index for request in asked] == [0, 1, 0, 1]
    assert [[message["role"] for message in request.messages] for request in asked] == [["system", "user"]] * 2 + [["user"]] * 2
    assert "ann likes it short." in asked[0].messages[0]["content"]


def test_candidates_keep_order_and_a_cut_off_reply_is_an_error() -> None:
    requests = openings([turn("a", "ann"), turn("b", "bob")])
    answers = [
        ChatAnswer("a0", None, "stop", 1, 1, call_id="k0"),
        ChatAnswer("a1", None, "length", 1, 1),
        ChatAnswer("b0", None, "stop", 1, 1),
        ChatAnswer(None, "too long", None, 1, 0),
    ]
    found = candidates(requests, answers, 2, "m")
    assert found.schema == CANDIDATES.schema
    assert found.select("candidate_id", "reply", "error", "call_id").rows() == [
        ("a#0", "a0", None, "k0"),
        ("a#1", None, "cut_off_at_max_new_tokens", None),
        ("b#0", "b0", None, None),
        ("b#1", None, "too long", None),
    ]


def test_a_donor_is_never_the_same_user() -> None:
    users = ["ann"] * 9 + ["bob", "cid"]
    requests = pl.DataFrame(
        [{"turn_id": f"t{number:02d}", "user_id": user, "month": "2023-04", "persona": f"of {user}"} for number, user in enumerate(users)]
    )
    for seed in range(20):
        given = donors(requests, seed).join(requests, on="turn_id")
        assert len(given) == len(users)
        assert given.filter(pl.col("donor_user_id") == pl.col("user_id")).is_empty()
        assert (given["donor_persona"] == "of " + given["donor_user_id"]).all()
    assert donors(requests.reverse(), 3).equals(donors(requests, 3))


def test_donors_come_from_the_same_month_and_a_lone_user_has_none() -> None:
    rows = [("a", "ann", "2023-04"), ("b", "bob", "2023-04"), ("c", "ann", "2023-05"), ("d", "ann", "2023-05")]
    requests = pl.DataFrame(rows, schema=["turn_id", "user_id", "month"], orient="row").with_columns(persona=pl.lit("p"))
    assert donors(requests, 1).select("turn_id", "donor_user_id").rows() == [("a", "bob"), ("b", "ann")]


def test_each_candidate_is_scored_under_three_conditions() -> None:
    rows = conditioned(sampled("ann", "bob", texts=("one", None)), 7)
    assert rows.group_by("candidate_id").agg(pl.col("condition").sort())["condition"].to_list() == [["none", "own", "shuffled"]] * 2
    seen = {(row["turn_id"], row["condition"]): (row["persona_user_id"], row["seen"]) for row in rows.to_dicts()}
    assert seen["t0", "own"] == ("ann", "- ann likes it short.")
    assert seen["t0", "shuffled"] == ("bob", "- bob likes it short.")
    assert seen["t0", "none"] == (None, "")
    requests = reward_requests(rows, PersonaPlacement.SYSTEM)
    shown = {(row["turn_id"], row["condition"]): request for row, request in zip(rows.to_dicts(), requests, strict=True)}
    assert [message["role"] for message in shown["t0", "none"].messages] == ["user", "assistant"]
    assert "bob likes it short." in shown["t0", "shuffled"].messages[0]["content"]
    assert shown["t0", "own"].messages[-1] == {"role": "assistant", "content": "one"}


def test_the_reward_model_sees_the_persona_where_the_profile_places_it() -> None:
    rows = conditioned(sampled("ann", "bob", texts=("one",)), 7)
    by_condition = {
        placement: {
            (row["turn_id"], row["condition"]): request.messages
            for row, request in zip(rows.to_dicts(), reward_requests(rows, placement), strict=True)
        }
        for placement in PersonaPlacement
    }
    asked = by_condition[PersonaPlacement.FIRST_USER]["t0", "own"]
    assert [message["role"] for message in asked] == ["user", "assistant"]
    assert asked[0]["content"] == "What is known about the user:\n- ann likes it short.\n\n" + rows["prompt"][0][0]["content"]
    assert by_condition[PersonaPlacement.SYSTEM]["t0", "own"][0]["role"] == "system"
    assert by_condition[PersonaPlacement.SYSTEM]["t0", "none"] == by_condition[PersonaPlacement.FIRST_USER]["t0", "none"]


def test_rewards_keep_their_rows() -> None:
    rows = conditioned(sampled("ann", "bob"), 7)
    answers = [RewardAnswer(float(number), None, 1, call_id=f"k{number}") for number in range(len(rows))]
    found = candidate_rewards(rows, answers, "rm")
    assert found.schema == CANDIDATE_REWARDS.schema
    assert found.sort("reward").select("candidate_id", "condition").rows() == rows.select("candidate_id", "condition").rows()
    assert found.sort("reward")["call_id"].to_list() == [f"k{number}" for number in range(len(rows))]
