"""Means with 95 % intervals that respect clusters: the items of one user are not independent.

What belongs here: the bootstrap and the Wilson interval over plain arrays. What does not: metrics and tables (``scores``).

Method, our choice: whole clusters are drawn with replacement (2,000 resamples, fixed seed) and the percentile interval of
the resampled means is taken; only per-cluster sums and counts are needed, so it is one array operation. Two cases carry too
little variation for a bootstrap: one cluster, and values that are all the same (0 malformed of 250). There, a quantity in
[0, 1] gets the Wilson interval - over items for a single cluster (it then speaks about that user alone), over clusters
otherwise (conservative: the items of a user may go together) - and a difference gets none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
SEED = 0
_Z_95 = 1.959963984540054
_Z_POWER_80 = 0.8416212335729143
_DRAWS_AT_ONCE = 2_000_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and what is known about its precision.

    Attributes:
        value: The mean over items; ``None`` without items.
        ci_low: Lower end of the 95 % interval; ``None`` where there is none.
        ci_high: Upper end of the 95 % interval; ``None`` where there is none.
        n: Items.
        clusters: Distinct users (or items, where there are no users).
        standard_error: Standard deviation over resamples; ``None`` where the bootstrap does not apply.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    clusters: int
    standard_error: float | None

    @property
    def minimum_detectable_effect(self) -> float | None:
        """Smallest true effect found with 80 % power at the two-sided 5 % level, given this standard error."""
        return None if self.standard_error is None else (_Z_95 + _Z_POWER_80) * self.standard_error


def estimate(values: Iterable[float], clusters: Iterable[str], *, is_share: bool) -> Estimate:
    """Mean of ``values`` with an interval clustered by ``clusters``.

    Args:
        values: One number per item.
        clusters: The cluster of each item, in the same order.
        is_share: The values lie in [0, 1], so that the Wilson interval can stand in for a bootstrap without variation.

    Raises:
        ValueError: The lengths differ.
    """
    items = np.asarray(list(values), dtype=np.float64)
    _, index = np.unique(np.asarray(list(clusters), dtype=str), return_inverse=True)
    if len(items) != len(index):
        raise ValueError(f"{len(items)} values but {len(index)} clusters")
    if not len(items):
        return Estimate(None, None, None, 0, 0, None)
    sums = np.bincount(index, weights=items).astype(np.float64)
    counts = np.bincount(index).astype(np.float64)
    value = float(items.mean())
    if len(sums) == 1 or np.ptp(items) == 0.0:
        effective = len(items) if len(sums) == 1 else len(sums)
        low, high = wilson(value, effective) if is_share else (None, None)
        return Estimate(value, low, high, len(items), len(sums), None)
    means = resampled_means(sums, counts)
    low, high = (float(end) for end in np.quantile(means, [0.025, 0.975]))
    return Estimate(value, low, high, len(items), len(sums), float(means.std(ddof=1)))


def resampled_means(sums: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Means of ``resamples`` draws of whole clusters with replacement, from per-cluster sums and counts."""
    rng = np.random.default_rng(seed)
    size = len(sums)
    batch = max(1, _DRAWS_AT_ONCE // size)
    means = np.empty(resamples)
    for start in range(0, resamples, batch):
        stop = min(start + batch, resamples)
        drawn = rng.integers(0, size, size=(stop - start, size))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``n`` independent items."""
    z2 = _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
