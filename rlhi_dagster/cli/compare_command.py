"""``rlhi compare``: the command's arguments, and what is printed of two recipes.

What belongs here: words and columns. What does not: the statistics (``evaluation.scores``).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base import escapes
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.power import SIGNIFICANT
from rlhi_dagster.evaluation.scores import COMPARED_METRICS, Comparison, compare, comparisons
from rlhi_dagster.training import recipes


def add_parser(commands: Any) -> None:
    """Add ``compare`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "compare",
        help="compare two recipes on the same items",
        description="The paired difference A minus B with its interval over users, the effect size, p alone and after Holm's correction "
        "over the claims of a family, and what the comparison could have found: docs/concepts/evaluation.md.",
    )
    parser.add_argument("left", metavar="A", help="recipe that should be better")
    parser.add_argument("right", metavar="B", help="recipe that it is compared with")
    parser.add_argument("--benchmark", default=Benchmark.USER_EVAL.value, help="items to compare on (default user_eval)")
    parser.add_argument(
        "--metric", choices=[metric.value for metric in COMPARED_METRICS], help="what to compare; the first that both have if not given"
    )
    parser.add_argument("--judge", help="whose verdicts; needed where there are several judges")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: A recipe has no judgements, or judge or metric must be another one; the message is for the terminal.
    """
    profile = profiles.current()
    judgements = Lake(root=str(profile.root / "lake")).scan("judgements").collect()
    metrics = [Metric(given.metric)] if given.metric else COMPARED_METRICS
    for metric in metrics:
        found = compare(judgements, given.left, given.right, metric, given.benchmark, given.judge)
        if found.n:
            break
    else:
        raise ValueError(f"{given.left} and {given.right} have no item of {given.benchmark} in common on which {metrics[0]} is known")
    judge = given.judge or judgements.filter(recipe=given.left, benchmark=given.benchmark)["judge"][0]
    claimed = comparisons(judgements, recipes.comparisons(profile.arms)).filter(
        pl.concat_list("left", "right").list.sort() == sorted((given.left, given.right)),
        benchmark=given.benchmark,
        metric=metric.value,
        judge=judge,
    )
    if given.json:
        told = {"left": given.left, "right": given.right, "benchmark": given.benchmark, "metric": metric.value, "judge": judge}
        return json.dumps({**told, **asdict(found), "claimed": claimed.to_dicts()}, indent=1, default=str)
    return text(f"{given.left} minus {given.right}: {metric} on {given.benchmark}, judge {judge}", found, claimed)


def text(title: str, found: Comparison, claimed: pl.DataFrame) -> str:
    """A comparison for the terminal.

    Args:
        title: Its first line.
        found: The comparison, with items.
        claimed: The row of `scores.comparisons` that is about the same two recipes; empty if nothing is claimed of them.
    """
    interval = "no interval" if found.ci_low is None else f"[{found.ci_low:+.3f}, {found.ci_high:+.3f}]"
    lines = [title, f"difference  {found.difference:+.3f} {interval}", f"items       {found.n:,} of {found.users:,} users"]
    p_holm = claimed["p_holm"][0] if len(claimed) else None
    if found.p_value is not None:
        corrected = f"{p_holm:.2g} after Holm's correction over the claims of family {claimed['family'][0]}" if p_holm is not None else None
        alone = f"{found.p_value:.2g} alone; {corrected or 'no recipe claims this, so nothing is corrected'}"
        lines += [f"effect size {found.effect_size:+.2f} standard deviations of an item's difference", f"p           {alone}"]
        lines.append(f"detectable  {found.minimum_detectable_effect:.3f}, four times out of five")
    counts = found.p_value if p_holm is None else p_holm
    verdict = "not told apart" if counts is None or counts >= SIGNIFICANT else "told apart"
    return escapes.lines([*lines, f"verdict     {found.remark or verdict}"])
