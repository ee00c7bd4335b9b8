"""Diversity of unit vectors as an entropy: the Vendi score and the entropy over clusters.

What belongs here: both measures, and their values at a size that corpora share. What does not: the mean pairwise distance
(``diversity``), and making the vectors (``engines.embedding``).

The Vendi score (Friedman & Dieng 2023, order q = 1, cosine kernel) is exp of the Shannon entropy of the eigenvalues of K/n, K the n x n
matrix of cosines: the effective number of different items. The eigenvalues are those of the d x d matrix X^T X / n, so it is exact in
O(n d^2). The cluster entropy is the Shannon entropy, in bits, of a corpus's shares in the clusters of a k-means over all corpora, averaged
over `FITS` of them, because one alone depends on its first centres. Its interval takes the clusters as given.

Both grow with n, unlike the mean distance: more items find more directions and clusters. So corpora are compared at `matched_size`, half
of the smallest corpus, by the mean over `SUBSAMPLES` draws without replacement. Half, not all: the smallest corpus must vary over draws,
too, or nothing would be known about its precision. The spread over draws of m of n items understates the standard error of their mean
by sqrt(m / (n - m)) (the delete-d jackknife of Shao & Wu 1989), and corrected for it gives a normal interval. A percentile bootstrap
would not do: a resample repeats items, so nearly all of its Vendi scores lie below the corpus's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CLUSTERS = 50
FITS = 10
SUBSAMPLES = 100
SMALLEST = 50
"""A corpus of fewer items has no size-matched values and does not set the size."""
_FIT_ITEMS = 5_000
_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Matched:
    """A measure at the size that corpora share.

    Attributes:
        value: Mean over subsamples.
        ci_low: Lower end of the 95 % interval.
        ci_high: Upper end of the 95 % interval.
    """

    value: float
    ci_low: float
    ci_high: float


def vendi_score(vectors: np.ndarray) -> float:
    """Effective number of different items: 1 if all are the same, n if all are orthogonal.

    Args:
        vectors: [n, d], n >= 1, rows of length 1.
    """
    n, d = vectors.shape
    # The two products have the same eigenvalues but zeros; the smaller is never larger than d x d.
    gram = vectors.T @ vectors if n >= d else vectors @ vectors.T
    return float(np.exp(_entropy(np.linalg.eigvalsh(gram) / n)))


def cluster_entropy(labels: np.ndarray) -> float:
    """Shannon entropy in bits of the shares of the labels: 0 if all are in one cluster, log2(k) if k clusters are equally large.

    Args:
        labels: [fits, n], n >= 1; the mean over fits is returned.
    """
    return float(np.mean([_entropy(np.bincount(row) / len(row)) for row in labels])) / float(np.log(2))


def fit_clusters(corpora: Sequence[np.ndarray], seed: int, k: int = CLUSTERS) -> Callable[[np.ndarray], np.ndarray] | None:
    """Fit `FITS` times k-means on equally many items of each corpus.

    Args:
        corpora: Unit vectors [n_i, d] in an order that does not depend on how they came in. Those of fewer than `SMALLEST` items take
            no part.
        seed: Draws the items to fit on and the first centres.
        k: Clusters.

    Returns:
        From unit vectors [n, d] to the cluster of each by each fit, [fits, n]; ``None`` if no corpus is large enough.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    large = [vectors for vectors in corpora if len(vectors) >= SMALLEST]
    if not large:
        return None
    share, generator, fits = min([*map(len, large), _FIT_ITEMS]), np.random.default_rng(seed), []
    # Sums over several threads differ in their last bits from run to run, which can move an item to another cluster.
    with threadpool_limits(limits=1):
        for _ in range(FITS):
            drawn = np.concatenate([vectors[generator.choice(len(vectors), share, replace=False)] for vectors in large])
            fits.append(KMeans(k, n_init=1, random_state=int(generator.integers(2**31))).fit(drawn))
    return lambda vectors: np.stack([fitted.predict(vectors) for fitted in fits])


def matched_size(sizes: Sequence[int]) -> int | None:
    """Items at which corpora of these sizes are compared; ``None`` if none has `SMALLEST` items."""
    large = [size for size in sizes if size >= SMALLEST]
    return min(large) // 2 if large else None


def matched(measure: Callable[[np.ndarray], float], user_ids: Sequence[str], size: int, seed: int) -> Matched:
    """Value of a measure at a size, with a 95 % interval.

    Args:
        measure: From positions of items to a number.
        user_ids: The user of each item, n >= 2 ``size``. Users are drawn whole, but for the last one of a draw.
        size: Items of a draw.
        seed: Seed of the draws.
    """
    users = np.asarray(user_ids, dtype=str)
    _, user = np.unique(users, return_inverse=True)
    by_user = np.argsort(user, kind="stable")
    generator = np.random.default_rng([seed, size])
    values = []
    for _ in range(SUBSAMPLES):
        rank = generator.permutation(user.max() + 1)[user[by_user]]
        values.append(measure(by_user[np.argsort(rank, kind="stable")[:size]]))
    mean = float(np.mean(values))
    half = _Z_95 * float(np.std(values, ddof=1)) * float(np.sqrt(size / (len(users) - size)))
    return Matched(mean, mean - half, mean + half)


def _entropy(shares: np.ndarray) -> float:
    """Shannon entropy in nats; rounding below zero counts as zero."""
    positive = shares[shares > 0]
    return max(0.0, float(-(positive * np.log(positive)).sum()))
