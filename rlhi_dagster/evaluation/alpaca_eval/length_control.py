"""The length-controlled win rate of AlpacaEval: what the win rate would be if the outputs were as long as the baseline's.

What belongs here: the regression (Dubois et al. 2024, ``length_controlled_v1`` of ``alpaca_eval``), and the win rate that it or given
weights predict. What does not: the rows that hold the regression to the baseline (``gamed``).

The log-odds of a win are ``length * tanh(d) + difficulty * (difficulty of the instruction) + model``, where ``d`` is the baseline's length
minus the model's, over its standard deviation. Fitted by logistic regression with an L1 penalty, whose strength five-fold cross-validation
chooses; a preference of 1.7 counts as 0.7 of a win and 0.3 of a loss. The win rate is the mean prediction at ``d = 0``.

As published, the n-th row gets the difficulty of the n-th instruction. Where rows are missing, all after the first gap get a neighbour's.
We do as published, or nothing would compare (docs/concepts/alpaca_eval.md says what it changes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)
"""Inverses of the L1 penalty that cross-validation chooses among."""
RESAMPLES = 200
SEED = 123
"""Of the solver, as published. In cross-validation the strengths of a fold share one state, as in scikit-learn: ties are that close."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weights:
    """Coefficients of the regression.

    Attributes:
        length: Of the tanh of the standardised length difference.
        difficulty: Of the instruction's difficulty.
        model: Log-odds of the model against the baseline at equal length and difficulty 0.
    """

    length: float
    difficulty: float
    model: float


@dataclass(frozen=True, slots=True)
class Design:
    """Rows of the regression.

    Attributes:
        features: Shape (rows, 3), in the order of `Weights`; the last one is 1, or 0 for versions of the baseline.
        wins: Shape (rows,): how much of a win each row is, 0 to 1.
        weights: Shape (rows,): how much each row counts.
        folds: Shape (rows,): the fold of cross-validation that tests the row.
    """

    features: Floats
    wins: Floats
    weights: Floats
    folds: npt.NDArray[np.int64]

    def __add__(self, other: Design) -> Design:
        return Design(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("features", "wins", "weights", "folds")))

    def kept(self, where: npt.NDArray[np.bool_]) -> Design:
        """The rows at which ``where`` is true."""
        return Design(self.features[where], self.wins[where], self.weights[where], self.folds[where])


@dataclass(frozen=True, slots=True)
class Gamed:
    """The baseline's short and long versions against itself, to which the regression is held.

    Attributes:
        design: The rows.
        positions: Rows of the published table; a model's own rows come after them when folds are dealt out.
        is_published: The rows are the published ones, and no stand-in.
    """

    design: Design
    positions: int
    is_published: bool


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate.

    Attributes:
        win_rate: In percent.
        standard_error: As published, in percent: of the mean of the predictions, as if the fit had no error of its own.
        bootstrap_standard_error: In percent: standard deviation over refits to instructions drawn with replacement.
        ci_low: Lower end of the 95 % percentile interval of those refits, in percent.
        ci_high: Upper end of it.
        weights: The coefficients.
        strength: The inverse penalty that was chosen.
    """

    win_rate: float
    standard_error: float
    bootstrap_standard_error: float
    ci_low: float
    ci_high: float
    weights: Weights
    strength: float


def length_controlled(rows: pl.DataFrame, difficulties: Floats, gamed: Gamed | None, seed: int = 0) -> LengthControlled:
    """Fit the regression to one model's annotations and predict at equal length.

    Args:
        rows: ``annotations.ROW_SCHEMA``. Rows without a preference are left out of the fit and predicted for, as published.
        difficulties: Of the rows, in their order; zeros to do without.
        gamed: What the fit is held to; ``None`` to do without.
        seed: Of the bootstrap.

    Raises:
        ValueError: There are fewer rows with a preference than folds.
    """
    own = design(rows, difficulties, 0 if gamed is None else gamed.positions)
    if len(own.wins) < FOLDS:
        raise ValueError(f"{len(own.wins)} rows have a preference; length control needs {FOLDS} at least")
    joined = _joined(own, gamed)
    strength = _chosen_strength(joined)
    weights = fit(joined, strength)
    predicted = predictions(weights, difficulties)
    means = np.array([_resampled(own, difficulties, gamed, strength, rng) for rng in np.random.default_rng(seed).spawn(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return LengthControlled(
        100 * float(predicted.mean()),
        standard_error(predicted),
        100 * float(means.std(ddof=1)),
        100 * float(low),
        100 * float(high),
        weights,
        strength,
    )


def predictions(weights: Weights, difficulties: Floats) -> Floats:
    """Probability that the model wins at equal length, for each difficulty."""
    from scipy.special import expit

    predicted: Floats = expit(weights.model + weights.difficulty * difficulties)
    return predicted


def standard_error(predicted: Floats) -> float:
    """Of the mean of predictions, in percent, as published."""
    return 100 * float(predicted.std(ddof=1)) / len(predicted) ** 0.5


def design(rows: pl.DataFrame, difficulties: Floats, positions_before: int = 0) -> Design:
    """The rows with a preference as rows of the regression.

    Args:
        rows: ``annotations.ROW_SCHEMA``, without nulls in the lengths.
        difficulties: Of the rows, in their order.
        positions_before: Rows that come before these when folds are dealt out.
    """
    difference = (rows["baseline_length"] - rows["model_length"]).cast(pl.Float64).to_numpy()
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    length = np.tanh(difference / spread) if spread > 0 else np.zeros(len(difference))
    is_known = rows["preference"].is_not_null().to_numpy()
    features = np.column_stack([length, difficulties, np.ones(len(rows))])[is_known]
    wins = rows["preference"].drop_nulls().to_numpy() - 1
    return Design(features, wins, np.ones(len(wins)), folds(positions_before + len(wins))[positions_before:])


def folds(count: int) -> npt.NDArray[np.int64]:
    """The fold of each of ``count`` rows, as scikit-learn deals out groups of two (every row is there as a win and as a loss)."""
    from sklearn.model_selection import GroupKFold

    groups = np.tile(np.arange(count), 2)
    dealt = np.zeros(count, dtype=np.int64)
    for fold, (_, tested) in enumerate(GroupKFold(FOLDS).split(groups, groups=groups)) if count >= FOLDS else ():
        dealt[groups[tested]] = fold
    return dealt


def fit(rows: Design, strength: float, random_state: np.random.RandomState | int = SEED) -> Weights:
    """The coefficients, with an L1 penalty of inverse strength ``strength`` on all of them."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=random_state)
    is_win, counts = np.repeat([1, 0], len(rows.wins)), np.concatenate([rows.weights * rows.wins, rows.weights * (1 - rows.wins)])
    model.fit(np.tile(rows.features, (2, 1)), is_win, sample_weight=counts)
    return Weights(*map(float, model.coef_[0]))


def _joined(own: Design, gamed: Gamed | None) -> Design:
    if gamed is None:
        return own
    rows = gamed.design + own
    return replace(rows, folds=folds(len(rows.wins))) if gamed.is_published else rows


def _chosen_strength(rows: Design) -> float:
    """Of the strengths the one that predicts rows best that it was not fitted to; of equals the strictest."""
    likelihood = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        fitted, tested, state = rows.kept(rows.folds != fold), rows.kept(rows.folds == fold), np.random.RandomState(SEED)
        likelihood += [_mean_likelihood(fit(fitted, strength, state), tested) for strength in STRENGTHS]
    return float(STRENGTHS[np.argmax(likelihood)])


def _mean_likelihood(weights: Weights, rows: Design) -> float:
    from scipy.special import expit

    chance = np.clip(expit(rows.features @ [weights.length, weights.difficulty, weights.model]), 1e-15, 1 - 1e-15)
    return float((rows.weights * (rows.wins * np.log(chance) + (1 - rows.wins) * np.log1p(-chance))).mean())


def _resampled(own: Design, difficulties: Floats, gamed: Gamed | None, strength: float, rng: np.random.Generator) -> float:
    """The win rate of a refit to the same number of instructions, drawn with replacement."""
    drawn = np.bincount(rng.integers(0, len(own.wins), len(own.wins)), minlength=len(own.wins)).astype(np.float64)
    weights = fit(_joined(replace(own, weights=drawn), gamed), strength)
    return float(predictions(weights, difficulties).mean())
