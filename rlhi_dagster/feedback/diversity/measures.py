"""How different a corpus's prompt contexts are from each other: the paper's contextual diversity, and which corpus has more of it.

What belongs here: the distance with its interval, the rows of ``tables.CONTEXTUAL_DIVERSITY``, and the ranking of corpora. What does not:
making the vectors (``engines.embedding``), choosing the prompts (``corpora``) and the measures beside it (``entropies``).

The paper's formula and encoder are unknown; our choice is the mean pairwise cosine distance over all pairs of different items. With unit
vectors u_i it is exact at linear cost, because sum over i != j of u_i . u_j = |sum u_i|^2 - n. Its expectation does not depend on n, so
corpora of different size can be compared as they are; the measures beside it grow with n and have values at an equal size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from rlhi_dagster.feedback.diversity import entropies

RESAMPLES = 1_000
BLOCK = 64
_SORT_COLUMNS = 8
"""Texts whose first numbers agree have the same vector."""
_MEASURES = (
    "vendi_score",
    "cluster_entropy",
    "matched_n",
    "vendi_score_matched",
    "vendi_ci_low",
    "vendi_ci_high",
    "cluster_entropy_matched",
    "cluster_ci_low",
    "cluster_ci_high",
)

Rows = list[dict[str, Any]]


class Verdict(StrEnum):
    """What the interval of a difference says."""

    HIGHER = "higher"
    LOWER = "lower"
    UNDECIDED = "not told apart"


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A corpus as vectors.

    Attributes:
        name: Name of the corpus.
        user_ids: The user of each item; intervals resample users (items of a corpus without users: give each item its own).
        vectors: [n, d]; normalised where they are measured.
        is_part: It is a part of another corpus here, so the clusters are not fitted on it and the ranking leaves it out.
    """

    name: str
    user_ids: Sequence[str]
    vectors: np.ndarray
    is_part: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """Mean pairwise cosine distance of a corpus.

    Attributes:
        corpus: Name of the corpus.
        value: Null if n < 2.
        ci_low: Lower end of the 95 % interval (percentile); null with fewer than two users.
        ci_high: Upper end.
        draws: [resamples] values of the bootstrap; empty with fewer than two users.
    """

    corpus: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    draws: np.ndarray


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether the prompts of one corpus are further apart than those of another.

    Attributes:
        first: Name of a corpus.
        second: Name of another one.
        difference: Distance of the first - distance of the second.
        ci_low: Lower end of the 95 % interval; null if one of them has none.
        ci_high: Upper end.
        verdict: How the first compares with the second.
    """

    first: str
    second: str
    difference: float
    ci_low: float | None
    ci_high: float | None
    verdict: Verdict

    @property
    def statement(self) -> str:
        """One sentence with the numbers."""
        interval = "no interval" if self.ci_low is None else f"95 % interval {self.ci_low:+.4f} to {self.ci_high:+.4f}"
        relation = "and" if self.verdict is Verdict.UNDECIDED else f"{self.verdict} than"
        ending = f", {self.verdict}" if self.verdict is Verdict.UNDECIDED else ""
        return f"{self.first} {relation} {self.second}{ending}: difference {self.difference:+.4f}, {interval}"


def distance(corpus: Embedded, seed: int, resamples: int = RESAMPLES) -> Distance:
    """Mean pairwise cosine distance with a bootstrap over users.

    In a resample a user drawn twice counts twice, but an item is never compared with its own copy, which would pull the interval down.
    The draws depend on the seed and the corpus's name, so those of two corpora are independent.

    Raises:
        ValueError: Lengths differ, or a vector is zero or not finite.
    """
    return _distance_of(_ordered(corpus), resamples, seed)


def measure(corpora: Sequence[Embedded], encoder: str, seed: int, resamples: int = RESAMPLES) -> tuple[Rows, list[Comparison]]:
    """Measure corpora side by side: clusters and matched size are those of all of them together.

    Args:
        corpora: The corpora, with names that differ.
        encoder: Name of the encoder that made the vectors.
        seed: Seed of everything that is drawn.
        resamples: Bootstrap resamples of the users.

    Returns:
        Rows of ``tables.CONTEXTUAL_DIVERSITY`` in the order of ``corpora``, and the `ranking` of those that are no part of another.

    Raises:
        ValueError: Two corpora have the same name, lengths differ, or a vector is zero or not finite.
    """
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise ValueError(f"two corpora have the same name: {', '.join(names)}")
    ordered = [_ordered(corpus) for corpus in corpora]
    distances = [_distance_of(corpus, resamples, seed) for corpus in ordered]
    size = entropies.matched_size([len(corpus.vectors) for corpus in ordered])
    cluster = entropies.fit_clusters([corpus.vectors for corpus in ordered if not corpus.is_part], seed)
    rows = [
        {
            "corpus": corpus.name,
            "value": found.value,
            "n": len(corpus.vectors),
            "encoder": encoder,
            "ci_low": found.ci_low,
            "ci_high": found.ci_high,
            "users": len(set(corpus.user_ids)),
            **_entropies(corpus, cluster(corpus.vectors) if cluster and len(corpus.vectors) else None, size, seed),
        }
        for corpus, found in zip(ordered, distances, strict=True)
    ]
    return rows, ranking([found for corpus, found in zip(ordered, distances, strict=True) if not corpus.is_part])


def ranking(distances: Sequence[Distance]) -> list[Comparison]:
    """Compare every pair of corpora by the difference of their bootstrap draws, which are independent.

    Corpora must not share items. The intervals are not corrected for the number of pairs.
    """
    measured = [found for found in distances if found.value is not None]
    return [_comparison(first, second) for first, second in itertools.combinations(measured, 2)]


def _ordered(corpus: Embedded) -> Embedded:
    """The corpus with unit vectors, in an order of its own and with users numbered by it.

    So what is drawn depends neither on how items came in nor on the salt of user ids.

    Raises:
        ValueError: Lengths differ, or a vector is zero or not finite.
    """
    vectors = np.asarray(corpus.vectors, np.float64)
    if len(corpus.user_ids) != len(vectors):
        raise ValueError(f"{corpus.name}: {len(corpus.user_ids)} user ids for {len(vectors)} embeddings")
    if not len(vectors):
        return corpus
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        raise ValueError(f"{corpus.name}: embedding {int(np.argmax(bad))} is zero or not finite")
    unit = vectors / norms
    order = np.lexsort(unit[:, :_SORT_COLUMNS].T[::-1])
    numbers: dict[str, str] = {}
    users = [numbers.setdefault(corpus.user_ids[item], f"{len(numbers):09}") for item in order]
    return Embedded(corpus.name, users, unit[order], corpus.is_part)


def _entropies(corpus: Embedded, labels: np.ndarray | None, size: int | None, seed: int) -> dict[str, float | None]:
    """The measures beside the distance, at the corpus's own size and at ``size``."""
    vectors = corpus.vectors
    row: dict[str, float | None] = dict.fromkeys(_MEASURES)
    if not len(vectors):
        return row
    row["vendi_score"] = entropies.vendi_score(vectors)
    if size is None or labels is None:
        return row
    row["cluster_entropy"] = entropies.cluster_entropy(labels)
    if len(vectors) >= entropies.SMALLEST:
        vendi = entropies.matched(lambda items: entropies.vendi_score(vectors[items]), corpus.user_ids, size, seed)
        entropy = entropies.matched(lambda items: entropies.cluster_entropy(labels[:, items]), corpus.user_ids, size, seed)
        row |= {"matched_n": size, "vendi_score_matched": vendi.value, "vendi_ci_low": vendi.ci_low, "vendi_ci_high": vendi.ci_high}
        row |= {"cluster_entropy_matched": entropy.value, "cluster_ci_low": entropy.ci_low, "cluster_ci_high": entropy.ci_high}
    return row


def _comparison(first: Distance, second: Distance) -> Comparison:
    assert first.value is not None
    assert second.value is not None
    difference = first.value - second.value
    if not len(first.draws) or not len(second.draws):
        return Comparison(first.corpus, second.corpus, difference, None, None, Verdict.UNDECIDED)
    low, high = (float(end) for end in np.nanpercentile(first.draws - second.draws, (2.5, 97.5)))
    verdict = Verdict.HIGHER if low > 0 else Verdict.LOWER if high < 0 else Verdict.UNDECIDED
    return Comparison(first.corpus, second.corpus, difference, low, high, verdict)


def _distance_of(corpus: Embedded, resamples: int, seed: int) -> Distance:
    if len(corpus.vectors) < 2:
        return Distance(corpus.name, None, None, None, np.zeros(0))
    sums, sizes = _user_sums(np.asarray(corpus.user_ids, dtype=str), corpus.vectors)
    value = float(_distances(np.ones((1, len(sizes))), sums, sizes)[0])
    if len(sizes) < 2:
        return Distance(corpus.name, value, None, None, np.zeros(0))
    draws = _bootstrap(sums, sizes, np.random.default_rng([seed, *corpus.name.encode()]), resamples)
    low, high = (float(point) for point in np.nanpercentile(draws, (2.5, 97.5)))
    return Distance(corpus.name, value, low, high, draws)


def _user_sums(user_ids: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of each user's vectors and how many there are, users sorted."""
    _, user = np.unique(user_ids, return_inverse=True)
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order], prepend=-1))
    return np.add.reduceat(vectors[order], starts, axis=0), np.bincount(user).astype(np.float64)


def _distances(weights: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Weighted mean distance over pairs of different items, for each row of user weights; NaN where there is no pair."""
    self_pairs = weights**2 @ sizes
    similarity = ((weights @ sums) ** 2).sum(axis=1) - self_pairs
    pairs = (weights @ sizes) ** 2 - self_pairs
    return 1.0 - np.divide(similarity, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _bootstrap(sums: np.ndarray, sizes: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    users, parts = len(sizes), []
    for start in range(0, resamples, BLOCK):
        draws = [generator.integers(0, users, users) for _ in range(min(BLOCK, resamples - start))]
        weights = np.stack([np.bincount(draw, minlength=users) for draw in draws]).astype(np.float64)
        parts.append(_distances(weights, sums, sizes))
    return np.concatenate(parts)
