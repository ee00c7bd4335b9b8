"""``rlhi example``: one pair of a recipe as its trainer gives it to the model, with the tokens marked that carry loss.

What belongs here: the command's arguments, and which pair is shown. What does not: how it is shown (``training/loss_mask.py``) and what the
trainer makes of it (``workers/mask_check.py``). It speaks to the terminal only; no log ever has a pair's text.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def add_parser(commands: Any) -> None:
    """Add ``example`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "example",
        help="show one pair of a recipe as the model sees it in training, token by token",
        description="Both sides of a pair in the policy's chat template, as the trainer's own code renders and batches it. Tokens that "
        "carry loss are green on a terminal and in [brackets] elsewhere: docs/concepts/training.md. Shows users' words.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe that trains on pairs")
    parser.add_argument("--pair", metavar="ID", help="the pair_id, or its beginning; the first training pair if not given")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: There is no such recipe or pair, or what it needs has not been made.
    """
    import polars as pl

    from rlhi_dagster import profiles
    from rlhi_dagster.base.lake import Lake
    from rlhi_dagster.engines.models import ModelRef
    from rlhi_dagster.export.selection import Selection, offered, selected
    from rlhi_dagster.training import recipes

    profile = profiles.current()
    lake = Lake(root=str(profile.root / "lake"))
    recipe = recipes.load(given.recipe, profile.recipes)
    sets = selected(offered(lake, given.recipe, profile.recipes), Selection(given.recipe), profile)
    row = picked(pl.concat(sets.values()), given.recipe, given.pair)
    folder = lake.artefact_path("policy")
    model = ModelRef.from_manifest(folder)
    from datasets import disable_progress_bars

    from rlhi_dagster.engines.chat_templates import load_tokenizer
    from rlhi_dagster.workers import mask_check

    disable_progress_bars()
    tokenizer = load_tokenizer(model)
    shown = mask_check.example(recipe.method, row, tokenizer, in_colour=sys.stdout.isatty())
    return f"{row['pair_id']} ({row['split']}), {given.recipe}, {model.identity}\n\n{shown}"


def picked(rows: pl.DataFrame, recipe: str, pair: str | None) -> dict[str, Any]:
    """The pair whose id begins with ``pair``, or the first one.

    Raises:
        ValueError: There is none, or several.
    """
    import polars as pl

    found = rows if pair is None else rows.filter(pl.col("pair_id").str.starts_with(pair))
    if found.is_empty():
        raise ValueError(f"recipe {recipe} has no pair" + (f" whose id begins with {pair}" if pair else ""))
    if pair is not None and len(found) > 1 and pair not in found["pair_id"]:
        raise ValueError(f"{len(found)} pairs of recipe {recipe} have ids that begin with {pair}; give more of it")
    exact = found.filter(pl.col("pair_id") == pair) if pair is not None and pair in found["pair_id"] else found
    return exact.row(0, named=True)
