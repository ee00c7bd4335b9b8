"""Which pairs an export has, and how the lines of JSON are laid out.

What belongs here: functions from the table of pairs to rows. What does not: files (``writing.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.export import SPLITS, dataset_card
from rlhi_dagster.online import rounds
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.preferences import Source
from rlhi_dagster.training import recipes
from rlhi_dagster.training.pair_sets import drawn_sets, kept_sets

if TYPE_CHECKING:
    from rlhi_dagster.profiles import Profile

SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
"""``from`` by role, as LLaMA-Factory reads it without further settings."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pairs.

    Attributes:
        recipe: The pairs that this recipe trains and validates on, with the persona where it shows it.
        source: All kept pairs of a source, with the persona; without either all kept pairs.
        split: One split; ``None`` for the layout's own choice.
    """

    recipe: str | None = None
    source: Source | None = None
    split: str | None = None


def offered(lake: Lake, recipe: str | None, recipe_folder: str | None = None) -> pl.DataFrame:
    """``PREFERENCE_PAIRS`` to select from: of a recipe with online rounds the pairs of its rounds."""
    table, partitions = dataset_card.table_of(recipe, recipe_folder)
    rows = lake.scan(table, partitions).collect()
    return rounds.as_preference_pairs(rows) if table == "online_pairs" else rows


def selected(pairs: pl.DataFrame, selection: Selection, profile: Profile) -> dict[str, pl.DataFrame]:
    """The selected pairs by split: ``split`` and ``card.COLUMNS``, with the persona in the prompt where it is shown.

    Args:
        pairs: From `offered`.
        selection: Which of them.
        profile: The run's settings.

    Raises:
        ValueError: There is no such recipe, or it trains on no pairs.
    """
    kept = pairs.filter("is_kept").select("split", *dataset_card.COLUMNS)
    if selection.recipe is None:
        found = kept if selection.source is None else kept.filter(pl.col("source") == selection.source.value)
        shown = [with_persona(row["prompt"], row["persona"]) for row in found.select("prompt", "persona").iter_rows(named=True)]
        placed = found.with_columns(prompt=pl.Series(shown, dtype=MESSAGES))
        return {split: placed.filter(pl.col("split") == split) for split in SPLITS}
    recipes.load(selection.recipe, profile.recipes)  # whose message says which there are
    arms = profile.arms
    if not arms[selection.recipe].sources:
        raise ValueError(
            f"recipe {selection.recipe} trains on no pairs; give one of {', '.join(n for n, arm in arms.items() if arm.sources)}"
        )
    if arms[selection.recipe].rounds:
        drawn = kept_sets(pairs, arms[selection.recipe], profile.seed)
    else:
        drawn = drawn_sets(pairs, arms, profile.max_pairs, profile.validation_fraction, profile.seed)[selection.recipe]
    return {
        split: rows.select("pair_id", "prompt").join(kept.drop("prompt"), on="pair_id", maintain_order="left").select(kept.columns)
        for split, rows in drawn.by_split.items()
    }


def trl_rows(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows in TRL's conversational preference layout with explicit prompts."""
    for row in rows.iter_rows(named=True):
        sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
        yield {"pair_id": row["pair_id"], "source": row["source"], "prompt": row["prompt"], **sides}


def sharegpt_rows(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows in the ShareGPT layout for preferences.

    Raises:
        ValueError: A message has a role that the layout does not know; the message names the pair.
    """
    for row in rows.iter_rows(named=True):
        unknown = {message["role"] for message in row["prompt"]} - set(SHAREGPT_ROLES)
        if unknown:
            raise ValueError(
                f"pair {row['pair_id']} has a message of role {', '.join(sorted(unknown))}; ShareGPT knows system, user, assistant"
            )
        turns = [{"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]} for message in row["prompt"]]
        sides = {side: {"from": "gpt", "value": row[side]} for side in ("chosen", "rejected")}
        yield {"pair_id": row["pair_id"], "source": row["source"], "conversations": turns, **sides}
