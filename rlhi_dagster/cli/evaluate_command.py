"""The command ``rlhi evaluate``: public benchmarks for a checkpoint folder.

What belongs here: the command line. What does not: which assets are made where (``api.checkpoints``).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi_dagster.base import escapes
from rlhi_dagster.cli import score_table
from rlhi_dagster.evaluation import OF_A_RUN, Benchmark

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    asked = [each.value for each in Benchmark if each not in OF_A_RUN]
    parser = commands.add_parser(
        "evaluate",
        help="score a checkpoint folder on public benchmarks",
        description="Let any checkpoint answer public benchmarks, and print its scores. RLHI_PROFILE says on which engine, how replies are "
        "sampled, and which model judges. Replies are kept: the same command again goes on where it stopped.",
        epilog=f"Benchmarks: {', '.join(asked)}. docs/concepts/benchmarks.md says which files each needs; nothing is downloaded.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="with safetensors, config, tokenizer and chat template")
    parser.add_argument(
        "--benchmarks",
        metavar="NAME[=FILES]",
        nargs="+",
        default=[],
        help="which, and where the files of each lie; without =FILES where evaluation.benchmarks of the profile says (default: all there)",
    )


def run(given: argparse.Namespace) -> str:
    """Evaluate the checkpoint; return its scores as a table.

    Raises:
        ValueError: A benchmark is unknown, or nobody said where its files lie.
    """
    from rlhi_dagster.api.checkpoints import evaluated

    places = {name: place for name, _, place in (each.partition("=") for each in given.benchmarks)}
    found = evaluated(given.folder, places)
    return escapes.lines([*score_table.lines(found.scores), "", f"{found.model}; replies, ratings and grades: {found.outputs}"])
