"""UserEval: held-out users, their latest opening requests, personas of the moment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import EVAL_PROMPTS, PERSONAS, TURNS, USERS
from rlhi_dagster.evaluation import COLD_START
from rlhi_dagster.evaluation.persona_conditions import asked_again
from rlhi_dagster.evaluation.settings import EvaluationSettings
from rlhi_dagster.evaluation.user_eval import (
    follow_up_prompts,
    only_the_chosen_users_are_evaluated,
    openings,
    personas_are_of_earlier_conversations,
    user_eval_prompts,
)
from rlhi_dagster.personas.cited import lines_alone, with_evidence
from rlhi_dagster.personas.snapshots import personas_at

START = datetime(2023, 4, 1, tzinfo=UTC)


def turns(rows: list[tuple[str, str, int, int, str | None]]) -> pl.LazyFrame:
    """From (user, conversation, turn, day, template)."""
    filled = [
        dict.fromkeys(TURNS.columns)
        | {"turn_id": f"{conversation}:{2 * turn - 2}", "conversation_id": conversation, "user_id": user, "turn": turn}
        | {"asked_at": START + timedelta(days=day), "prompt": f"{conversation} asks", "template_id": template}
        for user, conversation, turn, day, template in rows
    ]
    return pl.LazyFrame(filled, schema=TURNS.schema, orient="row")


def users(**split: str) -> pl.DataFrame:
    rows = [dict.fromkeys(USERS.columns) | {"user_id": name, "split": where} for name, where in split.items()]
    return pl.DataFrame(rows, schema=USERS.schema, orient="row")


TURN_ROWS = [
    ("held", "c1", 1, 0, None),
    ("held", "c1", 2, 0, None),
    ("held", "c2", 1, 1, None),
    ("held", "c3", 1, 2, "t"),
    ("held", "c4", 1, 3, None),
    ("held", "c5", 1, 3, None),
    ("known", "c6", 1, 9, None),
]


def test_latest_opening_requests_of_held_out_users_without_templates() -> None:
    found = user_eval_prompts(openings(turns(TURN_ROWS), users(held="test", known="train"), "test"), PERSONAS.empty(), 3, personas_at)
    assert found.schema == EVAL_PROMPTS.schema
    assert found.select("prompt_id", "earlier_conversations").rows() == [
        ("user_eval:c2:0", 1),
        ("user_eval:c4:0", 3),  # template traffic counts as history
        ("user_eval:c5:0", 3),  # not c4: it started at the same moment
    ]
    assert found["prompt"].to_list()[0] == [{"role": "user", "content": "c2 asks"}]
    assert found["persona"].to_list() == [""] * 3
    assert found["persona_line_ids"].to_list() == [[]] * 3


def test_ties_are_settled_the_same_way_whatever_the_order_of_rows() -> None:
    split = users(held="test", known="train")
    one = user_eval_prompts(openings(turns(TURN_ROWS), split, "test"), PERSONAS.empty(), 1, personas_at)
    other = user_eval_prompts(openings(turns(TURN_ROWS[::-1]), split, "test"), PERSONAS.empty(), 1, personas_at)
    assert one.equals(other)
    assert one["prompt_id"].to_list() == ["user_eval:c5:0"]


def test_personas_are_those_of_the_moment() -> None:
    line = dict.fromkeys(PERSONAS.columns) | {
        "persona_line_id": "l",
        "user_id": "held",
        "slot": "length",
        "line": "short",
        "valid_from": START + timedelta(1),
    }
    personas = pl.DataFrame([line], schema=PERSONAS.schema, orient="row")
    found = user_eval_prompts(openings(turns(TURN_ROWS), users(held="test"), "test"), personas, 3, personas_at)
    assert dict(found.select("turn_id", "persona").rows()) == {"c2:0": "", "c4:0": "- short", "c5:0": "- short"}
    assert found.filter(turn_id="c4:0")["persona_line_ids"].to_list() == [["l"]]


def test_bad_settings_and_bad_snapshots_are_refused() -> None:
    arguments = (openings(turns(TURN_ROWS), users(held="test"), "test"), PERSONAS.empty())
    with pytest.raises(ValueError, match="per_user"):
        user_eval_prompts(*arguments, 0, personas_at)
    with pytest.raises(ValueError, match="snapshot returned 0 rows for 2 requests"):
        user_eval_prompts(*arguments, 2, lambda personas, moments: personas_at(personas, moments).head(0))
    assert user_eval_prompts(openings(turns(TURN_ROWS), users(known="train"), "test"), PERSONAS.empty(), 1, personas_at).is_empty()


def test_settings_are_tried_on_tuning_users_and_a_run_that_saw_a_test_user_says_so() -> None:
    split = users(held="tuning", known="test")
    tried = user_eval_prompts(openings(turns(TURN_ROWS), split, "tuning"), PERSONAS.empty(), 3, personas_at)
    told = user_eval_prompts(openings(turns(TURN_ROWS), split, "test"), PERSONAS.empty(), 3, personas_at)
    assert (set(tried["user_id"]), set(told["user_id"])) == ({"held"}, {"known"})
    for rows, part, passed in ((tried, "tuning", True), (told, "test", True), (pl.concat([tried, told]), "tuning", False)):
        assert only_the_chosen_users_are_evaluated(rows.lazy(), split.lazy(), part).passed is passed
    assert not only_the_chosen_users_are_evaluated(tried.lazy(), users(held="train").lazy(), "tuning").passed, "trained on"
    assert not only_the_chosen_users_are_evaluated(tried.lazy(), users(known="test").lazy(), "tuning").passed, "of nobody known"
    assert not only_the_chosen_users_are_evaluated(EVAL_PROMPTS.empty().lazy(), split.lazy(), "test").passed, "nobody evaluated"


# follow-ups and other personas

DAYS = 12
LONG = [
    (user, f"{user}{day:02}", turn, day, None)
    for user in ("eve", "fay")
    for day in range(DAYS)
    for turn in ((1, 2, 3) if day % 2 else (1,))
]


def line(user: str, day: int, slot: str, until: int | None = None) -> dict:
    """A line that the opening of a day's conversation supports, valid from an hour later."""
    valid = {"valid_from": START + timedelta(days=day, hours=1), "valid_until": until and START + timedelta(days=until, hours=1)}
    named = {"persona_line_id": f"{user}-{slot}-{day}", "user_id": user, "slot": slot, "line": f"{user} {slot} {day}"}
    return dict.fromkeys(PERSONAS.columns) | named | valid | {"evidence": [f"{user}{day:02}:0"], "quotes": [None], "writer": "extractive"}


LINES = pl.DataFrame(
    [line(user, 0, "length", 6) for user in ("eve", "fay")]
    + [line(user, 6, "length") for user in ("eve", "fay")]
    + [line("eve", 4, "tone"), line("eve", 11, "format")],
    schema=PERSONAS.schema,
    orient="row",
)


def long_turns() -> pl.LazyFrame:
    said = pl.col("turn")
    moment = pl.col("asked_at") + pl.duration(hours=2 * (said - 1))
    return turns(LONG).with_columns(asked_at=moment, reply=pl.format("reply {}", said), prompt=pl.format("{} {}", "conversation_id", said))


def all_items(**settings: Any) -> pl.DataFrame:
    opened = openings(long_turns(), users(eve="test", fay="test"), "test")
    first = user_eval_prompts(opened, LINES, 2, personas_at)
    followed = follow_up_prompts(long_turns(), opened, LINES, 2, personas_at, 7)
    of_users = pl.concat([first, followed]).with_columns(known_of_user=pl.lit("known"))
    chosen = EvaluationSettings(requests_per_user=2, arithmetic_problems=0, **settings)
    return pl.concat([of_users, asked_again(of_users, opened, LINES, chosen, personas_at, 7)])


def test_a_follow_up_has_the_logged_history_its_turn_and_the_persona_from_before_its_conversation() -> None:
    found = all_items().filter(benchmark="user_eval_follow_ups")
    assert len(found) == 4
    assert {row["turn_id"].split(":")[0] for row in found.to_dicts()} == {"eve11", "eve09", "fay11", "fay09"}, "of the latest that have any"
    for row in found.to_dicts():
        conversation = row["turn_id"].split(":")[0]
        said = [
            ("user", f"{conversation} {turn}") if side == 0 else ("assistant", f"reply {turn}") for turn in range(1, 9) for side in (0, 1)
        ]
        assert [(each["role"], each["content"]) for each in row["prompt"]] == said[: 2 * row["turn"] - 1]
    late = found.filter(pl.col("turn_id").str.starts_with("eve11"))
    assert late["persona_line_ids"].to_list() == [["eve-length-6", "eve-tone-4"]], "the line of this conversation is not known yet"


def test_strata_of_a_cold_start_have_the_same_requests_and_never_know_more_conversations_than_they_say() -> None:
    found = all_items(cold_start_per_user=2)
    said = {row["turn_id"]: row["conversation_id"] for row in long_turns().collect().to_dicts()}
    lines = {row["persona_line_id"]: row for row in LINES.to_dicts()}
    asked = [found.filter(benchmark=benchmark.value)["turn_id"].to_list() for benchmark in COLD_START.values()]
    assert asked == [["eve10:0", "eve11:0", "fay10:0", "fay11:0"]] * len(COLD_START)
    known = {}
    for count, benchmark in COLD_START.items():
        for row in found.filter(benchmark=benchmark.value).to_dicts():
            cited = {said[message] for each in row["persona_line_ids"] for message in lines[each]["evidence"]}
            assert all(int(conversation[3:]) < count for conversation in cited)
            known[row["turn_id"], count] = row["persona"]
    assert [known["eve11:0", count] for count in COLD_START] == [
        "",
        *["- eve length 0"] * 2,
        "- eve length 0\n- eve tone 4",
        "- eve length 6\n- eve tone 4",
    ]


def test_other_personas_are_another_users_and_nobodys_on_the_same_requests() -> None:
    found = all_items()
    of = {name: found.filter(benchmark=f"user_eval_{name}") for name in ("shuffled", "empty")}
    for rows in of.values():
        assert rows["turn_id"].to_list() == ["eve11:0", "fay11:0"]
        assert rows["known_of_user"].to_list() == ["known"] * 2, "the judge is told the same"
    assert of["shuffled"].select("user_id", "persona_user_id", "persona").rows() == [
        ("eve", "fay", "- fay length 6"),
        ("fay", "eve", "- eve length 6\n- eve tone 4"),
    ]
    assert of["empty"].select("persona_user_id", "persona").rows() == [(None, "")] * 2
    assert all_items(personas=["own"])["persona_condition"].unique().sort().to_list() == ["cut", "own"]


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"persona_user_id": "fay"}, "lines_of_others"),
        ({"persona_user_id": None}, "wrongly_named_items"),
        ({"persona_condition": "shuffled"}, "wrongly_named_items"),
        ({"persona_line_ids": ["eve-format-11"]}, "not_of_earlier_conversations"),
        ({"persona_line_ids": ["unknown"]}, "lines_of_others"),
    ],
)
def test_a_persona_that_knows_too_much_or_is_not_whose_it_says_is_found(change: dict, number: str) -> None:
    items = all_items()
    assert personas_are_of_earlier_conversations(items.lazy(), LINES.lazy(), long_turns()).passed
    rows = [row | change if row["prompt_id"] == "user_eval:eve11:0" else row for row in items.to_dicts()]
    found = personas_are_of_earlier_conversations(pl.LazyFrame(rows, schema=EVAL_PROMPTS.schema), LINES.lazy(), long_turns())
    assert not found.passed
    assert found.numbers[number] > 0


def test_a_judge_is_told_a_line_with_the_words_behind_it() -> None:
    quoted = LINES.with_columns(quotes=pl.when(pl.col("slot") == "tone").then(pl.lit(["warmer,\n  please"])).otherwise("quotes"))
    items = pl.DataFrame({"persona_line_ids": [["eve-length-0", "eve-tone-4"], []]}, schema={"persona_line_ids": pl.List(pl.String)})
    known = with_evidence(items, quoted, long_turns())
    assert known.to_list() == ['- eve length 0\n  said: "eve00 1"\n- eve tone 4\n  said: "warmer, please"', ""]
    assert lines_alone(known[0]) == "- eve length 0\n- eve tone 4"
