"""What the persona does to the reward's order, and the check that warns where it does nothing."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from rlhi_dagster.base.tables import CANDIDATE_REWARDS
from rlhi_dagster.preferences.reward_order import (
    GENERIC_CORRELATION,
    MIN_REQUESTS,
    by_request,
    drawing,
    headline,
    reads_the_persona,
    reward_order,
)

UP, DOWN = (1.0, 2.0, 3.0), (3.0, 2.0, 1.0)


def rewards(shuffled: Sequence[Sequence[float | None]], own: Sequence[float] = UP, none: Sequence[float] | None = None) -> pl.DataFrame:
    """Three candidates of as many requests as ``shuffled`` has entries."""
    rows = [
        {
            "candidate_id": f"t{turn:03d}#{sample}",
            "condition": condition,
            "turn_id": f"t{turn:03d}",
            "month": "2023-04",
            "reward": values[sample],
        }
        | {"persona_user_id": None if condition == "none" else f"u{turn % 7}", "reward_model": "rm", "error": None, "call_id": None}
        for turn, given in enumerate(shuffled)
        for condition, values in (("own", own), ("shuffled", given), *([("none", none)] if none else []))
        for sample in range(3)
    ]
    return pl.DataFrame(rows, schema=CANDIDATE_REWARDS.schema)


def values(frame: pl.DataFrame, condition: str = "shuffled") -> dict[str, float]:
    return {row["quantity"]: row["value"] for row in reward_order(frame).filter(condition=condition).to_dicts()}


def test_the_same_order_and_the_opposite_one() -> None:
    assert values(rewards([(10.0, 20.0, 30.0)] * 4)) == {
        "spearman": pytest.approx(1.0),
        "best_changes": 0.0,
        "worst_changes": 0.0,
        "best_or_worst_changes": 0.0,
    }
    assert values(rewards([DOWN] * 4)) == {
        "spearman": pytest.approx(-1.0),
        "best_changes": 1.0,
        "worst_changes": 1.0,
        "best_or_worst_changes": 1.0,
    }


def test_best_and_worst_are_told_apart() -> None:
    best_moves, worst_moves = (1.0, 3.0, 2.0), (2.0, 1.0, 3.0)
    found = values(rewards([best_moves, best_moves, worst_moves, UP]))
    assert (found["best_changes"], found["worst_changes"], found["best_or_worst_changes"]) == (0.5, 0.25, 0.75)
    assert found["spearman"] == pytest.approx((0.5 + 0.5 + 0.5 + 1.0) / 4)


def test_equal_rewards_have_no_rank_correlation() -> None:
    flat = reward_order(rewards([(5.0, 5.0, 5.0)] * 4))
    assert flat["quantity"].to_list() == ["best_changes", "worst_changes", "best_or_worst_changes"]


def test_only_candidates_with_both_rewards_count() -> None:
    frame = rewards([(None, 2.0, 3.0), (None, None, 3.0)])
    assert by_request(frame)["turn_id"].to_list() == ["t000"]
    assert reward_order(rewards([])).is_empty()


def test_a_control_that_shows_the_same_persona_is_no_control() -> None:
    frame = rewards([DOWN, UP, UP], none=UP)
    is_alike = (pl.col("turn_id") != "t000") & (pl.col("condition") != "none")
    condition = pl.when(is_alike).then(pl.lit("any")).otherwise("condition")
    found = by_request(frame.with_columns(call_id=pl.format("{}-{}", "candidate_id", condition)))
    assert found.filter(condition="shuffled")["turn_id"].to_list() == ["t000"]
    assert found.filter(condition="none")["turn_id"].to_list() == ["t000", "t001", "t002"]


def test_both_controls_are_compared_and_intervals_are_by_user() -> None:
    order = reward_order(rewards([DOWN] * 7 + [UP] * 21, none=UP))
    assert headline(order) == {
        "spearman_own_none": pytest.approx(1.0),
        "spearman_own_shuffled": pytest.approx(0.5),
        "best_or_worst_changes_none": 0.0,
        "best_or_worst_changes_shuffled": 0.25,
    }
    assert order["users"].unique().to_list() == [7]


@pytest.mark.parametrize(
    ("opposite", "same", "passed"),
    [
        (1, MIN_REQUESTS - 1, True),
        (0, MIN_REQUESTS, False),
        (1, 39, False),
        (1, 38, True),
        (MIN_REQUESTS - 1, 0, False),
    ],
)
def test_a_reward_that_reads_no_persona_is_noticed(opposite: int, same: int, passed: bool) -> None:
    finding = reads_the_persona(reward_order(rewards([DOWN] * opposite + [UP] * same)))
    assert (finding.passed, finding.numbers["requests"]) == (passed, opposite + same)
    assert (finding.numbers["spearman_own_shuffled"] < GENERIC_CORRELATION) == (passed or opposite > same)


def test_no_rewards_do_not_pass() -> None:
    finding = reads_the_persona(reward_order(rewards([])))
    assert (finding.passed, finding.numbers["requests"], finding.numbers["spearman_own_shuffled"]) == (False, 0, None)


def test_the_drawing_has_a_panel_for_each_control() -> None:
    figure = drawing(rewards([UP] * 3 + [DOWN], none=UP))
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert [(bars[0], bars[-1], sum(bars)) for bars in heights] == [(0, 4, 4), (1, 3, 4)]
    assert [sum(bar.get_height() for bar in axes.patches) for axes in drawing(rewards([])).axes] == [0, 0]
