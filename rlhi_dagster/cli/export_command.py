"""``rlhi export`` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi_dagster.export import SPLITS, Format
from rlhi_dagster.preferences import Source

if TYPE_CHECKING:
    from rlhi_dagster.base.lake import Lake
    from rlhi_dagster.profiles import Profile


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export`` to the ``rlhi`` command."""
    parser = commands.add_parser(
        "export",
        help="write the tables for SQL, the preference pairs for a trainer, or a checkpoint for the Hub",
        description="Write every table of the run into one DuckDB file, or its kept preference pairs in a layout that trainers read "
        "(docs/concepts/pairs.md), or a recipe's checkpoint as a folder for the Hugging Face Hub (docs/concepts/training.md).",
        epilog="Examples: rlhi export rlhi.duckdb; rlhi export pairs.jsonl --format trl --recipe dpo_rewrites; "
        "rlhi export folder --format huggingface --source rewards; rlhi export --hub --recipe dpo_rewrites --out folder.",
    )
    parser.add_argument("out", metavar="OUT", nargs="?", type=Path, help="the file; with --format huggingface or --hub the folder")
    parser.add_argument("--out", dest="named_out", metavar="OUT", type=Path, help="the same by name")
    layout = parser.add_mutually_exclusive_group()
    layout.add_argument(
        "--hub",
        action="store_true",
        help="the checkpoint of --recipe: weights, tokenizer, generation settings and a card with its scores, without ids and paths",
    )
    layout.add_argument(
        "--format",
        choices=[layout.value for layout in Format],
        default=Format.DUCKDB.value,
        help="duckdb (default): all tables; trl: JSON lines of prompt, chosen and rejected as messages; sharegpt: JSON lines as "
        "LLaMA-Factory reads them; huggingface: a dataset folder with a card",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--recipe",
        metavar="NAME",
        help="the pairs that this recipe trains and validates on, with the persona as it shows it; with --hub its checkpoint",
    )
    which.add_argument("--source", choices=[source.value for source in Source], help="all kept pairs of a source, with the persona")
    parser.add_argument("--split", choices=SPLITS, help="one split; JSON lines: train if not given, huggingface: both")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")


def run(given: argparse.Namespace, lake: Lake, profile: Profile) -> str:
    """What the command line asks for; returns what came out.

    Raises:
        ValueError: What is asked for does not go together, or cannot be written.
    """
    from rlhi_dagster.export.hub import export_checkpoint
    from rlhi_dagster.export.selection import Selection
    from rlhi_dagster.export.writing import export

    out = given.out or given.named_out
    if out is None or (given.out and given.named_out):
        raise ValueError("export wants the file or folder to write, once: rlhi export --help")
    if given.hub:
        if not given.recipe or given.split or given.force:
            raise ValueError("--hub takes --recipe and OUT, and no --split or --force: a folder that holds something is never replaced")
        return export_checkpoint(out, given.recipe, lake, profile.recipes)
    selection = Selection(given.recipe, Source(given.source) if given.source else None, given.split)
    return export(out, Format(given.format), selection, lake, profile, force=given.force)
