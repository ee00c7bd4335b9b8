"""UserEval: held-out users, their latest opening requests, personas of the moment."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from rlhi_dagster.base.tables import EVAL_PROMPTS, PERSONAS, TURNS, USERS
from rlhi_dagster.evaluation.user_eval import user_eval_prompts
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
    found = user_eval_prompts(turns(TURN_ROWS), users(held="held_out", known="train"), PERSONAS.empty(), 3, personas_at)
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
    split = users(held="held_out", known="train")
    one = user_eval_prompts(turns(TURN_ROWS), split, PERSONAS.empty(), 1, personas_at)
    other = user_eval_prompts(turns(TURN_ROWS[::-1]), split, PERSONAS.empty(), 1, personas_at)
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
    found = user_eval_prompts(turns(TURN_ROWS), users(held="held_out"), personas, 3, personas_at)
    assert dict(found.select("turn_id", "persona").rows()) == {"c2:0": "", "c4:0": "- short", "c5:0": "- short"}
    assert found.filter(turn_id="c4:0")["persona_line_ids"].to_list() == [["l"]]


def test_bad_settings_and_bad_snapshots_are_refused() -> None:
    arguments = (turns(TURN_ROWS), users(held="held_out"), PERSONAS.empty())
    with pytest.raises(ValueError, match="per_user"):
        user_eval_prompts(*arguments, 0, personas_at)
    with pytest.raises(ValueError, match="snapshot returned 0 rows for 2 requests"):
        user_eval_prompts(*arguments, 2, lambda personas, moments: personas_at(personas, moments).head(0))
    assert user_eval_prompts(arguments[0], users(known="train"), PERSONAS.empty(), 1, personas_at).is_empty()
