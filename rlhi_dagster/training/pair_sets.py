"""Which pairs a recipe trains on: its source's, equally many for every recipe, with the persona where the recipe shows it."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona
from rlhi_dagster.preferences.union import split_of
from rlhi_dagster.tables import MESSAGES
from rlhi_dagster.training.recipes import Recipe

TRAINING_ROWS = pl.Schema({"pair_id": pl.String(), "prompt": MESSAGES, "chosen": pl.String(), "rejected": pl.String()})
"""What a training worker reads."""


def equal_count(pairs: pl.DataFrame, recipes: Mapping[str, Recipe], most: int | None) -> int:
    """Training pairs per recipe: those of the scarcest source that any recipe uses and that has some, at most ``most``."""
    used = {recipe.source for recipe in recipes.values() if recipe.source}
    counts = pairs.filter((pl.col("split") == "train") & pl.col("source").is_in(sorted(used)))["source"].value_counts()["count"].to_list()
    return min([*counts, *([most] if most else [])], default=0)


def pair_set(
    pairs: pl.DataFrame,
    recipe: Recipe,
    split: str,
    count: int | None,
    seed: int,
    placement: PersonaPlacement = PersonaPlacement.SYSTEM,
) -> pl.DataFrame:
    """The recipe's pairs of a split: ``count`` of them (``None``: all), drawn and ordered by digest of id and seed.

    Returns:
        ``TRAINING_ROWS``.
    """
    found = pairs.filter((pl.col("source") == recipe.source) & (pl.col("split") == split))
    drawn = found.with_columns(draw=pl.Series([digest_of(pair_id, seed) for pair_id in found["pair_id"]], dtype=pl.String())).sort("draw")
    rows = [
        {**row, "prompt": with_persona(row["prompt"], row["persona"] if recipe.persona == "own" else "", placement)}
        for row in (drawn if count is None else drawn.head(count)).select("pair_id", "prompt", "persona", "chosen", "rejected").to_dicts()
    ]
    return pl.DataFrame([{name: row[name] for name in TRAINING_ROWS} for row in rows], schema=TRAINING_ROWS)


def reward_model_sets(
    rewrite_pairs: pl.DataFrame, validation_fraction: float, most: int | None, seed: int, placement: PersonaPlacement
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training and validation rows of the reward model: the kept rewrite pairs of opening requests, split by user, with the persona.

    Opening requests are what the reward model ranks candidates for. With a history in view it learns to read the wishes there and not
    the persona. ``placement`` is the one it will be asked with.

    Returns:
        Two frames of ``TRAINING_ROWS``.
    """
    kept = rewrite_pairs.filter("is_kept", pl.col("prompt").list.len() == 1).with_columns(source=pl.lit("rewrites"))
    pairs = kept.with_columns(split=pl.Series([split_of(user, validation_fraction) for user in kept["user_id"]], dtype=pl.String()))
    recipe = Recipe(description="reward model", method="dpo", source="rewrites")
    train = pair_set(pairs, recipe, "train", most, seed, placement)
    return train, pair_set(pairs, recipe, "validation", None, seed, placement)
