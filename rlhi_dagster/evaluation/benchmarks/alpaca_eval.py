"""AlpacaEval 2.0 as a benchmark: 805 instructions, the published baseline's outputs, raw and length-controlled win rates.

Deviation: the published judge saw each pair once, in an order drawn by lot, and was asked in other words. Here a pair is shown in both
orders, and its preference is the mean probability that the recipe wins. A pair without a rating in one of the orders has none.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.alpaca_eval import BASELINE
from rlhi_dagster.evaluation.alpaca_eval.annotations import ROW_SCHEMA
from rlhi_dagster.evaluation.alpaca_eval.length_control import length_controlled
from rlhi_dagster.evaluation.alpaca_eval.published import OUTPUTS, Published
from rlhi_dagster.evaluation.benchmarks.items import Loaded, item, items, responses
from rlhi_dagster.evaluation.benchmarks.rating import Scale, position_bias
from rlhi_dagster.evaluation.benchmarks.score import in_scores, mean_score, score

BENCHMARK = Benchmark.ALPACA_EVAL
SCALE = Scale("alpaca_eval", {"A": 1.0, "B": 0.0}, is_pairwise=True)


def load(folder: Path) -> Loaded:
    """The instructions, in order, and the baseline's outputs.

    Raises:
        ValueError: The baseline's outputs are not in the folder.
    """
    outputs = Published(folder).outputs
    if outputs is None:
        raise ValueError(f"{folder}: the baseline's outputs are not there; wanted is {' or '.join(OUTPUTS)}, plain or with .gz")
    names = [f"{place:03}" for place in range(len(outputs))]
    replies = {f"{BENCHMARK}:{name}": row["output"] for name, row in zip(names, outputs, strict=True)}
    prompts = items(item(BENCHMARK, name, [row["instruction"]]) for name, row in zip(names, outputs, strict=True))
    return Loaded(prompts, responses(BENCHMARK, BASELINE, replies))


def scores(folder: Path, ratings: pl.DataFrame, replies: pl.DataFrame) -> pl.DataFrame:
    """Raw and length-controlled win rate and position bias of each recipe by each judge.

    Args:
        folder: The published files; without the difficulties, or what holds the regression to the baseline, nothing is length-controlled.
        ratings: ``BENCHMARK_RATINGS`` of this benchmark.
        replies: ``RESPONSES`` of the recipes and of the opponents.
    """
    published = Published(folder)
    lengths = replies.select("recipe", "prompt_id", pl.col("reply").fill_null("").str.len_chars().cast(pl.Int64).alias("length"))
    rows = []
    for (recipe, opponent, judge), group in ratings.group_by("recipe", "opponent", "judge", maintain_order=True):
        pairs = position_bias(group.with_columns(rating="expected_rating"), SCALE.tie)
        key = {"recipe": recipe, "benchmark": BENCHMARK.value, "judge": judge}
        rows.append(key | mean_score(Metric.WIN_RATE, pairs["rating"], pairs["prompt_id"]))
        rows.append(key | mean_score(Metric.POSITION_BIAS, pairs["follows_order"], pairs["prompt_id"]))
        annotated = _annotated(group, pairs, lengths, str(recipe), str(opponent))
        difficulties = published.difficulties_of(len(annotated))
        if difficulties is not None and published.gamed is not None and recipe != opponent:
            places = annotated["place"].to_numpy()
            found = length_controlled(annotated, difficulties[places], published.gamed)
            ends = (found.win_rate, found.ci_low, found.ci_high)
            rows.append(key | score(Metric.LENGTH_CONTROLLED_WIN_RATE, len(pairs), *(end / 100 for end in ends)))
    return in_scores(rows)


def _annotated(ratings: pl.DataFrame, pairs: pl.DataFrame, lengths: pl.DataFrame, recipe: str, opponent: str) -> pl.DataFrame:
    """``annotations.ROW_SCHEMA``: every item, without a preference where a pair has none."""
    mine, theirs = (lengths.filter(recipe=name).drop("recipe") for name in (recipe, opponent))
    return (
        ratings.select("prompt_id")
        .unique()
        .join(pairs.select("prompt_id", preference=pl.col("rating") + 1), on="prompt_id", how="left")
        .join(theirs.rename({"length": "baseline_length"}), on="prompt_id", how="inner", validate="1:1")
        .join(mine.rename({"length": "model_length"}), on="prompt_id", how="inner", validate="1:1")
        .sort("prompt_id")
        .select(
            place=pl.col("prompt_id").str.split(":").list.last().cast(pl.Int64),
            instruction=pl.lit(None, dtype=pl.String),
            **{name: pl.col(name) for name in ("preference", "baseline_length", "model_length")},
        )
        .select(pl.col(name).cast(dtype) for name, dtype in ROW_SCHEMA.items())
    )
