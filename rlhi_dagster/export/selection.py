"""Which pairs an export has, and how the lines of JSON are laid out.

What belongs here: functions from the table of pairs to rows. What does not: files (``writing.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from rlhi_dagster.base.control_tokens import escaped, escaped_messages
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.export import SPLITS, dataset_card
from rlhi_dagster.online import rounds
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.preferences import Source
from rlhi_dagster.training import examples, follow_ups, recipes
from rlhi_dagster.training.pair_sets import SIDES, drawn_sets, kept_sets

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
    """``PREFERENCE_PAIRS`` to select from: of a recipe with online rounds its pairs, of one on thumbs or follow-ups its examples."""
    table, partitions = dataset_card.table_of(recipe, recipe_folder)
    rows = lake.scan(table, partitions).collect()
    if table == "online_pairs":
        return rounds.as_preference_pairs(rows, Source(recipes.load(str(recipe), recipe_folder).sources[0]))
    as_pairs = {"thumb_examples": examples.as_pairs, "follow_up_examples": follow_ups.as_pairs}
    return as_pairs[table](rows) if table in as_pairs else rows


def selected(pairs: pl.DataFrame, selection: Selection, profile: Profile) -> dict[str, pl.DataFrame]:
    """The selected pairs by split: ``split`` and ``card.COLUMNS``, with the persona in the prompt where it is shown.

    Control tokens in texts are text, as in training here.

    Args:
        pairs: From `offered`.
        selection: Which of them.
        profile: The run's settings.

    Raises:
        ValueError: There is no such recipe, or it trains on no pairs.
    """
    sides = [pl.col(side).map_elements(escaped, return_dtype=pl.String()) for side in ("chosen", "rejected")]
    # Ids are digests, so in their order no neighbours are of one user any likelier than others.
    kept = pairs.filter("is_kept").select("split", *dataset_card.COLUMNS).with_columns(sides).sort("pair_id")
    if selection.recipe is None:
        found = kept if selection.source is None else kept.filter(pl.col("source") == selection.source.value)
        rows = found.select("prompt", "persona").iter_rows(named=True)
        shown = [escaped_messages(with_persona(row["prompt"], row["persona"])) for row in rows]
        placed = found.with_columns(prompt=pl.Series(shown, dtype=MESSAGES))
        return {split: placed.filter(pl.col("split") == split) for split in SPLITS}
    # One that the profile does not train is exported all the same.
    arms = profile.arms | {selection.recipe: recipes.load(selection.recipe, profile.recipes)}
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
    """Rows in TRL's conversational layouts with explicit prompts: of pairs for preferences, of examples for unpaired ones (``label``)."""
    for row in rows.iter_rows(named=True):
        said: dict[str, Any] = {side: [{"role": "assistant", "content": row[side]}] for side in SIDES if row[side] is not None}
        if len(said) == 1:
            ((side, completion),) = said.items()
            said = {"completion": completion, "label": side == "chosen"}
        yield {"pair_id": row["pair_id"], "source": row["source"], "prompt": row["prompt"], **said}


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
