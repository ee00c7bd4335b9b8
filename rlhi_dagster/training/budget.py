"""Token budget: what training would do with each pair at the recipe's length, told before training.

What belongs here: a pair's fate by its token counts, the table of fates, its check and its picture. What does not: counting tokens
(``workers/tokens.py``), drawing the pairs (``pair_sets.py``), and leaving pairs out, which the trainers do by the same rule
(``workers.train_loop.preflight``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.tables import TOKEN_BUDGET
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.training.pair_sets import TRAINING_ROWS, PairSets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT_OUT_LIMIT = 0.01
PAIR_TOKENS = pl.Schema({"key": pl.String(), "prompt_tokens": pl.Int64(), "chosen_tokens": pl.Int64(), "rejected_tokens": pl.Int64()})
"""Token counts of a pair as it is shown: the prompt up to where the reply starts, and the prompt with each reply that is there."""
SETS = pl.Schema({"recipe": pl.String(), "split": pl.String(), "key": pl.String(), "max_length_tokens": pl.Int64()})
"""Which pair, as shown, is in which set, and the longest that the recipe trains on."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Fate(StrEnum):
    """What training does with a pair."""

    FITS = "fits"
    """Both sides fit with the prompt."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """The pair is left out: persona and prompt alone leave no token for a reply."""
    PAIR_TOO_LONG = "pair_too_long"
    """The pair is left out: a side does not fit."""


def shown(sets: Mapping[str, PairSets], limits: Mapping[str, int]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Which pairs have to be counted: a pair that several recipes show alike once.

    Args:
        sets: The recipes' pairs by recipe.
        limits: ``max_length`` by recipe.

    Returns:
        ``SETS``; and the distinct pairs as ``key``, ``prompt``, ``chosen`` and ``rejected``, ordered by key.
    """
    members, distinct = [SETS.to_frame()], [TRAINING_ROWS.to_frame().rename({"pair_id": "key"})]
    for recipe, pairs in sets.items():
        for split, rows in pairs.by_split.items():
            # Of a row that a teacher is told more of, that is the longest sequence.
            counted = rows.with_columns(prompt="told").drop("told") if "told" in rows.columns else rows
            keyed = counted.with_columns(key=pl.Series([digest_of(*row) for row in counted.iter_rows()], dtype=pl.String()))
            limit = pl.lit(limits[recipe], dtype=pl.Int64()).alias("max_length_tokens")
            members.append(keyed.select(pl.lit(recipe).alias("recipe"), pl.lit(split).alias("split"), "key", limit))
            distinct.append(keyed.select("key", "prompt", "chosen", "rejected"))
    return pl.concat(members), pl.concat(distinct).unique("key").sort("key")


def fates(sets: pl.DataFrame, tokens: pl.DataFrame) -> pl.DataFrame:
    """The fate of each pair of each set.

    Args:
        sets: ``SETS``.
        tokens: ``PAIR_TOKENS``.

    Returns:
        ``SETS`` with ``longest`` and ``both``, tokens of the longer side and of both with their prompts, and ``fate``.

    Raises:
        ValueError: A pair was not counted.
    """
    joined = sets.join(tokens, on="key", how="left")
    uncounted = joined["prompt_tokens"].null_count()
    if uncounted:
        raise ValueError(f"{uncounted} pairs of the training sets have no token counts")
    sides = pl.max_horizontal("chosen_tokens", "rejected_tokens").alias("longest")
    measured = joined.with_columns(sides, pl.sum_horizontal("chosen_tokens", "rejected_tokens").alias("both"))
    limit = pl.col("max_length_tokens")
    fate = (
        pl.when(pl.col("longest") <= limit)
        .then(pl.lit(Fate.FITS.value))
        .when(pl.col("prompt_tokens") >= limit)
        .then(pl.lit(Fate.PROMPT_TOO_LONG.value))
        .otherwise(pl.lit(Fate.PAIR_TOO_LONG.value))
    )
    return measured.with_columns(fate=fate).select(*SETS, "longest", "both", "fate")


def token_budget(told: pl.DataFrame, limits: Mapping[str, int]) -> pl.DataFrame:
    """Count fates.

    Args:
        told: From `fates`.
        limits: ``max_length`` of every recipe, those without a pair included.

    Returns:
        ``TOKEN_BUDGET``: for each recipe and split a row of every fate, also of those that no pair has.
    """
    cells = [(recipe, split, fate.value, limit) for recipe, limit in limits.items() for split in ("train", "validation") for fate in Fate]
    names = {"recipe": pl.String(), "split": pl.String(), "fate": pl.String(), "max_length_tokens": pl.Int64()}
    longest = pl.col("longest")
    counted = told.group_by("recipe", "split", "fate").agg(
        pairs=pl.len(),
        median_tokens=longest.median(),
        p95_tokens=longest.quantile(0.95, "linear"),
        most_tokens=longest.max(),
        total_tokens=pl.col("both").sum(),
    )
    grid = pl.DataFrame(cells, schema=names, orient="row").join(counted, on=["recipe", "split", "fate"], how="left")
    return TOKEN_BUDGET.conform(grid.with_columns(pl.col("pairs", "total_tokens").fill_null(0)))


def pairs_fit(budget: pl.LazyFrame, limit: float = LEFT_OUT_LIMIT) -> Finding:
    """Of each recipe's pairs, at most ``limit`` are too long to train on.

    Args:
        budget: ``TOKEN_BUDGET``.
        limit: Largest share left out, 0 to 1.
    """
    left_out = pl.col("pairs").filter(pl.col("fate") != Fate.FITS.value).sum()
    shares = budget.group_by("recipe").agg(n=pl.col("pairs").sum(), share=left_out / pl.col("pairs").sum()).sort("recipe").collect()
    known = [(recipe, share) for recipe, n, share in shares.iter_rows() if n]
    off = [recipe for recipe, share in known if share > limit]
    found = {f"left_out_share/{recipe}": share for recipe, share in known}
    return Finding(not off, {"limit": limit, "pairs": int(shares["n"].sum()), "recipes_off": off, **found})


@plots.style(7)
def lengths(told: pl.DataFrame, limits: Mapping[str, int]) -> Figure:
    """Tokens of the longer side of each recipe's pairs.

    A line from the 5th to the 95th percentile, a bar between the quartiles, a dot at the longest, the recipe's limit in red.

    Args:
        told: From `fates`.
        limits: ``max_length`` of every recipe.
    """
    figure, (axes,) = plots.canvas(5.2, 0.6 + 0.3 * max(len(limits), 1))
    names = sorted(limits, reverse=True)
    for height, name in enumerate(names):
        found = told.filter(pl.col("recipe") == name)["longest"].to_numpy()
        axes.plot([limits[name]] * 2, [height - 0.4, height + 0.4], color=plots.BAD, linewidth=1.2)
        if len(found):
            low, quarter, half, three_quarters, high = np.quantile(found, _QUANTILES).tolist()
            axes.plot([low, high], [height, height], color=plots.MAIN, linewidth=1)
            axes.plot([quarter, three_quarters], [height, height], color=plots.MAIN, linewidth=5, solid_capstyle="butt")
            axes.plot([half], [height], color="white", marker="|", markersize=5)
            axes.plot([int(found.max())], [height], color=plots.MAIN, marker=".", markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.set_xlabel("tokens of prompt and longer side")
    return figure
