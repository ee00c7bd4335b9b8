"""``rlhi alpaca-lc``: the command's arguments, and what is printed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_dagster.evaluation import Benchmark

if TYPE_CHECKING:
    from rlhi_dagster.evaluation.alpaca_eval.row import Row


def add_parser(commands: Any) -> None:
    """Add ``alpaca-lc`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "alpaca-lc",
        help="print win rate and length-controlled win rate of AlpacaEval annotations, without a run and without a network",
        description="Win rate and length-controlled win rate (AlpacaEval 2.0) of annotations that a judge has made, as alpaca_eval "
        "computes them, without asking a model. Says who judged and whether the numbers compare with published ones: "
        "docs/concepts/alpaca_eval.md.",
    )
    parser.add_argument(
        "annotations",
        metavar="ANNOTATIONS",
        type=Path,
        help="annotations.json as alpaca_eval writes it, or the same rows as .jsonl, .csv or .parquet: preference (1 the baseline is "
        "better, 2 the model is), output_1, output_2, generator_1, generator_2, instruction, annotator",
    )
    parser.add_argument(
        "--published",
        metavar="FOLDER",
        type=Path,
        help="the published files: instruction_difficulty.csv and df_gamed.csv of the data set tatsu-lab/alpaca_eval; if not given, the "
        "folder of evaluation.benchmarks.alpaca_eval in the profile, else that of ANNOTATIONS",
    )
    parser.add_argument("--model", metavar="NAME", help="only this one, if the file has several")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: The annotations cannot be read, or there are none of the model.
    """
    from rlhi_dagster.evaluation.alpaca_eval.annotations import read
    from rlhi_dagster.evaluation.alpaca_eval.published import Published
    from rlhi_dagster.evaluation.alpaca_eval.row import row

    published = Published(given.published or _folder() or given.annotations.parent)
    found = read(given.annotations, published.instructions)
    chosen = [each for each in found if given.model in (None, each.model)]
    if not chosen:
        names = ", ".join(each.model for each in found)
        raise ValueError(f"{given.annotations}: no annotations of {given.model}; there are some of {names}")
    return "\n\n".join(text(row(each, published)) for each in chosen)


def _folder() -> Path | None:
    from rlhi_dagster import profiles

    folder = profiles.current().evaluation.benchmarks.get(Benchmark.ALPACA_EVAL)
    return profiles.project_path(folder) if folder else None


def text(row: Row) -> str:
    """What was found, for a terminal."""
    raw = row.raw
    lines = [
        ("model", row.annotations.model),
        ("baseline", row.annotations.baseline),
        ("judge", row.annotations.judge or "not named in the file"),
        ("win rate", f"{raw.win_rate:.2f} (standard error {raw.standard_error:.2f})"),
        ("LC win rate", _controlled(row)),
        ("discrete", f"{raw.discrete_win_rate:.2f} ({raw.wins} wins, {raw.losses} losses, {raw.draws} draws)"),
        ("n", f"{raw.n}, {row.missing} missing"),
        ("mean length", f"{row.length:.0f} characters; the baseline {row.baseline_length:.0f}"),
    ]
    if row.published:
        lines.append(("leaderboard", f"win rate {row.published[0]:.2f}, LC win rate {row.published[1]:.2f}"))
    if row.by_weights is not None:
        lines.append(("its weights", f"LC win rate {row.by_weights:.2f}"))
    if row.own_difficulties is not None:
        why = "each row with its own instruction's difficulty; alpaca_eval gives rows after a missing one a neighbour's"
        lines.append(("without gaps", f"LC win rate {row.own_difficulties:.2f}, {why}"))
    against = [f"no: {why}" for why in row.differs]
    against += [f"LC win rate not: {why}" for why in row.controlled_differs] if row.controlled else []
    lines += [("comparable", said) for said in against or ["yes, with the published leaderboard"]]
    lines += [("regression", f"held to the baseline by {row.held_by}")] if row.controlled else []
    return "\n".join(f"{name:<14}{said}" for name, said in [*lines, *(("rows", note) for note in row.annotations.notes)])


def _controlled(row: Row) -> str:
    found = row.controlled
    if found is None and row.controlled_differs:
        return f"not computed: {row.controlled_differs[0]}; name their folder with --published"
    if found is None:
        return "50.00 (the baseline against itself)"
    errors = f"standard error {found.standard_error:.2f} as published, {found.bootstrap_standard_error:.2f} with the regression's own"
    return f"{found.win_rate:.2f} ({errors}; 95 % interval {found.ci_low:.2f} to {found.ci_high:.2f})"
