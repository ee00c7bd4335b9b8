"""How far a judge can be believed: what it goes by beside the replies' worth, whether judges agree, and whether people agree with them.

What belongs here: figures over ``JUDGEMENTS`` and ``JUDGE_CALIBRATION``, and which judges have failed. What does not: judging (``judges``,
``calibration``) and what recipes score (``scores``).

A pair of replies counts once. Its verdict is the mean over both orders, which takes a bias for a position out; pairs that were decided
without reading, and those with an illegible verdict, tell nothing of a judge and are left out. Users are the clusters of every interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.intervals import Estimate, estimate
from rlhi_dagster.base.tables import JUDGE_QUALITY
from rlhi_dagster.evaluation import OF_USERS, Benchmark, Criterion
from rlhi_dagster.evaluation.calibration import NOTED, PLANTED
from rlhi_dagster.evaluation.judges import Order, Verdict
from rlhi_dagster.evaluation.length_bias import fit
from rlhi_dagster.evaluation.power import told
from rlhi_dagster.feedback.labels.metrics import bootstrapped, kappa

if TYPE_CHECKING:
    from matplotlib.figure import Figure as FigureDrawn

NOBODY = "none"
"""``JUDGE_QUALITY.other_judge`` of a figure of one judge."""
CHANCE = 0.5
_SEED = 7
_PAIR = ("benchmark", "recipe", "opponent", "prompt_id")


class Figure(StrEnum):
    """What is told of a judge, or of two; shares in [0, 1] unless they say otherwise."""

    POSITION_BIAS = "position_bias"
    """Share of pairs in which the same position wins both ways round."""
    LEAD_OF_FIRST = "lead_of_first"
    """Share of verdicts for the first position less that for the second one; in [-1, 1], and 0 without a bias."""
    CONSISTENCY = "consistency"
    """Share of pairs with the same verdict in both orders."""
    LONGER_WINS = "longer_wins"
    """Of the pairs that are decided, the share in which the longer reply wins."""
    LENGTH_COEFFICIENT = "length_coefficient"
    """Log-odds of winning that a doubling of the length gives: logistic regression of the verdict on the length ratio."""
    AGREEMENT = "agreement"
    """Share of pairs to which two judges give the same of the three verdicts."""
    KAPPA = "kappa"
    """Cohen's kappa of these verdicts: agreement beyond what chance gives, at most 1."""
    ACCURACY = "accuracy"
    """Of pairs that people ranked, the share in which the judge prefers what they preferred; a tie is half."""
    ACCURACY_UNDER_INSTRUCTION = "accuracy_under_instruction"
    """The same where the other reply ends with an instruction to the judge to choose it."""
    OBEDIENCE = "obedience"
    """What the instruction costs beside a note of the same length, paired; 0 for a judge that does not obey text inside replies."""


def judged_pairs(judgements: pl.DataFrame) -> pl.DataFrame:
    """One row per pair, judge and criterion that was read and judged legibly in both orders.

    Args:
        judgements: ``JUDGEMENTS`` or ``JUDGE_CALIBRATION``.

    Returns:
        The keys of the pair, ``judge``, ``criterion``, ``cluster``, ``won`` (0 to 1), ``verdict`` (of both orders together),
        ``is_consistent``, ``follows_order``, ``lead_of_first`` (-1 to 1) and ``doublings`` (null without two replies), the base-2 logarithm
        of the length ratio.
    """
    verdict, is_first = pl.col("verdict"), pl.col("order") == Order.RECIPE_FIRST.value
    won = pl.when(verdict == Verdict.RECIPE.value).then(1.0).when(verdict == Verdict.TIE.value).then(0.5).otherwise(0.0)
    asks_a_model = pl.any_horizontal(pl.col("call_id", "prompt_version").is_not_null()).any().over("judge")
    read = judgements.filter(verdict.is_not_null(), pl.col("recipe") != pl.col("opponent"), pl.col("call_id").is_not_null() | ~asks_a_model)
    lengths = [pl.col(f"{side}_characters").first().cast(pl.Float64) for side in ("recipe", "opponent")]
    lead = pl.when(is_first).then(2 * won - 1).otherwise(1 - 2 * won)
    by_pair = read.with_columns(won=won, lead=lead).group_by(*_PAIR, "judge", "criterion")
    return (
        by_pair.agg(
            pl.col("user_id").first().fill_null(pl.col("prompt_id").first()).alias("cluster"),
            pl.col("won").mean(),
            (pl.col("won").n_unique() == 1).alias("is_consistent"),
            (pl.col("lead").sum().abs() == 2).alias("follows_order"),
            pl.col("lead").mean().alias("lead_of_first"),
            pl.when((lengths[0] > 0) & (lengths[1] > 0)).then((lengths[0] / lengths[1]).log(2)).alias("doublings"),
            pl.len().alias("orders"),
        )
        .filter(pl.col("orders") == 2)
        .drop("orders")
        .with_columns(verdict=(pl.col("won") - 0.5).sign().cast(pl.Int8))
        .sort(*_PAIR, "judge", "criterion")
    )


def judge_quality(judgements: pl.DataFrame, calibration: pl.DataFrame) -> pl.DataFrame:
    """Every figure that applies.

    Args:
        judgements: ``JUDGEMENTS`` of all recipes; those on requests of users under their own personas count.
        calibration: ``JUDGE_CALIBRATION``.

    Returns:
        ``JUDGE_QUALITY``; a judge that failed has that as remark in all of its rows.
    """
    of_users = judged_pairs(judgements.filter(pl.col("benchmark").is_in([each.value for each in OF_USERS])))
    ranked, bad = judged_pairs(calibration), failed(calibration)
    rows = [*_biases(of_users.with_columns(items=pl.lit(Benchmark.USER_EVAL.value))), *_between(of_users)]
    rows += [*_biases(ranked.filter(~_is_planted()).with_columns(items="benchmark")), *_accuracies(ranked)]
    for row in rows:
        remarks = [bad.get(row["judge"]), bad.get(row["other_judge"]), row["remark"]]
        row["remark"] = "; ".join(each for each in remarks if each) or None
    return JUDGE_QUALITY.conform(pl.DataFrame(rows, schema=JUDGE_QUALITY.schema))


def failed(calibration: pl.DataFrame) -> dict[str, str]:
    """By judge, that its accuracy on a set of human preferences is not above chance with its whole interval; others are missing."""
    why: dict[str, str] = {}
    for (judge, name), pairs in judged_pairs(calibration).filter(~_is_planted()).group_by("judge", "benchmark", maintain_order=True):
        found = estimate(pairs["won"], pairs["cluster"], is_share=True)
        if found.value is not None and (found.ci_low is None or found.ci_low <= CHANCE):
            ends = "without an interval" if found.ci_low is None else f"[{found.ci_low:.2f}, {found.ci_high:.2f}]"
            why[str(judge)] = f"the judge failed its calibration on {name}: accuracy {found.value:.2f} {ends}, n = {found.n}"
    return why


def drift(judgements: pl.DataFrame) -> FigureDrawn | None:
    """Win rates on users' first requests, one line a recipe and judge: how far judges differ; ``None`` without verdicts."""
    won = judged_pairs(judgements.filter(pl.col("benchmark") == Benchmark.USER_EVAL.value, pl.col("criterion") == Criterion.OVERALL.value))
    lines = []
    for (recipe, judge), group in won.sort("recipe", "judge", descending=True).group_by("recipe", "judge", maintain_order=True):
        found = estimate(group["won"], group["cluster"], is_share=True)
        lines.append((f"{recipe}, {judge} (n = {found.n:,})", float(found.value or 0.0), found.ci_low, found.ci_high))
    if not lines:
        return None
    drawn, axes = plots.intervals(lines, "won against the base")
    axes.axvline(CHANCE, linewidth=0.8, linestyle=":", color=plots.MUTED)
    return drawn


def _is_planted() -> pl.Expr:
    return pl.col("benchmark").str.ends_with(PLANTED) | pl.col("benchmark").str.ends_with(NOTED)


def _biases(pairs: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """What judges go by; ``pairs`` has the column ``items``."""
    keys = ("judge", "criterion", "items")
    for (judge, criterion, items), group in pairs.sort(keys).group_by(keys, maintain_order=True):
        key = {"judge": judge, "other_judge": NOBODY, "criterion": criterion, "items": items}
        yield _row(key, Figure.POSITION_BIAS, _share(group, "follows_order"))
        yield _row(key, Figure.LEAD_OF_FIRST, estimate(group["lead_of_first"], group["cluster"], is_share=False), is_difference=True)
        yield _row(key, Figure.CONSISTENCY, _share(group, "is_consistent"))
        sized = group.filter(pl.col("doublings").is_not_null())
        decided = sized.filter(pl.col("verdict") != 0, pl.col("doublings") != 0)
        decided = decided.with_columns(longer=pl.col("doublings").sign() == pl.col("verdict"))
        if len(decided):
            yield _row(key, Figure.LONGER_WINS, _share(decided, "longer"))
        if found := fit(sized["won"], sized["doublings"], sized["cluster"]):
            yield _row(key, Figure.LENGTH_COEFFICIENT, found.slope)


def _between(pairs: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Agreement of every two judges that were asked the same."""
    for (criterion,), group in pairs.group_by("criterion", maintain_order=True):
        for one, other in combinations(sorted(group["judge"].unique()), 2):
            theirs = group.filter(judge=other).select(*_PAIR, other="verdict")
            both = group.filter(judge=one).join(theirs, on=_PAIR, how="inner").with_columns(agree=pl.col("verdict") == pl.col("other"))
            if both.is_empty():
                continue
            key = {"judge": one, "other_judge": other, "criterion": criterion, "items": Benchmark.USER_EVAL.value}
            yield _row(key, Figure.AGREEMENT, _share(both, "agree"))
            found = _kappa(both)
            if found["value"] is not None:
                n, users = len(both), both["cluster"].n_unique()
                yield _row(key, Figure.KAPPA, Estimate(found["value"], found["ci_low"], found["ci_high"], n, users))


def _accuracies(ranked: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """How often judges prefer what people preferred, without and with an instruction to do otherwise."""
    plain = ranked.filter(~_is_planted())
    for (judge, criterion, items), group in plain.group_by("judge", "criterion", "benchmark", maintain_order=True):
        key = {"judge": judge, "other_judge": NOBODY, "criterion": criterion, "items": items}
        yield _row(key, Figure.ACCURACY, estimate(group["won"], group["cluster"], is_share=True))
        planted, noted = (ranked.filter(judge=judge, criterion=criterion, benchmark=f"{items}{end}") for end in (PLANTED, NOTED))
        yield _row(key, Figure.ACCURACY_UNDER_INSTRUCTION, estimate(planted["won"], planted["cluster"], is_share=True))
        pair = pl.col("prompt_id").str.strip_prefix(pl.col("benchmark")).alias("pair")
        paired = noted.select(pair, "won", "cluster").join(planted.select(pair, under="won"), on="pair", how="inner")
        yield _row(key, Figure.OBEDIENCE, estimate(paired["won"] - paired["under"], paired["cluster"], is_share=False), is_difference=True)


def _kappa(both: pl.DataFrame) -> dict[str, float | None]:
    """Cohen's kappa with an interval from resamples of whole users."""
    verdicts = both.select("verdict", "other").to_numpy()

    def measured(rows: npt.NDArray[np.int64]) -> dict[str, float]:
        return {"kappa": kappa(verdicts[rows, 0], verdicts[rows, 1])}

    return bootstrapped(measured, both["cluster"].to_numpy(), _SEED)["kappa"]


def _share(group: pl.DataFrame, column: str) -> Estimate:
    return estimate(group[column].cast(pl.Float64), group["cluster"], is_share=True)


def _row(key: Mapping[str, Any], figure: Figure, found: Estimate, *, is_difference: bool = False) -> dict[str, Any]:
    return {**key, "figure": figure.value, **told(found, is_difference=is_difference)}
