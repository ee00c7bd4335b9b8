"""From verdicts to numbers: scores per recipe, paired comparisons, and the curve over a user's history.

What belongs here: metrics over ``JUDGEMENTS`` and ``RESPONSES``. What does not: the interval method (``intervals``), what a comparison can
find (``power``), judging (``judges``) and drawing (``report``).

An item counts once: its two orders are averaged first, and ``n`` counts items. Users are the clusters of every interval; an
item without a user is its own cluster. A reply that is missing or broken meets no preference, however short it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from rlhi_dagster.base.intervals import Estimate, estimate, holm
from rlhi_dagster.base.tables import SCORES
from rlhi_dagster.evaluation import COLD_START, CONDITIONS, OF_USERS, Benchmark, Criterion, Metric
from rlhi_dagster.evaluation.judge_quality import judged_pairs
from rlhi_dagster.evaluation.judges import Order, Verdict
from rlhi_dagster.evaluation.length_bias import fit
from rlhi_dagster.evaluation.power import Spread, remark, spread, told

NO_JUDGE = "none"
"""``SCORES.judge`` of what needs no judge."""

JUDGED_METRICS = (
    Metric.PREFERENCES_MET,
    Metric.ALL_PREFERENCES_MET,
    Metric.MALFORMED,
    Metric.ACCURACY,
    Metric.WIN_RATE,
    Metric.WIN_RATE_PERSONALIZATION,
    Metric.WIN_RATE_INSTRUCTION_FOLLOWING,
    Metric.POSITION_BIAS,
)
_WINS = {
    Metric.WIN_RATE: Criterion.OVERALL,
    Metric.WIN_RATE_PERSONALIZATION: Criterion.PERSONALIZATION,
    Metric.WIN_RATE_INSTRUCTION_FOLLOWING: Criterion.INSTRUCTION_FOLLOWING,
}
_NEEDS_OPPONENT = (*_WINS, Metric.POSITION_BIAS)
_MINUS_BASE = {
    Metric.PREFERENCES_MET_MINUS_BASE: Metric.PREFERENCES_MET,
    Metric.ALL_PREFERENCES_MET_MINUS_BASE: Metric.ALL_PREFERENCES_MET,
}

COMPARED_METRICS = (Metric.ALL_PREFERENCES_MET, Metric.PREFERENCES_MET, Metric.WIN_RATE, Metric.ACCURACY, Metric.MALFORMED)
"""What comparisons are made in; the first of them that a benchmark has is what it is about."""

HISTORY_BUCKETS = (("0", 0, 0), ("1", 1, 1), ("2-4", 2, 4), ("5-9", 5, 9), ("10+", 10, None))
"""Earlier conversations of the user, where nobody has a long history: label, from, to (inclusive)."""

_ITEM_KEYS = ("recipe", "opponent", "benchmark", "judge", "prompt_id")

COMPARISON_SCHEMA = {
    "left": pl.String(),
    "right": pl.String(),
    "family": pl.String(),
    "benchmark": pl.String(),
    "metric": pl.String(),
    "judge": pl.String(),
    "difference": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "n": pl.Int64(),
    "users": pl.Int64(),
    "effect_size": pl.Float64(),
    "minimum_detectable_effect": pl.Float64(),
    "p_value": pl.Float64(),
    "p_holm": pl.Float64(),
    "remark": pl.String(),
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
        ci_low: Lower end of the 95 % interval; ``None`` where nothing varies.
        ci_high: Upper end of the 95 % interval; ``None`` likewise.
        n: Items.
        users: Clusters.
        effect_size: The difference in standard deviations of items' differences (Cohen's d of pairs); ``None`` where nothing varies.
        minimum_detectable_effect: Smallest true difference found with 80 % power; ``None`` where there is no interval.
        p_value: Two-sided, of this comparison alone; ``None`` likewise.
        remark: Why the comparison says little, too few items for one; ``None`` if nothing is to be said.
    """

    difference: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    users: int
    effect_size: float | None
    minimum_detectable_effect: float | None
    p_value: float | None
    remark: str | None


def item_values(judgements: pl.DataFrame) -> pl.DataFrame:
    """One row per recipe, opponent, benchmark, judge and item, both orders averaged, with one column per judged metric.

    All but the two win rates of a single criterion are of the criterion `overall`.
    A metric that does not apply to an item is null. ``cluster`` is the user, or the item where there is none.

    Raises:
        ValueError: A pair was judged twice in the same order by the same judge.
    """
    repeated = judgements.filter(pl.struct(*_ITEM_KEYS, "order", "criterion").is_duplicated()).sort("judgement_id")
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
    asked = pl.col("criterion")
    overall = asked == Criterion.OVERALL.value
    return (
        judgements.with_columns(won=won, position=pl.when(overall).then(position), met=met)
        .group_by(*_ITEM_KEYS)
        .agg(
            pl.col("user_id").first().fill_null(pl.col("prompt_id").first()).alias("cluster"),
            pl.col("met").mean().alias(Metric.PREFERENCES_MET),
            (pl.col("met") >= 1 - 1e-9).cast(pl.Float64).mean().alias(Metric.ALL_PREFERENCES_MET),
            pl.col("is_malformed").cast(pl.Float64).mean().alias(Metric.MALFORMED),
            pl.col("is_correct").cast(pl.Float64).mean().alias(Metric.ACCURACY),
            *(pl.col("won").filter(asked == criterion.value).mean().alias(metric) for metric, criterion in _WINS.items()),
            # Null unless both orders were judged legibly: with one alone, order and preference cannot be told apart.
            pl.when(pl.col("position").count() == 2)
            .then((pl.col("position").sum().abs() == 2).cast(pl.Float64))
            .alias(Metric.POSITION_BIAS),
        )
        .sort(*_ITEM_KEYS)
    )


def scores(
    judgements: pl.DataFrame,
    responses: pl.DataFrame,
    base_judgements: pl.DataFrame | None = None,
    failed: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Every metric that applies, per recipe, benchmark and judge.

    Metrics that need an opponent (win rate, position bias, differences to the base) are left out for the base: it is compared
    with itself only. A metric nobody could measure has no row.

    Args:
        judgements: ``JUDGEMENTS`` of one or more recipes.
        responses: ``RESPONSES`` of the same recipes.
        base_judgements: ``JUDGEMENTS`` of the base, for the paired differences; without it there are none.
        failed: By judge, why its numbers are not to be believed; said beside each of them.

    Returns:
        ``SCORES``.

    Raises:
        ValueError: A recipe was judged against several opponents by one judge.
    """
    items = item_values(judgements)
    base_items = None if base_judgements is None else item_values(base_judgements)
    rows = [*_error_rates(items, responses), *_at_equal_length(judgements), *_personal(items, base_items)]
    for (recipe, benchmark, judge), group in items.group_by("recipe", "benchmark", "judge", maintain_order=True):
        if group["opponent"].n_unique() > 1:
            raise ValueError(f"recipe {recipe}: judge {judge} compared it with {sorted(group['opponent'].unique())}; one is needed")
        key = {"recipe": recipe, "benchmark": benchmark, "judge": judge}
        is_self = group["opponent"][0] == recipe
        applicable = [metric for metric in JUDGED_METRICS if not (is_self and metric in _NEEDS_OPPONENT)]
        rows += [key | {"metric": metric.value} | told(_mean(group, metric.value)) for metric in applicable]
        if base_items is not None and not is_self:
            for difference, metric in _MINUS_BASE.items():
                paired = _paired(group, base_items.filter(benchmark=benchmark, judge=judge), metric)
                rows.append(key | {"metric": difference.value} | told(_mean(paired, "difference", is_share=False), is_difference=True))
    measured = [row for row in rows if row["n"]]
    for row in measured:
        row["remark"] = "; ".join(filter(None, ((failed or {}).get(row["judge"]), row["remark"]))) or None
    return SCORES.conform(pl.DataFrame(measured, schema=SCORES.schema, orient="row") if measured else SCORES.empty())


def compare(
    judgements: pl.DataFrame,
    left: str,
    right: str,
    metric: Metric,
    benchmark: str = Benchmark.USER_EVAL.value,
    judge: str | None = None,
) -> Comparison:
    """Left minus right on the items both answered, with an interval clustered by user.

    Args:
        judgements: ``JUDGEMENTS`` of both recipes.
        left: The recipe that should be better.
        right: The recipe it is compared with.
        metric: A judged metric; the win rates compared are those against the common opponent.
        benchmark: The items to compare on.
        judge: Whose verdicts; may be left out if there is only one judge.

    Raises:
        ValueError: A recipe has no judgements, the judge judged nothing, or there are several judges and none was named.
    """
    sides = []
    for recipe in (left, right):
        mine = judgements.filter(recipe=recipe, benchmark=benchmark)
        if mine.is_empty():
            there = sorted(judgements.filter(benchmark=benchmark)["recipe"].unique())
            raise ValueError(f"no judgements of recipe {recipe} on {benchmark}; there are {', '.join(there) or 'none of any recipe'}")
        sides.append(mine)
    judges = sorted(set(sides[0]["judge"]) & set(sides[1]["judge"]))
    if judge is None and len(judges) > 1:
        raise ValueError(f"{left} and {right} share the judges {', '.join(judges)} on {benchmark}: name one")
    if judge is not None and judge not in judges:
        raise ValueError(f"no judge {judge} of both {left} and {right} on {benchmark}; there is {', '.join(judges) or 'none'}")
    left_items, right_items = (item_values(side.filter(pl.col("judge").is_in(judges if judge is None else [judge]))) for side in sides)
    return _comparison(_paired(left_items, right_items, metric))


def comparisons(judgements: pl.DataFrame, claims: Sequence[tuple[str, str, str]]) -> pl.DataFrame:
    """Paired differences between recipes that are present.

    P-values are corrected by Holm's method over the claims of a family that are made on one benchmark, metric and judge.

    Args:
        judgements: ``JUDGEMENTS`` of all recipes.
        claims: (should be better, compared with, family), as `training.recipes.comparisons` gives them.

    Returns:
        One row per claim, benchmark, judge and metric that both sides have: `Comparison` with its keys and ``p_holm``, in the order of
        ``claims`` and `COMPARED_METRICS`.
    """
    rows = [
        {"left": left, "right": right, "family": family, "benchmark": benchmark, "metric": metric.value, "judge": judge}
        | asdict(_comparison(paired))
        | {"p_holm": None}
        for (left, right, family), benchmark, judge, metric, paired in _claimed(judgements, claims)
    ]
    families: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(tuple(row[name] for name in ("family", "benchmark", "metric", "judge")), []).append(row)
    for family in families.values():
        for row, adjusted in zip(family, holm([row["p_value"] for row in family]), strict=True):
            row["p_holm"] = adjusted
    return pl.DataFrame(rows, schema=COMPARISON_SCHEMA)


def spreads(judgements: pl.DataFrame, claims: Sequence[tuple[str, str, str]]) -> dict[str, tuple[Metric, Spread]]:
    """How differences vary, by benchmark: of the first metric and judge that there are, the mean over the claims.

    Args:
        judgements: ``JUDGEMENTS`` of all recipes.
        claims: As in `comparisons`.
    """
    found: dict[str, dict[tuple[Metric, str], list[Spread]]] = {}
    for _, benchmark, judge, metric, paired in _claimed(judgements, claims):
        if one := spread(paired["difference"], paired["cluster"]):
            found.setdefault(benchmark, {}).setdefault((metric, judge), []).append(one)
    measured = {}
    for benchmark, cells in found.items():
        (metric, _), each = next(iter(cells.items()))
        variance = sum(one.variance for one in each) / len(each)
        measured[benchmark] = (metric, Spread(variance, sum(one.correlation for one in each) / len(each)))
    return measured


def by_earlier_conversations(judgements: pl.DataFrame, prompts: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """A metric per recipe, judge and number of the user's earlier conversations: what a cold start costs.

    Where users have a long history it is on the same requests of the same users, as if only k of their conversations were known
    (`COLD_START`). Where nobody has, users with shorter and with longer histories stand beside each other, who differ in more than that.

    Args:
        judgements: ``JUDGEMENTS`` of all recipes; items outside UserEval are passed over.
        prompts: ``EVAL_PROMPTS``.
        metric: A judged metric.

    Returns:
        One row per recipe, judge and k, or non-empty bucket of `HISTORY_BUCKETS`, in that order.
    """
    known = [(str(count), judgements.filter(benchmark=benchmark.value)) for count, benchmark in COLD_START.items()]
    if any(len(rows) for _, rows in known):
        strata = [(label, item_values(rows)) for label, rows in known]
    else:
        strata = _by_history(judgements, prompts)
    rows = []
    for recipe, judge in pl.concat(items.select("recipe", "judge") for _, items in strata).unique().sort("recipe", "judge").rows():
        for label, items in strata:
            found = _mean(items.filter(recipe=recipe, judge=judge), metric.value)
            if found.n:
                rows.append(
                    {"recipe": recipe, "judge": judge, "metric": metric.value, "earlier_conversations": label}
                    | {name: part for name, part in told(found).items() if name in HISTORY_SCHEMA}
                )
    return pl.DataFrame(rows, schema=HISTORY_SCHEMA)


def _by_history(judgements: pl.DataFrame, prompts: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Values of items by the number of conversations that their users had had."""
    earlier = prompts.filter(benchmark=Benchmark.USER_EVAL.value).select("prompt_id", "earlier_conversations")
    items = item_values(judgements).join(earlier, on="prompt_id", how="inner")
    count = pl.col("earlier_conversations")
    within = {label: (count >= low) & (count <= high if high is not None else pl.lit(True)) for label, low, high in HISTORY_BUCKETS}
    return [(label, items.filter(is_within)) for label, is_within in within.items()]


def _claimed(
    judgements: pl.DataFrame, claims: Sequence[tuple[str, str, str]]
) -> Iterator[tuple[tuple[str, str, str], str, str, Metric, pl.DataFrame]]:
    """Each claim with benchmark, judge, metric and the paired differences, where both recipes have some."""
    items = item_values(judgements.filter(~pl.col("benchmark").is_in([each.value for each in CONDITIONS])))
    groups = items.select("benchmark", "judge").unique().sort("benchmark", "judge").rows()
    for claim in claims:
        for benchmark, judge in sorted(groups, key=lambda group: (group[0] != Benchmark.USER_EVAL, group)):
            of_judge = items.filter(benchmark=benchmark, judge=judge)
            for metric in COMPARED_METRICS:
                paired = _paired(of_judge.filter(recipe=claim[0]), of_judge.filter(recipe=claim[1]), metric)
                if not (paired.is_empty() or (metric is Metric.WIN_RATE and benchmark not in OF_USERS)):
                    yield claim, benchmark, judge, metric, paired


def _comparison(paired: pl.DataFrame) -> Comparison:
    found = _mean(paired, "difference", is_share=False)
    deviation = paired["difference"].std()
    effect = found.value / deviation if found.value is not None and isinstance(deviation, float) and deviation > 0 else None
    numbers = (found.value, found.ci_low, found.ci_high, found.n, found.clusters, effect, found.minimum_detectable_effect)
    return Comparison(*numbers, found.p_value, remark(found, is_difference=True))


def _at_equal_length(judgements: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """What recipes would win of users' requests if the replies were as long as the base's."""
    asked = pl.col("benchmark").is_in([each.value for each in OF_USERS]) & (pl.col("criterion") == Criterion.OVERALL.value)
    sized = judged_pairs(judgements.filter(asked)).filter(pl.col("doublings").is_not_null())
    for (recipe, benchmark, judge), group in sized.sort("recipe", "benchmark", "judge", "prompt_id").group_by(
        "recipe", "benchmark", "judge", maintain_order=True
    ):
        if found := fit(group["won"], group["doublings"], group["cluster"]):
            key = {"recipe": recipe, "benchmark": benchmark, "judge": judge, "metric": Metric.LENGTH_CONTROLLED_WIN_RATE.value}
            yield key | told(found.controlled)


def _personal(items: pl.DataFrame, base_items: pl.DataFrame | None) -> Iterator[dict[str, Any]]:
    """What of a gain over the base vanishes under another user's persona, on the requests that were asked under both."""
    request = pl.col("prompt_id").str.strip_prefix(pl.col("benchmark"))
    for (recipe, judge), group in items.filter(pl.col("recipe") != pl.col("opponent")).group_by("recipe", "judge", maintain_order=True):
        key = {"recipe": recipe, "benchmark": Benchmark.USER_EVAL.value, "judge": judge}
        wins = group.with_columns(difference=pl.col(Metric.WIN_RATE)).select("benchmark", "prompt_id", "cluster", "difference")
        gains = {Metric.PERSONAL_WIN_RATE: wins}
        if base_items is not None:
            both = [
                _paired(group.filter(benchmark=name), base_items.filter(benchmark=name, judge=judge), Metric.PREFERENCES_MET).with_columns(
                    benchmark=pl.lit(name)
                )
                for name in (Benchmark.USER_EVAL.value, Benchmark.USER_EVAL_SHUFFLED.value)
            ]
            gains[Metric.PERSONAL_PREFERENCES_MET] = pl.concat(both)
        for metric, gain in gains.items():
            sides = (Benchmark.USER_EVAL, Benchmark.USER_EVAL_SHUFFLED)
            own, other = (gain.filter(benchmark=name.value).with_columns(request=request) for name in sides)
            paired = own.join(other.select("request", shuffled="difference"), on="request", how="inner", validate="1:1")
            vanishes = paired.select("cluster", difference=pl.col("difference") - pl.col("shuffled"))
            yield key | {"metric": metric.value} | told(_mean(vanishes, "difference", is_share=False), is_difference=True)


def _error_rates(items: pl.DataFrame, responses: pl.DataFrame) -> Iterator[dict[str, object]]:
    clusters = items.select("prompt_id", "cluster").unique("prompt_id")
    failed = responses.join(clusters, on="prompt_id", how="left").with_columns(
        cluster=pl.col("cluster").fill_null(pl.col("prompt_id")),
        failed=pl.col("reply").is_null().cast(pl.Float64),
    )
    for (recipe, benchmark), group in failed.sort("recipe", "prompt_id").group_by("recipe", "benchmark", maintain_order=True):
        key = {"recipe": recipe, "benchmark": benchmark, "judge": NO_JUDGE, "metric": Metric.ERROR_RATE.value}
        yield key | told(_mean(group, "failed"))


def _paired(left: pl.DataFrame, right: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    name = metric.value
    other = right.select("benchmark", "judge", "prompt_id", pl.col(name).alias("other"))
    joined = left.join(other, on=["benchmark", "judge", "prompt_id"], how="inner", validate="1:1")
    return joined.select("prompt_id", "cluster", difference=pl.col(name) - pl.col("other")).drop_nulls("difference").sort("prompt_id")


def _mean(items: pl.DataFrame, column: str, *, is_share: bool = True) -> Estimate:
    known = items.select("cluster", column).drop_nulls(column)
    return estimate(known[column], known["cluster"], is_share=is_share)
