"""The rows that a result is told by: one metric and judge, the best recipe first, in words that fit."""

import polars as pl

from rlhi_dagster.base.tables import SCORES
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.headline import drawing, in_words, ranked


def scores(*rows: tuple[str, Metric, float | None, str]) -> pl.DataFrame:
    given = [
        dict.fromkeys(SCORES.columns)
        | {"recipe": recipe, "benchmark": Benchmark.USER_EVAL.value, "metric": metric.value, "value": value, "n": 40, "judge": judge}
        | ({"ci_low": value - 0.1, "ci_high": value + 0.1} if value is not None else {})
        for recipe, metric, value, judge in rows
    ]
    return pl.DataFrame(given, schema=SCORES.schema, orient="row")


def test_the_win_rate_leads_only_where_no_judge_can_tell_whether_preferences_are_met() -> None:
    rates = [
        ("a", Metric.WIN_RATE, 0.6, "j"),
        ("b", Metric.WIN_RATE, 0.7, "j"),
        ("b", Metric.WIN_RATE, 0.9, "k"),
        ("c", Metric.WIN_RATE, None, "j"),
    ]
    assert ranked(scores(*rates)).select("recipe", "judge").rows() == [("b", "j"), ("a", "j")]
    met = ranked(scores(*rates, ("a", Metric.ALL_PREFERENCES_MET, 0.25, "j")))
    assert met["metric"].to_list() == [Metric.ALL_PREFERENCES_MET.value]
    assert in_words(met).rows() == [("a", 25, "15–35", 40)]
    assert in_words(met).columns == ["recipe", "%", "95 %", "n"]
    assert ranked(scores()).is_empty()


def test_the_best_recipe_is_drawn_at_the_top() -> None:
    (axes,) = drawing(ranked(scores(("a", Metric.WIN_RATE, 0.6, "j"), ("b", Metric.WIN_RATE, 0.7, "j")))).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"], "from the bottom"
