"""Properties of judgements."""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.findings import Finding

MALFORMED_LIMIT = 0.02
"""Largest share of a recipe's replies that may be broken text."""


def orders_are_balanced(judgements: pl.LazyFrame) -> Finding:
    """Every pair that a judge compared was judged exactly once in each order by every criterion.

    Args:
        judgements: Columns ``recipe``, ``prompt_id``, ``opponent``, ``judge``, ``criterion`` and ``order``.
    """
    compared = judgements.group_by("recipe", "prompt_id", "opponent", "judge", "criterion")
    first, second = (pl.col("order").eq_missing(order).sum() for order in ("recipe_first", "opponent_first"))
    off = (pl.len() != 2) | (first != 1) | (second != 1)
    pairs, unbalanced = compared.agg(off.alias("off")).select(pl.len(), pl.col("off").sum()).collect(engine="streaming").row(0)
    return Finding(unbalanced == 0, {"judged_pairs": pairs, "unbalanced_pairs": unbalanced})


def malformed_share_is_low(judgements: pl.LazyFrame, limit: float = MALFORMED_LIMIT) -> Finding:
    """Of each recipe's replies, at most ``limit`` are broken text.

    A recipe without a reply does not pass.

    Args:
        judgements: Columns ``recipe``, ``prompt_id`` and ``is_malformed``.
        limit: Largest share, 0 to 1.
    """
    malformed = pl.col("is_malformed")
    replies = judgements.group_by("recipe", "prompt_id").agg(malformed.any(ignore_nulls=True), malformed.count().alias("told"))
    told = pl.col("told") > 0
    shares = replies.group_by("recipe").agg(malformed.filter(told).mean().alias("share"), told.sum().cast(pl.Int64).alias("n"))
    rows = shares.sort("recipe").collect(engine="streaming").rows()
    off = [recipe for recipe, share, _ in rows if share is None or share > limit]
    found = {f"malformed_share/{recipe}": share for recipe, share, _ in rows if share is not None}
    return Finding(not off, {"limit": limit, "n": sum(n for *_, n in rows), "recipes_off": off, **found})
