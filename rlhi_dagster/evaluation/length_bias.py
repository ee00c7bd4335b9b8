"""What the length of a reply does to a verdict, and what the verdict would be at equal length.

What belongs here: one logistic regression over plain numbers. What does not: AlpacaEval's own regression, which is held to its published
baseline (``alpaca_eval.length_control``), and tables (``scores``, ``judge_quality``).

The log-odds that a reply wins are ``lead + slope * log2(its length / the other's)``; a tie is half a win. The slope has a normal prior of
standard deviation `PRIOR`, so that it stays finite where the longer reply always wins. Covariances are robust to users as clusters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rlhi_dagster.base.intervals import Estimate

PRIOR = 4.0
"""Log-odds a doubling; a slope so large turns even chances into 98 of 100."""
_STEPS = 50


@dataclass(frozen=True, slots=True)
class LengthFit:
    """The regression.

    Attributes:
        slope: Change of the log-odds of winning with every doubling of the length; 0 for a judge that does not go by it.
        controlled: Share that would be won at equal length.
    """

    slope: Estimate
    controlled: Estimate


def fit(won: Iterable[float], doublings: Iterable[float], clusters: Iterable[str]) -> LengthFit | None:
    """Fit the regression.

    Args:
        won: Of each pair how much of a win it is, 0 to 1.
        doublings: Of each the base-2 logarithm of the length ratio.
        clusters: The user of each.

    Returns:
        The fit; ``None`` with fewer than three users, or where all pairs have one and the same ratio.
    """
    from scipy.special import expit, stdtrit

    y, ratio = np.asarray(list(won), dtype=np.float64), np.asarray(list(doublings), dtype=np.float64)
    _, index = np.unique(np.asarray(list(clusters), dtype=str), return_inverse=True)
    users = int(index.max()) + 1 if len(y) else 0
    if users < 3 or np.ptp(ratio) == 0:
        return None
    features, penalty, weights = np.stack([np.ones_like(ratio), ratio], axis=1), np.diag([1e-6, 1 / PRIOR**2]), np.zeros(2)
    for _ in range(_STEPS):
        share = expit(features @ weights)
        bread = (features * (share * (1 - share))[:, None]).T @ features + penalty
        step = np.linalg.solve(bread, features.T @ (y - share) - penalty @ weights)
        weights = weights + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    inverse = np.linalg.inv(bread)
    scores = np.zeros((users, 2))
    np.add.at(scores, index, features * (y - share)[:, None])
    covariance = inverse @ (scores.T @ scores) @ inverse * users / (users - 1)
    errors, quantile = np.sqrt(np.diag(covariance)), float(stdtrit(users - 1, 0.975))
    (lead, slope), halves = map(float, weights), errors * quantile
    told = (len(y), users)
    at_equal = (float(expit(lead)), float(expit(lead - halves[0])), float(expit(lead + halves[0])))
    return LengthFit(Estimate(slope, slope - float(halves[1]), slope + float(halves[1]), *told), Estimate(*at_equal, *told))
