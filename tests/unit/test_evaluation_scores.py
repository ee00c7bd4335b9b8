"""Scores: intervals that cover, clusters that count, orders that are averaged, text that is broken."""

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.base.intervals import estimate, holm, wilson
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
                | {
                    "benchmark": "user_eval",
                    "user_id": item.get("user", f"u{number}"),
                    "judge": "town",
                    "criterion": "overall",
                    "order": order,
                }
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
    found = compare(pl.concat([left, right]), "l", "r", Metric.ALL_PREFERENCES_MET)
    assert (found.n, found.users, found.difference) == (24, 12, pytest.approx(2 / 3))
    assert 0 < found.ci_low < found.ci_high <= 1
    assert found.minimum_detectable_effect > (found.ci_high - found.ci_low) / 2
    with pytest.raises(ValueError, match="no judgements of recipe x"):
        compare(left, "l", "x", Metric.WIN_RATE)
    with pytest.raises(ValueError, match="no judge hers of both l and r on user_eval; there is town"):
        compare(pl.concat([left, right]), "l", "r", Metric.WIN_RATE, judge="hers")


def test_p_values_are_corrected_over_the_claims_of_a_family() -> None:
    rng, rates = np.random.default_rng(1), {"a": 0.9, "b": 0.4, "c": 0.7}
    frames = [judgements(name, [{"met": float(rng.random() < rate)} for _ in range(60)]) for name, rate in rates.items()]
    claims = [("a", "b", "one"), ("a", "c", "one"), ("b", "c", "two")]
    found = comparisons(pl.concat(frames), claims).filter(metric="all_preferences_met")
    assert found["p_holm"].to_list() == [*holm(found["p_value"].to_list()[:2]), found["p_value"][2]]
    assert found["p_holm"].min() == found["p_holm"][0] == 2 * found["p_value"][0]
    assert found["effect_size"][0] == pytest.approx(found["difference"][0] / np.std(_differences(frames), ddof=1))


def _differences(frames: list[pl.DataFrame]) -> np.ndarray:
    left, right = (frame.filter(order="recipe_first").sort("prompt_id")["preferences_met"].to_numpy() for frame in frames[:2])
    return left - right


def test_a_comparison_without_enough_items_says_so() -> None:
    def said(users: int, each: int) -> str | None:
        rng = np.random.default_rng(2)
        sides = [
            judgements(name, [{"met": float(rng.random() < 0.5), "user": f"u{i // each}"} for i in range(users * each)]) for name in "lr"
        ]
        return compare(pl.concat(sides), "l", "r", Metric.ALL_PREFERENCES_MET).remark

    assert said(4, 10) == "too few: only 4 independent users or items"
    assert said(20, 2).startswith("too few items: a difference under 0.")
    assert said(400, 10) is None
    frame, base = (judgements(name, [{"met": float(i % rest == 0)} for i in range(4)]) for name, rest in (("r", 2), ("base", 3)))
    assert set(scores(frame, responses("r", ["x"] * 4), base)["remark"]) == {"too few: only 4 independent users or items"}


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


def test_what_vanishes_under_another_users_persona_is_the_personal_part() -> None:
    """Of ten users: base meets 0.2 whatever it is shown; the recipe 0.8 under the own persona, 0.5 under another's."""

    def asked(recipe: str, met: dict[str, float], wins: dict[str, tuple[str, str]]) -> pl.DataFrame:
        of = [judgements(recipe, [{"met": met[name], "verdicts": wins[name]} for _ in range(10)]) for name in met]
        names = [pl.lit(name) for name in met]
        return pl.concat(
            frame.with_columns(
                benchmark=name, prompt_id=pl.concat_str(name, pl.lit(":"), "prompt_id"), judgement_id=pl.concat_str(name, "judgement_id")
            )
            for name, frame in zip(names, of, strict=True)
        )

    ties, won, one_each = ("tie", "tie"), ("recipe", "recipe"), ("recipe", "opponent")
    base = asked("base", {"user_eval": 0.2, "user_eval_shuffled": 0.2}, {"user_eval": ties, "user_eval_shuffled": ties})
    mine = asked("r", {"user_eval": 0.8, "user_eval_shuffled": 0.5}, {"user_eval": won, "user_eval_shuffled": one_each})
    found = scores(mine, RESPONSES.empty(), base)
    assert value(found, "personal_preferences_met")["value"] == pytest.approx(0.3)
    assert value(found, "personal_win_rate")["value"] == pytest.approx(0.5)
    assert value(found, "personal_win_rate")["n"] == 10
    assert value(found, "personal_win_rate")["benchmark"] == "user_eval"
    claims = comparisons(pl.concat([mine, base]), [("r", "base", "family")])
    assert set(claims["benchmark"]) == {"user_eval"}, "no claim is made on items that explain"


def test_the_cold_start_curve_is_on_the_same_items() -> None:
    of = {0: 0.25, 1: 0.5, 10: 1.0}
    frames = [
        judgements("r", [{"met": met}] * 6).with_columns(
            benchmark=pl.lit(f"user_eval_after_{known}"), judgement_id=pl.concat_str("judgement_id", pl.lit(str(known)))
        )
        for known, met in of.items()
    ]
    found = by_earlier_conversations(pl.concat(frames), EVAL_PROMPTS.empty(), Metric.PREFERENCES_MET)
    assert found.select("earlier_conversations", "value", "n").rows() == [("0", 0.25, 6), ("1", 0.5, 6), ("10", 1.0, 6)]
