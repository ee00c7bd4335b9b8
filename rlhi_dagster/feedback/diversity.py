"""How different a corpus's prompt contexts are from each other: the paper's contextual diversity.

What belongs here: the number and its interval, from vectors. What does not: making the vectors (``engines.embedding``) and choosing
the prompts. The paper's formula and encoder are unknown; our choice is the mean pairwise cosine distance over all pairs of different
items. With unit vectors u_i it is exact at linear cost, because sum over i != j of u_i . u_j = |sum u_i|^2 - n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1_000
BLOCK = 64


def contextual_diversity(
    corpus: str, user_ids: Sequence[str], embeddings: np.ndarray, encoder: str, seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return a row of ``tables.CONTEXTUAL_DIVERSITY``.

    Args:
        corpus: Name of the corpus.
        user_ids: The user of each item; intervals resample users (items of a corpus without users: give each item its own).
        embeddings: [n, d]; rows are normalised here.
        encoder: Name of the encoder that made them.
        seed: Seed of the bootstrap.
        resamples: Bootstrap resamples of the users.

    Returns:
        ``value`` is null if n < 2; the interval (95 %, percentile) is null with fewer than two users. In a resample a user drawn
        twice counts twice, but an item is never compared with its own copy, which would pull the interval down.

    Raises:
        ValueError: Lengths differ, or a vector is zero or not finite.
    """
    vectors = np.asarray(embeddings, np.float64)
    n = len(vectors)
    if len(user_ids) != n:
        raise ValueError(f"{corpus}: {len(user_ids)} user ids for {n} embeddings")
    row: dict[str, Any] = {"corpus": corpus, "value": None, "n": n, "encoder": encoder, "ci_low": None, "ci_high": None}
    if n < 2:
        return row
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise ValueError(f"{corpus}: embedding {int(np.argmin(np.where(np.isfinite(norms), norms, 0)))} is zero or not finite")
    sums, sizes = _user_sums(np.asarray(user_ids, dtype=str), vectors / norms)
    row["value"] = float(_distance(np.ones((1, len(sizes))), sums, sizes)[0])
    if len(sizes) >= 2:
        distances = _bootstrap(sums, sizes, seed, resamples)
        row["ci_low"], row["ci_high"] = (float(point) for point in np.nanpercentile(distances, (2.5, 97.5)))
    return row


def _user_sums(user_ids: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of each user's vectors and how many there are, users sorted."""
    _, user = np.unique(user_ids, return_inverse=True)
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order], prepend=-1))
    return np.add.reduceat(vectors[order], starts, axis=0), np.bincount(user).astype(np.float64)


def _distance(weights: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Weighted mean distance over pairs of different items, for each row of user weights; NaN where there is no pair."""
    self_pairs = weights**2 @ sizes
    similarity = ((weights @ sums) ** 2).sum(axis=1) - self_pairs
    pairs = (weights @ sizes) ** 2 - self_pairs
    return 1.0 - np.divide(similarity, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _bootstrap(sums: np.ndarray, sizes: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    generator, users = np.random.default_rng(seed), len(sizes)
    parts = []
    for start in range(0, resamples, BLOCK):
        draws = [generator.integers(0, users, users) for _ in range(min(BLOCK, resamples - start))]
        weights = np.stack([np.bincount(draw, minlength=users) for draw in draws]).astype(np.float64)
        parts.append(_distance(weights, sums, sizes))
    return np.concatenate(parts)
