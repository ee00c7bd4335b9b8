"""From grades of replies to accuracies: pass@1 over the samples of each problem, pass@k, and the paper's average over four benchmarks.

What belongs here: arithmetic over grades. What does not: grading (``rlhi_dagster.reasoning``), intervals in general (``base.intervals``).

pass@1 is the mean over problems of the share of right samples; its interval is clustered by problem, whose samples go together. A reply in
which no answer was found, or that is missing, counts as wrong; the accuracy of the answered ones leaves it out, and says by how much the
grader's reading matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import polars as pl

from rlhi_dagster.base.intervals import Estimate, average, estimate
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.benchmarks.score import in_scores
from rlhi_dagster.evaluation.power import told

GRADES = {"benchmark": pl.String(), "prompt_id": pl.String(), "sample": pl.Int64(), "grade": pl.String()}
"""A reply's grade: `right`, `wrong`, `no_answer` or `undecided` (``reasoning.math_answers.Grade``)."""
RIGHT, NO_ANSWER = "right", "no_answer"
GRADER = "known_answer"
"""What stands as judge in ``SCORES``."""
PAPER_AVERAGE = "paper_reasoning_average"
OF_THE_PAPER = (Benchmark.OLYMPIAD_BENCH, Benchmark.MINERVA, Benchmark.GPQA, Benchmark.MMLU_PRO)
"""The benchmarks that the paper averages: 26.5 % before, 31.8 % after training on reasoning pairs (arXiv 2509.25137)."""


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that one of ``k`` samples is right, from ``n`` samples of which ``right`` are: unbiased (Chen et al. 2021, equation 1).

    Raises:
        ValueError: ``k`` is not between 1 and ``n``, or ``right`` not between 0 and ``n``.
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples of which 0 to all are right, not {right} of {n}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def pass_at_k_of(grades: pl.DataFrame, k: int) -> Estimate:
    """pass@k of the problems in ``grades`` with its interval over problems.

    Args:
        grades: ``GRADES``.
        k: Samples of which one has to be right.

    Raises:
        ValueError: A problem has fewer than ``k`` samples.
    """
    counts = grades.group_by("prompt_id").agg(n=pl.len(), right=(pl.col("grade") == RIGHT).sum()).sort("prompt_id")
    values = [pass_at_k(n, right, k) for n, right in counts.select("n", "right").iter_rows()]
    return estimate(values, counts["prompt_id"], is_share=True)


def accuracies(grades: pl.DataFrame, recipe: str) -> pl.DataFrame:
    """``SCORES`` of a recipe: both accuracies of each benchmark, and the paper's average where all of its benchmarks are there.

    `n` counts replies, `users` problems.

    Args:
        grades: ``GRADES`` of the recipe's replies.
        recipe: The recipe.

    Raises:
        ValueError: The problems of a benchmark have unequally many samples.
    """
    found = {}
    for benchmark in grades["benchmark"].unique().sort():
        share = grades.filter(benchmark=benchmark)
        samples = share.group_by("prompt_id").len()["len"].unique().sort().to_list()
        if len(samples) > 1:
            raise ValueError(f"{benchmark}: the problems have {samples[0]} to {samples[-1]} samples; each needs as many")
        found[benchmark, Metric.ACCURACY] = _share_right(share)
        found[benchmark, Metric.ACCURACY_OF_ANSWERED] = _share_right(share.filter(pl.col("grade") != NO_ANSWER))
    if (mean := paper_average(grades)) is not None:
        found[PAPER_AVERAGE, Metric.ACCURACY] = mean
    key = {"recipe": recipe, "judge": GRADER}
    return in_scores(key | {"benchmark": benchmark, "metric": metric.value} | told(each) for (benchmark, metric), each in found.items())


def paper_average(grades: pl.DataFrame) -> Estimate | None:
    """Mean of the accuracies on the paper's four benchmarks, each counting the same; ``None`` unless all are in ``grades``."""
    if missing_of_the_paper(grades["benchmark"]):
        return None
    return average([_share_right(grades.filter(benchmark=benchmark.value)) for benchmark in OF_THE_PAPER])


def missing_of_the_paper(benchmarks: Iterable[str]) -> Sequence[Benchmark]:
    """The benchmarks of the paper's average that are not among ``benchmarks``: why there is no such row."""
    there = set(benchmarks)
    return [benchmark for benchmark in OF_THE_PAPER if benchmark.value not in there]


def _share_right(grades: pl.DataFrame) -> Estimate:
    return estimate((grades["grade"] == RIGHT).cast(pl.Float64), grades["prompt_id"], is_share=True)
