"""Means with 95 % intervals that respect clusters: the items of one user are not independent.

What belongs here: the interval of a mean over clusters, of one over clusters and seeds, of a difference of two, Wilson's interval, and
Holm's correction, over plain numbers. What does not: metrics and tables (``scores``), and how many items a claim needs
(``evaluation.power``).

Method. A mean over items is a ratio of two sums over clusters, so its variance is linearised (the survey standard, as ``svyciprop`` of R's
``survey``; Korn & Graubard, 1998) from the clusters' residuals ``e = sum - mean * count``. Two corrections make it hold with few clusters,
uneven ones and rare events:

- Variance: ``sum(e²) / N² * G / (G - 1)``, with ``G = N² / sum(count²)`` for the number of clusters, Kish's effective one.
- Degrees of freedom of Student's t: those of Satterthwaite, from the residuals' fourth moment,
  ``2 (sum e²)² / (sum e⁴ - (sum e²)² / C)`` with C clusters, at most G - 1. Where one user of fifty has all the hits the variance is
  hardly known, and the interval says so.

Shares get their interval on the logit scale, so it stays in [0, 1]. Chosen by simulation among the percentile and the studentized bootstrap
and the cluster-robust variances CR1, CR2 and CR3 with several degrees of freedom: ``benchmarks/coverage.py``.

Where the residuals are all zero (0 malformed of 250), or there is one cluster, a quantity in [0, 1] gets Wilson's interval - over items
for a single cluster (it then speaks about that user alone), over clusters otherwise (conservative) - and a difference gets none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

POWER = 0.8
"""How often a difference of the size called detectable is found."""
POWERS = tuple((i, order - i) for order in (1, 2, 4) for i in range(order + 1))
"""Of an interval's `Moments`: of (i, j) the sum over clusters of count^i * sum^j."""
_LEVEL = 0.975
_Z_95 = 1.959963984540054
_NO_VARIANCE = 1e-15

Floats = npt.NDArray[np.float64]
Moments = Mapping[tuple[int, int], float]
"""By (i, j) of `POWERS` the sum over clusters of count^i * sum^j."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and what is known about its precision.

    Attributes:
        value: The mean over items; ``None`` without items.
        ci_low: Lower end of the 95 % interval; ``None`` where there is none.
        ci_high: Upper end of the 95 % interval; ``None`` where there is none.
        n: Items.
        clusters: Distinct users (or items, where there are no users).
        standard_error: Of the mean; ``None`` where nothing varies or there is one cluster.
        degrees_of_freedom: How well that is known, as Student's t counts it; ``None`` with it.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    clusters: int
    standard_error: float | None = None
    degrees_of_freedom: float | None = None

    @property
    def minimum_detectable_effect(self) -> float | None:
        """Smallest true effect found with 80 % power at the two-sided 5 % level, given this standard error."""
        if self.standard_error is None or self.degrees_of_freedom is None:
            return None
        return detectable(self.standard_error, self.degrees_of_freedom)

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of the mean being 0, by the same t as the interval of a difference; ``None`` where there is no interval."""
        if self.value is None or self.standard_error is None or self.degrees_of_freedom is None:
            return None
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.value) / self.standard_error))


def estimate(values: Iterable[float], clusters: Iterable[str], *, is_share: bool) -> Estimate:
    """Mean of ``values`` with an interval clustered by ``clusters``.

    Args:
        values: One number per item.
        clusters: The cluster of each item, in the same order.
        is_share: The values lie in [0, 1], and so does the interval.

    Raises:
        ValueError: The lengths differ.
    """
    items = np.asarray(list(values), dtype=np.float64)
    _, index = np.unique(np.asarray(list(clusters), dtype=str), return_inverse=True)
    if len(items) != len(index):
        raise ValueError(f"{len(items)} values but {len(index)} clusters")
    counts = np.bincount(index).astype(np.float64)
    sums = np.bincount(index, weights=items).astype(np.float64)
    return from_moments(len(counts), moments(counts, sums), is_share=is_share)


def difference_of_independent(
    left: tuple[float, float | None, float | None], right: tuple[float, float | None, float | None]
) -> tuple[float, float | None, float | None]:
    """Left minus right of two estimates on independent samples, with the interval that follows from theirs.

    Each end takes the distances of both values to their own ends (MOVER: Zou & Donner, 2008, doi:10.1002/sim.3095; of two shares with
    Wilson's intervals it is Newcombe's). On the same sample it is too wide wherever the two go together.

    Args:
        left: Value, lower and upper end.
        right: The same.

    Returns:
        Difference, lower and upper end; without ends where one of the two has none.
    """
    (value, low, high), (other, other_low, other_high) = left, right
    difference = value - other
    if low is None or high is None or other_low is None or other_high is None:
        return difference, None, None
    return difference, difference - math.hypot(value - low, other_high - other), difference + math.hypot(high - value, other - other_low)


def moments(counts: Floats, sums: Floats) -> dict[tuple[int, int], float]:
    """What `from_moments` needs of clusters, from the items of each and their sum."""
    return {(i, j): float((counts**i * sums**j).sum()) for i, j in POWERS}


def from_moments(clusters: int, of: Moments, *, is_share: bool) -> Estimate:
    """A mean with its interval from sums over clusters, which a scan gives of any number of them.

    Args:
        clusters: How many there are.
        of: Their moments; clusters without items may be among them.
        is_share: The values lie in [0, 1], and so does the interval.
    """
    n = round(of[1, 0])
    if not n:
        return Estimate(None, None, None, 0, 0)
    value = of[0, 1] / n
    squares = max(of[0, 2] - 2 * value * of[1, 1] + value**2 * of[2, 0], 0.0)
    if clusters == 1 or squares / n**2 <= _NO_VARIANCE:
        low, high = wilson(min(max(value, 0.0), 1.0), n if clusters == 1 else clusters) if is_share else (None, None)
        return Estimate(value, low, high, n, clusters)
    fourth = sum(c * (-value) ** i * of[i, 4 - i] for i, c in enumerate((1, 4, 6, 4, 1)))
    effective = n**2 / of[2, 0]
    variance = squares / n**2 * effective / (effective - 1)
    freedom = max(1.0, min(effective - 1, 2 * squares**2 / max(fourth - squares**2 / clusters, 1e-12 * squares**2)))
    low, high = _ends(value, _quantile(freedom) * math.sqrt(variance), is_share=is_share)
    return Estimate(value, low, high, n, clusters, math.sqrt(variance), freedom)


@dataclass(frozen=True, slots=True)
class SeedEstimate:
    """A mean over users and seeds, and what its variance is made of.

    Attributes:
        mean: Over items and seeds; ``n`` counts items once, ``standard_error`` is of users and seeds together.
        by_seed: Means of the seeds, in the order of their names.
        users: Part of the variance of the mean that more users would take away.
        seeds: Part that more seeds would take away.
        interaction: Part that either would: users who gain in one seed and not in another, and the items' own noise.
    """

    mean: Estimate
    by_seed: Sequence[float]
    users: float
    seeds: float
    interaction: float


def estimate_over_seeds(values: Iterable[float], clusters: Iterable[str], seeds: Iterable[str], *, is_share: bool) -> SeedEstimate:
    """Mean over users and seeds, with an interval for other users *and* other seeds of the whole pipeline.

    Users are crossed with seeds: every seed has the same items. The variance of the mean is that over users of their means over seeds, plus
    that over seeds of their means, minus that of the interaction, which both hold (two-way clustering; Cameron, Gelbach & Miller, 2011).
    The interval's half-width is the root of the sum of squares of two, each with its own t: with three seeds the part of the seeds has two
    degrees of freedom, however many users there are. With two seeds it covers too little where they make most of the variance.

    Args:
        values: One number per item and seed.
        clusters: The user of each.
        seeds: The seed of each.
        is_share: The values lie in [0, 1], and so does the interval.

    Raises:
        ValueError: There are fewer than two seeds, or a user has not equally many items in all of them.
    """
    items = np.asarray(list(values), dtype=np.float64)
    names, user = np.unique(np.asarray(list(clusters), dtype=str), return_inverse=True)
    runs, seed = np.unique(np.asarray(list(seeds), dtype=str), return_inverse=True)
    shape = (len(names), len(runs))
    counts = np.bincount(user * shape[1] + seed, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    if shape[1] < 2 or not (counts == counts[:, :1]).all():
        raise ValueError(f"{shape[1]} seed(s) of {shape[0]} users: at least two are needed, each with the same items of the same users")
    sums = np.bincount(user * shape[1] + seed, weights=items, minlength=counts.size).reshape(shape)
    per_seed = counts[:, 0]
    found = from_moments(shape[0], moments(per_seed, sums.mean(axis=1)), is_share=is_share)
    by_seed = sums.sum(axis=0) / per_seed.sum()
    between = float(by_seed.var(ddof=1)) / shape[1]
    if found.value is None or shape[0] == 1 or (not found.standard_error and between <= _NO_VARIANCE):
        return SeedEstimate(found, by_seed.tolist(), 0.0, between, 0.0)
    residuals = sums - sums.mean(axis=1, keepdims=True) - per_seed[:, None] * (by_seed - by_seed.mean())
    effective = per_seed.sum() ** 2 / (per_seed**2).sum()
    both = float((residuals**2).sum()) / (shape[1] * (shape[1] - 1)) / per_seed.sum() ** 2 * effective / (effective - 1)
    parts = [(found.standard_error or 0.0, found.degrees_of_freedom or math.inf), (math.sqrt(max(between - both, 0.0)), shape[1] - 1.0)]
    half = math.hypot(*(_quantile(freedom) * error for error, freedom in parts))
    variance = sum(error**2 for error, _ in parts)
    freedom = variance**2 / sum(error**4 / freedom for error, freedom in parts)
    low, high = _ends(found.value, half, is_share=is_share)
    mean = Estimate(found.value, low, high, found.n, found.clusters, math.sqrt(variance), freedom)
    return SeedEstimate(mean, by_seed.tolist(), max(parts[0][0] ** 2 - both, 0.0), parts[1][0] ** 2, both)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent shares, each counting the same however many items it has; their variances add (Welch and Satterthwaite).

    Args:
        estimates: At least one, each with a value; one in which nothing varies adds no variance.
    """
    value = float(np.mean([each.value for each in estimates]))
    parts = [(each.standard_error / len(estimates), each.degrees_of_freedom) for each in estimates if each.standard_error]
    n, clusters = sum(each.n for each in estimates), sum(each.clusters for each in estimates)
    variance = sum(error**2 for error, _ in parts)
    if not variance:
        return Estimate(value, *wilson(value, clusters), n, clusters)
    freedom = variance**2 / sum(error**4 / (freedom or math.inf) for error, freedom in parts)
    low, high = _ends(value, _quantile(freedom) * math.sqrt(variance), is_share=True)
    return Estimate(value, low, high, n, clusters, math.sqrt(variance), freedom)


def detectable(standard_error: float, degrees_of_freedom: float, claims: int = 1) -> float:
    """Smallest true difference that a two-sided test at 5 %, or at 5 % / claims, finds with `POWER`, given the standard error."""
    from scipy.special import stdtrit

    return float((stdtrit(degrees_of_freedom, 1 - (1 - _LEVEL) / claims) + stdtrit(degrees_of_freedom, POWER)) * standard_error)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for there being several (Holm, 1979): of those under 0.05, wrong ones are among them in 5 % of families at most.

    Args:
        p_values: Of one family of claims; ``None`` for a claim that could not be tested, which does not count.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(tested):
        adjusted[place] = highest = min(1.0, max(highest, (len(tested) - rank) * p))
    return adjusted


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``n`` independent items."""
    z2 = _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _quantile(degrees_of_freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(min(degrees_of_freedom, 1e9), _LEVEL))


def _ends(value: float, half: float, *, is_share: bool) -> tuple[float, float]:
    """The interval: of a share on the logit scale."""
    if not is_share:
        return value - half, value + half
    from scipy.special import expit, logit

    half /= value * (1 - value)
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))
