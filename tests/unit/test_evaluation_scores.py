"""Scores: intervals that cover, clusters that count, orders that are averaged, text that is broken."""

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.base.intervals import estimate, wilson
from rlhi_dagster.base.tables import EVAL_PROMPTS, JUDGEMENTS, RESPONSES, SCORES
from rlhi_dagster.evaluation import Metric
from rlhi_dagster.evaluation.scores import by_earlier_conversations, compare, comparisons, item_values, scores
from rlhi_dagster.training import recipes


def judgements(recipe: str, items: list[dict]) -> pl.DataFrame:
    """Two rows per item, one an order; ``verdicts`` are those of (recipe first, opponent first)."""
    rows = []
    for number, item in enumerate(items):
        for order, verdict in zip(("recipe_first", "opponent_first"), item.get("verdicts", ("tie", "tie")), strict=True):
            rows.append(
                dict.fromkeys(JUDGEMENTS.columns)
                | {"judgement_id": f"{recipe}{number}{order}", "recipe": recipe, "opponent": "base", "prompt_id": f"p{number}"}
                | {"benchmark": "user_eval", "user_id": item.get("user", f"u{number}"), "judge": "town", "order": order}
                | {"verdict": verdict, "preferences_met": item.get("met"), "is_malformed": item.get("malformed", False)}
            )
    return JUDGEMENTS.conform(pl.DataFrame(rows, schema=JUDGEMENTS.schema, orient="row"))


def responses(recipe: str, replies: list[str | None]) -> pl.DataFrame:
    rows = [
        dict.fromkeys(RESPONSES.columns)
        | {"response_id": f"{recipe}/p{item}", "recipe": recipe, "prompt_id": f"p{item}", "benchmark": "user_eval", "reply": reply}
        for item, reply in enumerate(replies)
    ]
    return RESPONSES.conform(pl.DataFrame(rows, schema=RESPONSES.schema, orient="row"))


def value(frame: pl.DataFrame, metric: str) -> dict:
    return frame.filter(metric=metric).row(0, named=True)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        rates = rng.beta(3, 3, size=60)
        found = estimate(rng.random((60, 4)).ravel() < np.repeat(rates, 4), np.repeat([f"u{i}" for i in range(60)], 4), is_share=True)
        covered += found.ci_low <= 0.5 <= found.ci_high
    assert 0.89 <= covered / 200 <= 0.99


def test_items_of_one_user_do_not_count_as_independent() -> None:
    values = np.repeat([0.0, 1.0] * 15, 8)
    clustered = estimate(values, np.repeat([f"u{i}" for i in range(30)], 8), is_share=True)
    single = estimate(values, [f"p{i}" for i in range(240)], is_share=True)
    assert clustered.value == single.value == 0.5
    assert clustered.n == single.n == 240
    assert clustered.ci_high - clustered.ci_low > 2 * (single.ci_high - single.ci_low)


def test_without_variation_a_share_gets_wilson_over_users_and_a_difference_nothing() -> None:
    users = [f"u{i // 5}" for i in range(50)]
    none_malformed = estimate([0.0] * 50, users, is_share=True)
    assert (none_malformed.ci_low, none_malformed.ci_high) == wilson(0.0, 10)
    assert none_malformed.ci_high == pytest.approx(0.2775, abs=1e-3)
    assert estimate([0.0] * 50, users, is_share=False).ci_low is None
    assert estimate([0.0, 1.0], ["u", "u"], is_share=True).ci_low == wilson(0.5, 2)[0]
    assert estimate([], [], is_share=True).value is None


def test_both_orders_are_averaged_before_items_are_counted() -> None:
    frame = judgements(
        "r",
        [{"verdicts": ("recipe", "opponent")}, {"verdicts": ("recipe", "recipe")}, {"verdicts": ("tie", None)}, {"verdicts": (None, None)}],
    )
    assert item_values(frame)["win_rate"].to_list() == [0.5, 1.0, 0.5, None]
    found = scores(frame, responses("r", ["x"] * 4))
    assert found.schema == SCORES.schema
    assert value(found, "win_rate")["n"] == 3
    assert value(found, "win_rate")["value"] == pytest.approx(2 / 3)
    # Only the first pair follows the order, of the two with both verdicts legible.
    assert (value(found, "position_bias")["value"], value(found, "position_bias")["n"]) == (0.5, 2)


def test_broken_text_meets_nothing() -> None:
    frame = judgements("r", [{"met": 1.0, "malformed": True}, {"met": 1.0}, {"met": 0.5}, {"met": 0.0, "malformed": None}])
    found = scores(frame, responses("r", ["x", "x", "x", None]))
    assert value(found, "preferences_met")["value"] == pytest.approx(1.5 / 4)
    assert value(found, "all_preferences_met")["value"] == pytest.approx(1 / 4)
    assert (value(found, "malformed")["value"], value(found, "malformed")["n"]) == (pytest.approx(1 / 3), 3)
    assert value(found, "error_rate")["value"] == 0.25
    assert value(found, "error_rate")["judge"] == "none"


def test_differences_to_the_base_are_paired_by_item() -> None:
    base = judgements("base", [{"met": i % 2 * 1.0} for i in range(20)])
    recipe = judgements("r", [{"met": 1.0 if i % 4 else 0.0} for i in range(20)])
    found = scores(pl.concat([base, recipe]), responses("r", ["x"] * 20), base)
    difference = value(found, "all_preferences_met_minus_base")
    assert (difference["recipe"], difference["value"], difference["n"]) == ("r", 0.25, 20)
    assert 0 <= difference["ci_low"] < 0.25 < difference["ci_high"]
    # The base is compared with itself only: no win rate, no difference.
    assert set(found.filter(recipe="base")["metric"]) == {"preferences_met", "all_preferences_met", "malformed"}
    assert scores(pl.concat([base, recipe]), responses("r", ["x"] * 20), base).equals(found)


def test_compare_uses_only_items_both_answered() -> None:
    left = judgements("l", [{"met": 1.0, "user": f"u{i // 2}"} for i in range(30)])
    right = judgements("r", [{"met": float(i % 3 == 0), "user": f"u{i // 2}"} for i in range(24)])
    found = compare({"l": left, "r": right}, "l", "r", Metric.ALL_PREFERENCES_MET)
    assert (found.n, found.users, found.difference) == (24, 12, pytest.approx(2 / 3))
    assert 0 < found.ci_low < found.ci_high <= 1
    assert found.minimum_detectable_effect > (found.ci_high - found.ci_low) / 2
    with pytest.raises(ValueError, match="no judgements of recipe x"):
        compare({"l": left}, "l", "x", Metric.WIN_RATE)


def test_comparisons_are_the_claims_whose_recipes_are_present() -> None:
    frames = [judgements(name, [{"met": float(i % 2)} for i in range(6)]) for name in ("base", "dpo_rewards", "dpo_rewards_user_agnostic")]
    found = comparisons(pl.concat(frames), recipes.comparisons(recipes.load_all()))
    assert found.select("left", "right").unique(maintain_order=True).rows() == [
        ("dpo_rewards", "base"),
        ("dpo_rewards", "dpo_rewards_user_agnostic"),
    ]
    assert found["metric"].to_list()[:4] == ["all_preferences_met", "preferences_met", "win_rate", "malformed"]
    assert comparisons(JUDGEMENTS.empty(), []).is_empty()


def test_a_pair_judged_twice_in_one_order_is_refused() -> None:
    frame = judgements("r", [{"met": 1.0}])
    with pytest.raises(ValueError, match="repeat a pair"):
        item_values(pl.concat([frame, frame]))


def test_empty_inputs_give_empty_scores() -> None:
    assert scores(JUDGEMENTS.empty(), RESPONSES.empty()).equals(SCORES.empty())


def test_items_are_grouped_by_the_history_of_their_user() -> None:
    earlier = [0, 1, 3, 7, 7, 12]
    rows = [
        dict.fromkeys(EVAL_PROMPTS.columns) | {"prompt_id": f"p{i}", "benchmark": "user_eval", "earlier_conversations": count}
        for i, count in enumerate(earlier)
    ]
    prompts = pl.DataFrame(rows, schema=EVAL_PROMPTS.schema, orient="row")
    found = by_earlier_conversations(judgements("r", [{"met": float(i > 2)} for i in range(6)]), prompts, Metric.PREFERENCES_MET)
    assert found.select("earlier_conversations", "value", "n").rows() == [
        ("0", 0.0, 1),
        ("1", 0.0, 1),
        ("2-4", 0.0, 1),
        ("5-9", 1.0, 2),
        ("10+", 1.0, 1),
    ]
