"""How near the win rates that this project computes come to AlpacaEval's leaderboard, model by model.

What belongs here: differences to published numbers, on annotations that were published. The stand-in for the missing table never learns
from the model that it is tried on. What does not: a threshold (``tests/unit/test_evaluation_alpaca_eval.py``). Usage, with the published
files in FOLDER: ``python benchmarks/alpaca_lc.py FOLDER``; the results are recorded in ``docs/results/alpaca_eval.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rlhi_dagster.evaluation.alpaca_eval.annotations import Annotations, read
from rlhi_dagster.evaluation.alpaca_eval.length_control import length_controlled
from rlhi_dagster.evaluation.alpaca_eval.published import ANNOTATIONS, Published
from rlhi_dagster.evaluation.alpaca_eval.row import Row, row

COLUMNS = (
    *("model", "n", "win rate", "Δ leaderboard", "LC win rate, published", "Δ by its weights", "Δ refitted", "Δ own difficulties"),
    *("error, published", "error, bootstrap"),
)


def line(found: Row) -> tuple[str, ...]:
    """The cells of one model."""
    given, fitted = found.published, found.controlled
    listed = given[1] if given else None
    return (
        found.annotations.model,
        str(found.raw.n),
        f"{found.raw.win_rate:.2f}",
        "–" if given is None else f"{abs(found.raw.win_rate - given[0]):.0e}",
        "–" if listed is None else f"{listed:.2f}",
        "–" if listed is None or found.by_weights is None else f"{abs(found.by_weights - listed):.0e}",
        "–" if listed is None or fitted is None else f"{fitted.win_rate - listed:+.3f}",
        "" if listed is None or found.own_difficulties is None else f"{found.own_difficulties - listed:+.2f}",
        "–" if fitted is None else f"{fitted.standard_error:.2f}",
        "–" if fitted is None else f"{fitted.bootstrap_standard_error:.2f}",
    )


def refits(annotations: list[Annotations], folder: Path) -> dict[str, list[float]]:
    """Differences to the leaderboard of refits that know more or less."""
    published, found = Published(folder), dict[str, list[float]]()
    for each in annotations:
        difficulties, listed = published.difficulties_of(len(each.rows)), published.leaderboard.get(each.model)
        if difficulties is None or listed is None or each.model == each.baseline:
            continue
        held = Published(folder, left_out=each.model).gamed
        zeros = np.zeros(len(difficulties))
        for name, known, rows in (
            ("difficulties and the stand-in", difficulties, held),
            ("difficulties alone", difficulties, None),
            ("neither", zeros, None),
        ):
            found.setdefault(name, []).append(length_controlled(each.rows, known, rows).win_rate - listed["length_controlled_winrate"])
    return found


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="annotations.parquet, leaderboard.csv, glm_weights.csv, difficulties")
    folder = parser.parse_args().folder
    annotations = read(folder / ANNOTATIONS)
    rows = [COLUMNS, ("---", *["--:"] * (len(COLUMNS) - 1))]
    rows += [line(row(each, Published(folder, left_out=each.model))) for each in annotations]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in rows))
    print("\n| the refit knows | models | mean difference (absolute) | largest |\n|---|--:|--:|--:|")
    for name, differences in refits(annotations, folder).items():
        away = np.abs(differences)
        print(f"| {name} | {len(away)} | {away.mean():.2f} | {away.max():.2f} |")


if __name__ == "__main__":
    main()
