"""From verdicts to numbers: scores per recipe, paired comparisons, and the curve over a user's history.

What belongs here: metrics over ``JUDGEMENTS`` and ``RESPONSES``. What does not: the interval method (``intervals``), judging
(``judges``) and drawing (``report``).

An item counts once: its two orders are averaged first, and ``n`` counts items. Users are the clusters of every interval; an
item without a user is its own cluster. A reply that is missing or broken meets no preference, however short it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from rlhi_dagster.base.intervals import Estimate, estimate
from rlhi_dagster.base.tables import SCORES
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.judges import Order, Verdict

NO_JUDGE = "none"
"""``SCORES.judge`` of what needs no judge."""

JUDGED_METRICS = (
    Metric.PREFERENCES_MET,
    Metric.ALL_PREFERENCES_MET,
    Metric.MALFORMED,
    Metric.ACCURACY,
    Metric.WIN_RATE,
    Metric.POSITION_BIAS,
)
_NEEDS_OPPONENT = (Metric.WIN_RATE, Metric.POSITION_BIAS)
_MINUS_BASE = {
    Metric.PREFERENCES_MET_MINUS_BASE: Metric.PREFERENCES_MET,
    Metric.ALL_PREFERENCES_MET_MINUS_BASE: Metric.ALL_PREFERENCES_MET,
}

COMPARED_METRICS = (Metric.ALL_PREFERENCES_MET, Metric.PREFERENCES_MET, Metric.WIN_RATE, Metric.MALFORMED, Metric.ACCURACY)

HISTORY_BUCKETS = (("0", 0, 0), ("1", 1, 1), ("2-4", 2, 4), ("5-9", 5, 9), ("10+", 10, None))
"""Earlier conversations of the user: label, from, to (inclusive)."""

_ITEM_KEYS = ("recipe", "opponent", "benchmark", "judge", "prompt_id")

COMPARISON_SCHEMA = {
    "left": pl.String(),
    "right": pl.String(),
    "benchmark": pl.String(),
    "metric": pl.String(),
    "judge": pl.String(),
    "difference": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "n": pl.Int64(),
    "users": pl.Int64(),
    "minimum_detectable_effect": pl.Float64(),
}
HISTORY_SCHEMA = {
    "recipe": pl.String(),
    "judge": pl.String(),
    "metric": pl.String(),
    "earlier_conversations": pl.String(),
    "value": pl.Float64(),
    "n": pl.Int64(),
    "users": pl.Int64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference between two recipes on the items both answered.

    Attributes:
        difference: Mean of left minus right over items; ``None`` without items.
        ci_low: Lower end of the 95 % interval; ``None`` where there is no variation to resample.
        ci_high: Upper end of the 95 % interval; ``None`` likewise.
        n: Items.
        users: Clusters.
        minimum_detectable_effect: Smallest true difference found with 80 % power; ``None`` where there is no interval.
    """

    difference: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    users: int
    minimum_detectable_effect: float | None


def item_values(judgements: pl.DataFrame) -> pl.DataFrame:
    """One row per recipe, opponent, benchmark, judge and item, both orders averaged, with one column per judged metric.

    A metric that does not apply to an item is null. ``cluster`` is the user, or the item where there is none.

    Raises:
        ValueError: A pair was judged twice in the same order by the same judge.
    """
    repeated = judgements.filter(pl.struct(*_ITEM_KEYS, "order").is_duplicated()).sort("judgement_id")
    if len(repeated):
        raise ValueError(f"{len(repeated)} judgements repeat a pair in the same order (first: {repeated['judgement_id'][0]})")
    verdict, malformed = pl.col("verdict"), pl.col("is_malformed").fill_null(False)
    won = (
        pl.when(verdict == Verdict.RECIPE.value)
        .then(1.0)
        .when(verdict == Verdict.TIE.value)
        .then(0.5)
        .when(verdict == Verdict.OPPONENT.value)
        .then(0.0)
    )
    is_first = (pl.col("order") == Order.RECIPE_FIRST.value) == (verdict == Verdict.RECIPE.value)
    position = pl.when(verdict == Verdict.TIE.value).then(0).when(verdict.is_not_null()).then(pl.when(is_first).then(1).otherwise(-1))
    met = pl.when(pl.col("preferences_met").is_not_null()).then(pl.when(malformed).then(0.0).otherwise("preferences_met"))
    return (
        judgements.with_columns(won=won, position=position, met=met)
        .group_by(*_ITEM_KEYS)
        .agg(
            pl.col("user_id").first().fill_null(pl.col("prompt_id").first()).alias("cluster"),
            pl.col("met").mean().alias(Metric.PREFERENCES_MET),
            (pl.col("met") >= 1 - 1e-9).cast(pl.Float64).mean().alias(Metric.ALL_PREFERENCES_MET),
            pl.col("is_malformed").cast(pl.Float64).mean().alias(Metric.MALFORMED),
            pl.col("is_correct").cast(pl.Float64).mean().alias(Metric.ACCURACY),
            pl.col("won").mean().alias(Metric.WIN_RATE),
            # Null unless both orders were judged legibly: with one alone, order and preference cannot be told apart.
            pl.when(pl.col("position").count() == 2)
            .then((pl.col("position").sum().abs() == 2).cast(pl.Float64))
            .alias(Metric.POSITION_BIAS),
        )
        .sort(*_ITEM_KEYS)
    )


def scores(judgements: pl.DataFrame, responses: pl.DataFrame, base_judgements: pl.DataFrame | None = None) -> pl.DataFrame:
    """Every metric that applies, per recipe, benchmark and judge.

    Metrics that need an opponent (win rate, position bias, differences to the base) are left out for the base: it is compared
    with itself only. A metric nobody could measure has no row.

    Args:
        judgements: ``JUDGEMENTS`` of one or more recipes.
        responses: ``RESPONSES`` of the same recipes.
        base_judgements: ``JUDGEMENTS`` of the base, for the paired differences; without it there are none.

    Returns:
        ``SCORES``.

    Raises:
        ValueError: A recipe was judged against several opponents by one judge.
    """
    items = item_values(judgements)
    base_items = None if base_judgements is None else item_values(base_judgements)
    rows = [*_error_rates(items, responses)]
    for (recipe, benchmark, judge), group in items.group_by("recipe", "benchmark", "judge", maintain_order=True):
        if group["opponent"].n_unique() > 1:
            raise ValueError(f"recipe {recipe}: judge {judge} compared it with {sorted(group['opponent'].unique())}; one is needed")
        key = {"recipe": recipe, "benchmark": benchmark, "judge": judge}
        is_self = group["opponent"][0] == recipe
        applicable = [metric for metric in JUDGED_METRICS if not (is_self and metric in _NEEDS_OPPONENT)]
        rows += [key | {"metric": metric.value} | _score(_mean(group, metric.value)) for metric in applicable]
        if base_items is not None and not is_self:
            for difference, metric in _MINUS_BASE.items():
                paired = _paired(group, base_items.filter(benchmark=benchmark, judge=judge), metric)
                rows.append(key | {"metric": difference.value} | _score(_mean(paired, "difference", is_share=False)))
    measured = [row for row in rows if row["n"]]
    return SCORES.conform(pl.DataFrame(measured, schema=SCORES.schema, orient="row") if measured else SCORES.empty())


def compare(
    judgements_by_recipe: Mapping[str, pl.DataFrame],
    left: str,
    right: str,
    metric: Metric,
    benchmark: str = Benchmark.USER_EVAL.value,
    judge: str | None = None,
) -> Comparison:
    """Left minus right on the items both answered, with an interval clustered by user.

    Args:
        judgements_by_recipe: ``JUDGEMENTS`` of each recipe.
        left: The recipe that should be better.
        right: The recipe it is compared with.
        metric: A judged metric; the win rates compared are those against the common opponent.
        benchmark: The items to compare on.
        judge: Whose verdicts; may be left out if there is only one judge.

    Raises:
        ValueError: A recipe has no judgements, or there are several judges and none was named.
    """
    for recipe in (left, right):
        if recipe not in judgements_by_recipe:
            raise ValueError(f"no judgements of recipe {recipe}; there are {sorted(judgements_by_recipe)}")
    sides = [item_values(judgements_by_recipe[recipe].filter(benchmark=benchmark)) for recipe in (left, right)]
    if judge is None:
        judges = sorted(set(sides[0]["judge"]) & set(sides[1]["judge"]))
        if len(judges) > 1:
            raise ValueError(f"{left} and {right} share the judges {judges} on {benchmark}: name one")
        sides = [side.filter(pl.col("judge").is_in(judges)) for side in sides]
    else:
        sides = [side.filter(judge=judge) for side in sides]
    found = _mean(_paired(sides[0], sides[1], metric), "difference", is_share=False)
    return Comparison(found.value, found.ci_low, found.ci_high, found.n, found.clusters, found.minimum_detectable_effect)


def comparisons(judgements: pl.DataFrame, claims: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """Paired differences between recipes that are present.

    Args:
        judgements: ``JUDGEMENTS`` of all recipes.
        claims: (should be better, compared with), as `training.recipes.comparisons` gives them.

    Returns:
        One row per claim, benchmark, judge and metric that both sides have: `Comparison` with its keys, in the order of ``claims``
        and `COMPARED_METRICS`.
    """
    items = item_values(judgements)
    groups = items.select("benchmark", "judge").unique().sort("benchmark", "judge").rows()
    rows = []
    for left, right in claims:
        for benchmark, judge in sorted(groups, key=lambda group: (group[0] != Benchmark.USER_EVAL, group)):
            of_judge = items.filter(benchmark=benchmark, judge=judge)
            for metric in COMPARED_METRICS:
                paired = _paired(of_judge.filter(recipe=left), of_judge.filter(recipe=right), metric)
                if paired.is_empty() or (metric is Metric.WIN_RATE and benchmark != Benchmark.USER_EVAL):
                    continue
                found = _mean(paired, "difference", is_share=False)
                rows.append(
                    {"left": left, "right": right, "benchmark": benchmark, "metric": metric.value, "judge": judge}
                    | {"difference": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high, "n": found.n}
                    | {"users": found.clusters, "minimum_detectable_effect": found.minimum_detectable_effect}
                )
    return pl.DataFrame(rows, schema=COMPARISON_SCHEMA)


def by_earlier_conversations(judgements: pl.DataFrame, prompts: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """A metric per recipe, judge and number of the user's earlier conversations: what a cold start costs.

    Args:
        judgements: ``JUDGEMENTS`` of all recipes; items outside ``user_eval`` are passed over.
        prompts: ``EVAL_PROMPTS``.
        metric: A judged metric.

    Returns:
        One row per recipe, judge and non-empty bucket of `HISTORY_BUCKETS`, in that order.
    """
    earlier = prompts.filter(benchmark=Benchmark.USER_EVAL.value).select("prompt_id", "earlier_conversations")
    items = item_values(judgements).join(earlier, on="prompt_id", how="inner")
    rows = []
    for (recipe, judge), group in items.group_by("recipe", "judge", maintain_order=True):
        for label, low, high in HISTORY_BUCKETS:
            count = pl.col("earlier_conversations")
            found = _mean(group.filter((count >= low) & (count <= high if high is not None else pl.lit(True))), metric.value)
            if found.n:
                rows.append(
                    {"recipe": recipe, "judge": judge, "metric": metric.value, "earlier_conversations": label}
                    | {"users": found.clusters}
                    | _score(found)
                )
    return pl.DataFrame(rows, schema=HISTORY_SCHEMA)


def _error_rates(items: pl.DataFrame, responses: pl.DataFrame) -> Iterator[dict[str, object]]:
    clusters = items.select("prompt_id", "cluster").unique("prompt_id")
    failed = responses.join(clusters, on="prompt_id", how="left").with_columns(
        cluster=pl.col("cluster").fill_null(pl.col("prompt_id")),
        failed=pl.col("reply").is_null().cast(pl.Float64),
    )
    for (recipe, benchmark), group in failed.sort("recipe", "prompt_id").group_by("recipe", "benchmark", maintain_order=True):
        key = {"recipe": recipe, "benchmark": benchmark, "judge": NO_JUDGE, "metric": Metric.ERROR_RATE.value}
        yield key | _score(_mean(group, "failed"))


def _paired(left: pl.DataFrame, right: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    name = metric.value
    other = right.select("benchmark", "judge", "prompt_id", pl.col(name).alias("other"))
    joined = left.join(other, on=["benchmark", "judge", "prompt_id"], how="inner", validate="1:1")
    return joined.select("prompt_id", "cluster", difference=pl.col(name) - pl.col("other")).drop_nulls("difference").sort("prompt_id")


def _mean(items: pl.DataFrame, column: str, *, is_share: bool = True) -> Estimate:
    known = items.select("cluster", column).drop_nulls(column)
    return estimate(known[column], known["cluster"], is_share=is_share)


def _score(found: Estimate) -> dict[str, object]:
    return {"value": found.value, "n": found.n, "ci_low": found.ci_low, "ci_high": found.ci_high}
