"""What a comparison can find, before and after it is made: spread, detectable differences, users needed, and when there are too few.

What belongs here: forecasts from a spread, and what is said of a difference. What does not: the intervals themselves (``base.intervals``)
and which recipes are compared (``scores``).

A forecast takes the variance of an item's difference and how alike the differences of one user are (their intra-class correlation): n items
of each of G users then tell as much as ``n G / (1 + (n - 1) correlation)`` independent ones. How often differences of known size are found
is recorded in ``benchmarks/README.md``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhi_dagster.base.intervals import Estimate, detectable

FEWEST_CLUSTERS = 5
"""Users (or single items) below which nothing is said: intervals have been tried from so many on."""
WORTH_FINDING = 0.05
"""A comparison that can miss a difference of so much has too few items; our choice."""
SIGNIFICANT = 0.05
_MOST_USERS = 10_000_000


@dataclass(frozen=True, slots=True)
class Spread:
    """How the differences of items vary.

    Attributes:
        variance: Of an item's difference.
        correlation: Share of it that is between users, 0 to 1.
    """

    variance: float
    correlation: float


ASSUMED = Spread(0.5, 0.1)
"""Before anything is measured: two replies that are right half the time whatever the other does, the most that shares can vary; our guess
of how alike a user's requests are."""


def spread(values: Iterable[float], clusters: Iterable[str]) -> Spread | None:
    """The variance of items and their intra-class correlation, by analysis of variance; ``None`` with fewer than two users.

    Args:
        values: One number per item.
        clusters: The user of each; where every user has one item the correlation is 0 and makes no difference.
    """
    items = np.asarray(list(values), dtype=np.float64)
    _, index = np.unique(np.asarray(list(clusters), dtype=str), return_inverse=True)
    counts = np.bincount(index).astype(np.float64)
    n, groups = len(items), len(counts)
    if groups < 2:
        return None
    means = np.bincount(index, weights=items) / counts
    between = float((counts * (means - items.mean()) ** 2).sum()) / (groups - 1)
    if n == groups:
        return Spread(between, 0.0)
    within = float(((items - means[index]) ** 2).sum()) / (n - groups)
    of_users = max((between - within) / ((n - (counts**2).sum() / n) / (groups - 1)), 0.0)
    total = of_users + within
    return Spread(total, of_users / total if total else 0.0)


def detectable_with(sizes: Sequence[int], expected: Spread, claims: int = 1) -> float:
    """Smallest true difference that is found four times out of five.

    Args:
        sizes: Items of each user; at least two users.
        expected: How differences are expected to vary.
        claims: Of the family; the strictest of Holm's levels is reckoned with.
    """
    counts = np.asarray(sizes, dtype=np.float64)
    variance = expected.variance * float((counts * (1 + (counts - 1) * expected.correlation)).sum()) / counts.sum() ** 2
    effective = counts.sum() ** 2 / (counts**2).sum()
    return detectable(math.sqrt(variance), max(float(effective) - 1, 1.0), claims)


def users_needed(difference: float, items_per_user: float, expected: Spread, claims: int = 1) -> int:
    """Users with which a difference is found four times out of five.

    Args:
        difference: The true one, above 0.
        items_per_user: How many items each has.
        expected: How differences are expected to vary.
        claims: Of the family.

    Raises:
        ValueError: ``difference`` is not above 0.
    """
    if not difference > 0:
        raise ValueError(f"a claim needs a difference above 0, not {difference}")
    variance = expected.variance * (1 + (items_per_user - 1) * expected.correlation) / items_per_user

    def found_from(users: int) -> float:
        return -detectable(math.sqrt(variance / users), users - 1, claims)

    return bisect_left(range(2, _MOST_USERS), -difference, key=found_from) + 2


def told(found: Estimate, *, is_difference: bool = False) -> dict[str, Any]:
    """What tables of results have of an estimate: `value`, `n`, `users`, `ci_low`, `ci_high` and `remark`."""
    ends = {"ci_low": found.ci_low, "ci_high": found.ci_high, "remark": remark(found, is_difference=is_difference)}
    return {"value": found.value, "n": found.n, "users": found.clusters, **ends}


def remark(found: Estimate, *, is_difference: bool) -> str | None:
    """Why an estimate says little; ``None`` if there is nothing to say.

    Args:
        found: A share, or a difference between two recipes on the same items.
        is_difference: It is a difference, of which 0 means none.
    """
    if found.clusters < FEWEST_CLUSTERS:
        return f"too few: only {found.clusters} independent users or items"
    if not is_difference:
        return None
    smallest = found.minimum_detectable_effect
    if smallest is None or found.ci_low is None or found.ci_high is None:
        return "nothing varies between users, so no interval"
    if found.ci_low <= 0 <= found.ci_high and smallest > WORTH_FINDING:
        return f"too few items: a difference under {smallest:.3f} is easily missed"
    return None
