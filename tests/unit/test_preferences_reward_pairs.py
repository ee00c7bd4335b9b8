"""Best against worst candidate: ranking, ties, length penalty, margins, and that no request is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.base.tables import CANDIDATE_REWARDS, CANDIDATES, REWARD_PAIRS
from rlhi_dagster.preferences.pair_checks import requests_are_accounted_for
from rlhi_dagster.preferences.reward_pairs import CONDITIONS, reward_pairs
from rlhi_dagster.preferences.settings import CandidateSettings

NOON = datetime(2023, 4, 2, 12, tzinfo=UTC)
PROMPT = [{"role": "user", "content": "ask"}]
Replies = list[tuple[str | None, float | None]]
"""Text and reward of each sample; the same reward under every condition."""


def settings(**given: Any) -> CandidateSettings:
    return CandidateSettings(**{"count": 4, "min_margin": 0.0, "with_persona_only": False, **given})


def sampled(**requests: Replies) -> pl.DataFrame:
    rows = [
        {"candidate_id": f"{turn}#{index}", "turn_id": turn, "user_id": f"u-{turn}", "month": "2023-04", "asked_at": NOON, "prompt": PROMPT}
        | {
            "sample_index": index,
            "reply": text,
            "error": None if text is not None else "prompt_too_long: 9",
            "persona": f"- {turn} likes it.",
        }
        | {"persona_line_ids": [f"p-{turn}"], "model": "m", "call_id": f"c-{turn}{index}"}
        for turn, replies in requests.items()
        for index, (text, _) in enumerate(replies)
    ]
    return pl.DataFrame(rows, schema=CANDIDATES.schema)


def rewarded(conditions: tuple[str, ...] = CONDITIONS, **requests: Replies) -> pl.DataFrame:
    rows = [
        {"candidate_id": f"{turn}#{index}", "condition": condition, "turn_id": turn, "month": "2023-04", "reward": reward}
        | {"persona_user_id": None, "error": None if reward is not None else "too_long: 9", "reward_model": "rm"}
        | {"call_id": f"r-{turn}{index}-{condition}"}
        for turn, replies in requests.items()
        for index, (text, reward) in enumerate(replies)
        if text is not None
        for condition in conditions
    ]
    return pl.DataFrame(rows, schema=CANDIDATE_REWARDS.schema)


def own(replies: Replies, **given: Any) -> list[dict[str, Any]]:
    """The pairs of one request under its own persona, best against worst first."""
    found = reward_pairs(sampled(a=replies), rewarded(a=replies), settings(**given))
    rows = found.filter(condition="own").sort("chosen_reward", descending=True, nulls_last=True)
    return rows.to_dicts()


def test_best_against_worst() -> None:
    (pair,) = own([("a", 0.0), ("b", 2.0), ("c", -1.5)])
    assert (pair["chosen"], pair["rejected"], pair["chosen_reward"], pair["rejected_reward"]) == ("b", "c", 2.0, -1.5)
    assert (pair["chosen_id"], pair["rejected_id"], pair["is_kept"], pair["drop_reasons"]) == ("a#1", "a#2", True, [])
    assert pair["call_ids"] == ["c-a1", "c-a2", "r-a1-own", "r-a2-own"]
    assert (pair["persona"], pair["persona_line_ids"]) == ("- a likes it.", ["p-a"])


def test_second_best_against_second_worst_while_replies_are_left() -> None:
    found = own([("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0), ("e", 0.0)], pairs_per_request=3)
    assert [(pair["chosen"], pair["rejected"]) for pair in found] == [("a", "e"), ("b", "d")]
    assert len({pair["pair_id"] for pair in found}) == 2


@pytest.mark.parametrize(("least", "reasons"), [(1.0, []), (1.01, ["margin_too_small"])])
def test_a_small_margin_drops_the_pair(least: float, reasons: list[str]) -> None:
    (pair,) = own([("a", 0.0), ("b", 1.0)], min_margin=least)
    assert (pair["drop_reasons"], pair["is_kept"]) == (reasons, not reasons)
    assert (pair["chosen"], pair["rejected"]) == ("b", "a"), "a dropped pair keeps its sides"


def test_the_length_penalty_ranks_and_the_rewards_stay_as_they_were() -> None:
    long, short = "x" * 1_000, "y" * 500
    replies: Replies = [(long, 1.2), (short, 1.0), ("z", 0.0)]
    assert [pair["chosen"] for pair in own(replies)] == [long]
    (pair,) = own(replies, length_penalty=0.5)
    assert (pair["chosen"], pair["chosen_reward"], pair["rejected"]) == (short, 1.0, "z")


def test_the_margin_is_of_the_penalised_rewards() -> None:
    replies: Replies = [("x" * 1_000, 1.0), ("y" * 3_000, 0.0)]
    assert own(replies, min_margin=2.5)[0]["drop_reasons"] == ["margin_too_small"]
    assert own(replies, min_margin=2.5, length_penalty=1.0)[0]["drop_reasons"] == []


def test_of_equal_rewards_the_shorter_or_the_first_is_better() -> None:
    replies: Replies = [("middle", 1.0), ("a long reply", 1.0), ("short", 1.0)]
    (shorter,), (first,) = own(replies, ties="shorter"), own(replies, ties="first")
    assert (shorter["chosen"], shorter["rejected"]) == ("short", "a long reply")
    assert (first["chosen"], first["rejected"]) == ("middle", "short")


def test_the_first_sampled_is_told_by_number() -> None:
    (pair,) = own([(f"{number:02d}", 1.0) for number in range(12)], ties="first")
    assert (pair["chosen_id"], pair["rejected_id"]) == ("a#0", "a#11"), "not by the candidate id as text"


@pytest.mark.parametrize("replies", [[("a", 1.0), ("a", 1.0)], [("a", 1.0), (None, None)], [("a", 1.0), ("b", None)], [(None, None)] * 2])
def test_requests_without_two_distinct_scored_replies_stay_as_dropped_rows(replies: Replies) -> None:
    found = reward_pairs(sampled(a=replies), rewarded(a=replies), settings(pairs_per_request=3))
    assert found.schema == REWARD_PAIRS.schema
    assert sorted(found["condition"]) == sorted(CONDITIONS)
    for row in found.to_dicts():
        assert (row["drop_reasons"], row["is_kept"]) == (["too_few_replies"], False)
        assert (row["chosen"], row["rejected"], row["chosen_id"], row["chosen_reward"], row["call_ids"]) == ("", "", None, None, [])
        assert (row["user_id"], row["persona"], row["model"]) == ("u-a", "- a likes it.", "m")


def test_nobody_elses_persona_is_a_reason_of_its_own() -> None:
    replies: Replies = [("a", 1.0), ("b", 0.0)]
    found = reward_pairs(sampled(a=replies), rewarded(("own", "none"), a=replies), settings())
    assert dict(found.select("condition", "drop_reasons").iter_rows()) == {"own": [], "none": [], "shuffled": ["no_other_user"]}


def test_identical_replies_count_once_as_the_first_of_them() -> None:
    (pair,) = own([("a", 1.0), ("b", 0.0), ("b", 0.0), ("a", 1.0)], pairs_per_request=2)
    assert (pair["chosen_id"], pair["rejected_id"]) == ("a#0", "a#1")


def test_ids_stay_and_tell_conditions_apart() -> None:
    given: dict[str, Replies] = {name: [("a", 1.0), ("b", 0.0), ("c", 0.5)] for name in ("x", "y", "z")}
    drawn, scored = sampled(**given), rewarded(**given)
    found = reward_pairs(drawn, scored, settings())
    assert found["pair_id"].n_unique() == len(found) == 9
    assert found.equals(reward_pairs(drawn.reverse(), scored.reverse(), settings()))
    assert set(found["user_id"]) == {"u-x", "u-y", "u-z"}
    assert reward_pairs(CANDIDATES.empty(), CANDIDATE_REWARDS.empty(), settings()).equals(REWARD_PAIRS.empty())


_REPLY = st.tuples(st.one_of(st.none(), st.text("ab", min_size=1, max_size=3)), st.one_of(st.none(), st.integers(-3, 3).map(float)))


@given(
    requests=st.dictionaries(st.sampled_from("pqrs"), st.lists(_REPLY, min_size=1, max_size=6), min_size=1),
    most=st.integers(1, 3),
    penalty=st.sampled_from([0.0, 500.0]),
    ties=st.sampled_from(["shorter", "first"]),
)
def test_every_request_is_accounted_for_and_the_better_side_is_never_worse(
    requests: dict[str, Replies], most: int, penalty: float, ties: str
) -> None:
    drawn, scored = sampled(**requests), rewarded(**requests)
    found = reward_pairs(drawn, scored, settings(pairs_per_request=most, length_penalty=penalty, ties=ties, min_margin=0.5))
    assert requests_are_accounted_for(found.lazy(), drawn.lazy()).passed
    assert not found["pair_id"].is_duplicated().any()
    for row in found.to_dicts():
        if row["chosen_id"] is None:
            continue
        chosen, rejected = (row[f"{side}_reward"] - penalty * len(row[side]) / 1_000 for side in ("chosen", "rejected"))
        assert row["chosen"] != row["rejected"]
        assert chosen >= rejected
        assert row["is_kept"] == (chosen - rejected >= 0.5)
    used = found.drop_nulls("chosen_id").unpivot(["chosen_id", "rejected_id"], index=["condition"])
    assert not used.select("condition", "value").is_duplicated().any(), "no candidate is in two pairs of a condition"


def test_a_request_that_is_missing_or_made_up_is_noticed() -> None:
    given: dict[str, Replies] = {name: [("a", 1.0), ("b", 0.0)] for name in ("x", "y")}
    drawn = sampled(**given)
    found = reward_pairs(drawn, rewarded(**given), settings())
    whole = requests_are_accounted_for(found.lazy(), drawn.lazy())
    assert (whole.passed, whole.numbers) == (True, {"requests": 2, "missing_pairs": 0, "unknown_requests": 0})
    lost = requests_are_accounted_for(found.filter(~((pl.col("turn_id") == "x") & (pl.col("condition") == "none"))).lazy(), drawn.lazy())
    assert (lost.passed, lost.numbers["missing_pairs"]) == (False, 1)
    made_up = requests_are_accounted_for(found.lazy(), drawn.filter(turn_id="x").lazy())
    assert (made_up.passed, made_up.numbers["unknown_requests"]) == (False, 1)
    assert not requests_are_accounted_for(REWARD_PAIRS.empty().lazy(), drawn.lazy()).passed
