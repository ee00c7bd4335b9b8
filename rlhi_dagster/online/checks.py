"""What must hold of the tables of online rounds: no request lost or asked in two rounds, and as many pairs as every other recipe has.

What belongs here: these properties as functions of frames. What does not: properties that other tables share (``preferences.pair_checks``).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.preferences import Source


def requests_are_in_one_round(
    pairs: pl.LazyFrame, candidates: pl.LazyFrame, offered: pl.LazyFrame, recipes: Mapping[str, Source]
) -> Finding:
    """Every request of a kept pair of its source has candidates and pairs in one round of a recipe, and no other request has any.

    Every pair is kept or dropped with a reason.

    Args:
        pairs: ``ONLINE_PAIRS``.
        candidates: ``ONLINE_CANDIDATES``.
        offered: ``PREFERENCE_PAIRS``.
        recipes: Recipes with rounds that are looked at, and the source of each.
    """
    looked_at = {"recipe": list(recipes), "source": [source.value for source in recipes.values()]}
    arms = pl.DataFrame(looked_at, schema=dict.fromkeys(looked_at, pl.String()))
    expected = offered.filter("is_kept").select("turn_id", "source").unique().collect().join(arms, on="source").drop("source")
    key = ["recipe", "turn_id"]
    of_recipes = pl.col("recipe").is_in(list(recipes))
    found = {
        "candidates": candidates.filter(of_recipes).select(*key, "round").unique().collect(),
        "pairs": pairs.filter(of_recipes).select(*key, "round").unique().collect(),
    }
    lost = {f"requests_without_{name}": len(expected.join(frame, on=key, how="anti")) for name, frame in found.items()}
    extra = {f"unknown_requests_of_{name}": len(frame.join(expected, on=key, how="anti")) for name, frame in found.items()}
    apart = found["candidates"].join(found["pairs"], on=[*key, "round"], how="full")
    counts = {
        **lost,
        **extra,
        "requests_in_several_rounds": int(found["candidates"].select(pl.struct(key).is_duplicated().sum()).item()),
        "requests_out_of_step": len(apart.filter(pl.col("turn_id").is_null() | pl.col("turn_id_right").is_null())),
        "undecided_pairs": _undecided(pairs.filter(of_recipes)),
    }
    return Finding(not any(counts.values()), {"requests": len(expected), **counts})


def rounds_are_full(pairs: pl.LazyFrame, wanted: Mapping[str, int]) -> Finding:
    """The rounds of each recipe train on as many pairs as every other recipe.

    Args:
        pairs: ``ONLINE_PAIRS``.
        wanted: Training pairs by recipe.
    """
    kept = pairs.filter("is_kept", pl.col("split") == "train").group_by("recipe").len()
    found = dict(kept.collect(engine="streaming").iter_rows())
    off = sorted(name for name, count in wanted.items() if found.get(name, 0) != count)
    return Finding(not off, {"recipes_off": off, **{f"pairs/{name}": f"{found.get(name, 0)} of {n}" for name, n in wanted.items()}})


def _undecided(pairs: pl.LazyFrame) -> int:
    has_reason = pl.col("drop_reasons").list.len().fill_null(0) > 0
    return int(pairs.select(pl.col("is_kept").eq_missing(has_reason).sum()).collect().item())
