"""The reward model: what it is trained and tried on, and how often it prefers the preferred reply under which persona."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.base.tables import REWARD_MODEL_SCORES, REWRITE_PAIRS, USERS
from rlhi_dagster.engines.base import RewardAnswer
from rlhi_dagster.graph import metadata
from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona
from rlhi_dagster.training import human_preferences
from rlhi_dagster.training.human_preferences import HumanPairs
from rlhi_dagster.training.pair_sets import reward_model_pairs, reward_model_sets
from rlhi_dagster.training.reward_scores import (
    ROWS,
    backbone,
    drawing,
    errors,
    held_out_rows,
    human_rows,
    other_persona_fraction,
    reward_model_prefers_preferred,
    reward_model_scores,
    reward_requests,
)

HH = Path(__file__).parents[2] / "../shared/data/hh_rlhf"
OPENING = [{"role": "user", "content": "hi"}]
ROW: dict[str, Any] = dict.fromkeys(REWRITE_PAIRS.columns) | {
    "strategy": "feedback",
    "drop_reasons": [],
    "prompt": OPENING,
    "chosen": "good",
    "rejected": "bad",
    "persona": "- short",
    "pair_id": "p",
    "turn_id": "t",
    "user_id": "u",
}


def unscored(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**ROW, **change} for change in changes], schema=REWRITE_PAIRS.schema, orient="row")


def held_out(users: int, pairs: int = 1) -> pl.DataFrame:
    names = [(f"u{user}", number) for user in range(users) for number in range(pairs)]
    return unscored(
        *({"pair_id": f"{user}-{n}", "turn_id": f"t{user}-{n}", "user_id": user, "persona": f"- likes {user}"} for user, n in names)
    )


def answered(rows: pl.DataFrame, is_right: Any) -> list[RewardAnswer]:
    return [RewardAnswer(reward, None, 5) for row in rows.to_dicts() for reward in ((1.0, 0.0) if is_right(row) else (0.0, 1.0))]


def test_the_reward_model_is_trained_on_sound_rewrites_of_opening_requests_that_follow_the_feedback() -> None:
    """The control does not follow it; the logged reply to the feedback does."""
    rows = unscored(
        {"pair_id": "used"},
        {"pair_id": "later", "prompt": OPENING * 3},
        {"pair_id": "dropped", "drop_reasons": ["refusal"]},
        {"pair_id": "control", "strategy": "scratch"},
        {"pair_id": "logged", "strategy": "logged"},
    )
    assert set(reward_model_pairs(rows, USERS.empty(), 0.3)["pair_id"]) == {"used", "logged"}


def test_pairs_of_one_turn_are_each_scored_once_under_every_persona() -> None:
    """A turn may have a pair of each strategy."""
    pairs = pl.concat([held_out(3), held_out(3).with_columns(pair_id=pl.format("{}-logged", "pair_id"))])
    rows = held_out_rows(pairs, 7)
    assert rows.group_by("condition").len()["len"].to_list() == [6, 6, 6]
    assert rows.select("condition", "pair_id").is_unique().all()


def test_the_reward_models_sets_share_no_user() -> None:
    rows = unscored(*({"pair_id": f"{user}-{number}", "user_id": f"u{user}"} for user in range(50) for number in range(2)))
    pairs = reward_model_pairs(rows, USERS.empty(), 0.3)
    train, validation = reward_model_sets(pairs, None, 7, PersonaPlacement.SYSTEM)
    users = [{pair_id.split("-")[0] for pair_id in frame["pair_id"]} for frame in (train, validation)]
    assert users[0]
    assert users[1]
    assert not users[0] & users[1]
    assert len(train) + len(validation) == 100
    assert set(validation["pair_id"]) == set(pairs.filter(split="validation")["pair_id"])
    assert len(reward_model_sets(pairs, 7, 7, PersonaPlacement.SYSTEM)[0]) == 7


def test_the_reward_model_is_tried_on_nobody_who_may_be_one_it_was_trained_on() -> None:
    rows = unscored(*({"pair_id": f"{user}", "user_id": f"u{user}"} for user in range(60)))
    users = pl.DataFrame(
        [dict.fromkeys(USERS.columns) | {"user_id": f"u{user}", "split_group": f"u{user % 20}"} for user in range(60)], USERS.schema
    )
    split = dict(reward_model_pairs(rows, users, 0.3).select("user_id", "split").iter_rows())
    assert set(split.values()) == {"train", "validation"}
    assert all(split[f"u{user}"] == split[f"u{user % 20}"] for user in range(60))


@pytest.mark.parametrize("placement", PersonaPlacement)
def test_the_reward_model_learns_with_the_persona_where_it_will_be_asked_with_it(placement: PersonaPlacement) -> None:
    pairs = reward_model_pairs(unscored({}), USERS.empty(), 0.3)
    seen = [prompt for frame in reward_model_sets(pairs, None, 7, placement) for prompt in frame["prompt"].to_list()]
    assert seen == [with_persona(OPENING, "- short", placement)]
    rows = held_out_rows(held_out(1), 7).filter(condition="own")
    asked = [request.messages for request in reward_requests(rows, placement)]
    prompt = with_persona(OPENING, "- likes u0", placement)
    assert asked == [[*prompt, {"role": "assistant", "content": side}] for side in ("good", "bad")]


def test_every_held_out_pair_is_seen_under_its_own_anothers_and_no_persona() -> None:
    rows = held_out_rows(held_out(5, 2), 7)
    assert rows.schema == ROWS
    assert dict(rows["condition"].value_counts().iter_rows()) == {"own": 10, "shuffled": 10, "none": 10}
    for row in rows.to_dicts():
        lent = {"own": {row["cluster"]}, "none": set(), "shuffled": {f"u{user}" for user in range(5)} - {row["cluster"]}}[row["condition"]]
        assert row["seen"] in {f"- likes {user}" for user in lent} or (row["seen"] == "" and not lent)
    assert other_persona_fraction(rows) == 1.0
    assert held_out_rows(held_out(5, 2).reverse(), 7).equals(rows)


def test_a_single_user_borrows_from_nobody() -> None:
    rows = held_out_rows(held_out(1, 3), 7)
    assert set(rows["condition"]) == {"own", "none"}
    scores = reward_model_scores(rows, answered(rows, lambda row: True), [], "m")
    shuffled = scores.filter(condition="shuffled").row(0, named=True)
    assert (shuffled["n"], shuffled["value"], other_persona_fraction(rows)) == (0, None, None)


def test_accuracies_with_intervals_by_condition() -> None:
    rows = held_out_rows(held_out(40, 2), 7)
    rng = random.Random(1)
    scores = reward_model_scores(rows, answered(rows, lambda row: row["condition"] == "own" or rng.random() < 0.5), [], "m")
    assert scores.schema == REWARD_MODEL_SCORES.schema
    own, shuffled = (scores.filter(condition=condition).row(0, named=True) for condition in ("own", "shuffled"))
    assert (own["value"], own["n"], own["users"]) == (1.0, 80, 40)
    assert shuffled["ci_low"] < 0.5 < shuffled["ci_high"]


def test_a_tie_counts_half_and_a_pair_without_both_rewards_not_at_all() -> None:
    rows = held_out_rows(held_out(3), 7).filter(condition="none")
    failed = RewardAnswer(None, "conversation_too_long: 9 tokens", 9)
    answers = [RewardAnswer(0.3, None, 5), RewardAnswer(0.3, None, 5), RewardAnswer(2.0, None, 5), RewardAnswer(1.0, None, 5)]
    scores = reward_model_scores(rows, [*answers, RewardAnswer(1.0, None, 5), failed], [], "m").filter(condition="none")
    assert (scores["value"].item(), scores["n"].item()) == (0.75, 2)
    assert errors([*answers, failed]) == {"conversation_too_long": 1}


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_the_accuracy_is_the_share_of_pairs_ranked_as_given(is_right: list[bool]) -> None:
    rows = held_out_rows(held_out(len(is_right)), 7).filter(condition="own")
    scores = reward_model_scores(rows, answered(rows, lambda row: is_right[int(row["cluster"][1:])]), [], "m").filter(condition="own")
    assert scores["value"].item() == pytest.approx(sum(is_right) / len(is_right))
    low, value, high = scores.select("ci_low", "value", "ci_high").row(0)
    assert 0 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= 1


def scores_of(accuracy: float, users: int) -> pl.LazyFrame:
    rows = held_out_rows(held_out(users), 7)
    return reward_model_scores(rows, answered(rows, lambda row: int(row["cluster"][1:]) < accuracy * users), [], "m").lazy()


def test_the_check_passes_above_chance_and_fails_at_chance_or_without_pairs() -> None:
    assert reward_model_prefers_preferred(scores_of(0.8, 60)).passed
    assert not reward_model_prefers_preferred(scores_of(0.5, 60)).passed
    assert not reward_model_prefers_preferred(scores_of(0.6, 5)).passed
    assert not reward_model_prefers_preferred(scores_of(1.0, 0)).passed
    assert not reward_model_prefers_preferred(REWARD_MODEL_SCORES.empty().lazy()).passed
    good_elsewhere = scores_of(0.5, 60).with_columns(value=1.0, ci_low=pl.when(pl.col("condition") == "own").then("ci_low").otherwise(1.0))
    assert not reward_model_prefers_preferred(good_elsewhere).passed


def dialogue(*messages: str) -> str:
    return "".join(f"\n\n{'Assistant' if number % 2 else 'Human'}: {message}" for number, message in enumerate(messages))


HUMAN_ROWS: list[tuple[dict[str, Any], str | None]] = [
    ({"chosen": dialogue("tulips?", "red", "and?", "blue"), "rejected": dialogue("tulips?", "red", "and?", "no")}, None),
    ({"chosen": dialogue("ferns?", "green"), "rejected": dialogue("ferns?", "no")}, None),
    ({"chosen": dialogue("ferns?", "green"), "rejected": dialogue("moss?", "no")}, "prompts_differ"),
    ({"chosen": dialogue("ferns?", "green"), "rejected": dialogue("ferns?", "green ")}, "same_reply"),
    ({"chosen": dialogue("ferns?"), "rejected": dialogue("ferns?", "no")}, "no_dialogue"),
    ({"chosen": dialogue("ferns?", ""), "rejected": dialogue("ferns?", "no")}, "no_dialogue"),
    ({"chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "rejected": dialogue("a", "b")}, "no_dialogue"),
    ({"chosen": "green", "rejected": "no"}, "no_dialogue"),
    ({"chosen": dialogue("ferns?", "green")}, "missing_field"),
    ({"chosen": None, "rejected": dialogue("ferns?", "no")}, "missing_field"),
]


@pytest.fixture
def human(tmp_path: Path) -> HumanPairs:
    text = "\n".join(json.dumps(row) for row, _ in HUMAN_ROWS) + "\nno json\n"
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return human_preferences.read("garden", str(tmp_path / "test.jsonl.gz"))


def test_human_preferences_share_their_prompt_and_other_rows_are_counted(human: HumanPairs) -> None:
    assert human.rows == len(HUMAN_ROWS) + 1 == len(human.pairs) + sum(human.broken.values())
    assert human.broken == {"missing_field": 2, "no_dialogue": 4, "prompts_differ": 1, "same_reply": 1, "unreadable_json": 1}
    first = human.pairs.row(0, named=True)
    assert [(each["role"], each["content"]) for each in first["prompt"]] == [("user", "tulips?"), ("assistant", "red"), ("user", "and?")]
    assert (first["chosen"], first["rejected"]) == ("blue", "no")


def test_human_preferences_are_scored_under_no_persona_and_need_no_user(human: HumanPairs) -> None:
    rows = pl.concat([held_out_rows(held_out(2), 7), human_rows([human])])
    assert [message["role"] for message in reward_requests(rows, PersonaPlacement.SYSTEM)[-1].messages] == ["user", "assistant"]
    scores = reward_model_scores(rows, answered(rows, lambda row: row["chosen"] != "green"), [human], "m")
    found = scores.filter(pairs="garden").to_dicts()
    assert [(row["condition"], row["value"], row["n"], row["users"]) for row in found] == [("none", 0.5, 2, 2)]
    assert len(scores) == 4
    assert "data:image/png" in str(metadata.plot(drawing(scores)).value)


def test_a_location_without_pairs_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"chosen": "a", "rejected": "b"}\n')
    with pytest.raises(ValueError, match=r"garden: no row of .*x\.jsonl gives a pair"):
        human_preferences.read("garden", str(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(("file", "rows"), [("sample.jsonl", 1000), ("helpful-online.test.jsonl.gz", 1137)])
def test_published_human_preferences_are_read(file: str, rows: int) -> None:
    if not (HH / file).is_file():
        pytest.skip(f"no hh_rlhf/{file} beside the repository")
    found = human_preferences.read("hh", str(HH / file))
    assert found.rows == rows
    assert len(found.pairs) > 0.97 * rows
    for prompt in found.pairs["prompt"]:
        assert [message["role"] for message in prompt] == (["user", "assistant"] * len(prompt))[: len(prompt)]
        assert len(prompt) % 2 == 1


def test_a_small_backbone_is_called_small() -> None:
    trained = {"parameters": 1_100_000, "pairs": 1200, "model": {"name": "m", "revision": "r"}}
    assert "1.1 million parameters" in backbone(trained)
    assert "small" in backbone(trained)
    assert "small" not in backbone(trained | {"parameters": 8_000_000_000})
    assert backbone({"model": {"name": "hub/model", "revision": "abc"}}) == "Not trained here: hub/model at abc."
