"""What holds the length-controlled regression to the baseline: the published table, or a stand-in that published weights give away.

The regression of every model is fitted together with two more comparisons, of the baseline's short and its long version with the baseline
(``df_gamed.csv`` of the data set ``tatsu-lab/alpaca_eval``): 1,610 rows that count a tenth each and have no term for the model. They keep
the coefficient of the length near what it is for one and the same model.

Without that table there is a stand-in. Where a model's weights were published together with its annotations, the slope of the loss on its
own rows is known, and that of the missing rows, at these weights, is its opposite (less the penalty, which shows in the term for the model,
where the missing rows have no part). So each such model gives two equations about the missing rows, linear in how many wins and losses they
have at each place of a grid of lengths and difficulties. Non-negative least squares solves them. How near it comes:
docs/concepts/alpaca_eval.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from rlhi_dagster.evaluation.alpaca_eval import INSTRUCTIONS
from rlhi_dagster.evaluation.alpaca_eval.length_control import FOLDS, STRENGTHS, Design, Floats, Gamed, Weights, folds

COUNTS = 0.1
"""How much a row of the two versions counts: 0.2, halved because there are two."""
POSITIONS = 2 * INSTRUCTIONS
FEWEST_MODELS = 5
"""With fewer published models the stand-in would rest on too little."""
_LENGTHS = np.tanh([-3, -2, -1.3, -0.8, -0.4, -0.15, 0, 0.15, 0.4, 0.8, 1.3, 2, 3])
_QUANTILES = (0.005, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.995)


def published(path: Path) -> tuple[Gamed, Floats]:
    """The published table, and the instructions' difficulties, which it has too.

    Args:
        path: ``df_gamed.csv``, with `index`, `preference` (0 to 1), `std_delta_len` and `instruction_difficulty`.

    Raises:
        ValueError: A column is missing.
    """
    table = pl.read_csv(path)
    wanted = ["index", "preference", "std_delta_len", "instruction_difficulty"]
    if missing := [name for name in wanted if name not in table.columns]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; wanted is df_gamed.csv of the data set tatsu-lab/alpaca_eval")
    difficulties = table.unique("index").sort("index")["instruction_difficulty"].to_numpy()
    known = table.filter(pl.col("preference").is_not_null() & pl.col("preference").is_not_nan())
    features = np.column_stack([np.tanh(known["std_delta_len"]), known["instruction_difficulty"], np.zeros(len(known))])
    wins, count = known["preference"].to_numpy(), len(known)
    return Gamed(Design(features, wins, np.full(count, COUNTS), folds(count)), count, is_published=True), difficulties


def stand_in(models: Iterable[tuple[Design, Weights]], difficulties: Floats) -> Gamed | None:
    """Rows that pull the regression as the missing ones did, at the weights of published models.

    Args:
        models: Of each model its own rows and its published weights; both not 0.
        difficulties: Of all instructions.

    Returns:
        The rows, each spread over all folds; ``None`` if there are too few models.
    """
    from scipy.optimize import nnls
    from scipy.special import expit

    grid = np.array(list(product(_LENGTHS, np.quantile(difficulties, _QUANTILES))))
    equations, pulls = [], []
    for rows, weights in models:
        chance = expit(grid @ [weights.length, weights.difficulty])[:, None] * grid
        equations += np.concatenate([chance - grid, chance]).T.tolist()
        pulls += _missing_pull(rows, weights).tolist()
    if len(equations) < 2 * FEWEST_MODELS:
        return None
    counts, _ = nnls(np.array(equations), np.array(pulls), maxiter=100 * len(grid))
    wins, losses = counts[: len(grid)], counts[len(grid) :]
    used = wins + losses > 0
    features = np.column_stack([grid, np.zeros(len(grid))])[used]
    shares, sizes = wins[used] / (wins + losses)[used], (wins + losses)[used]
    spread = [Design(features, shares, sizes / FOLDS, np.full(len(sizes), fold)) for fold in range(FOLDS)]
    return Gamed(sum(spread[1:], spread[0]), POSITIONS, is_published=False)


def _missing_pull(rows: Design, weights: Weights) -> Floats:
    """Slope of the missing rows' loss by the first two weights: at the published weights all slopes and the penalty's add up to 0."""
    from scipy.special import expit

    values = np.array([weights.length, weights.difficulty, weights.model])
    own = rows.features.T @ (rows.weights * (expit(rows.features @ values) - rows.wins))
    penalties = 1 / STRENGTHS
    penalty = penalties[np.argmin(np.abs(np.log(penalties) - np.log(np.maximum(abs(own[2]), 1e-9))))]
    pull: Floats = -(own[:2] + np.sign(values[:2]) * penalty)
    return pull
