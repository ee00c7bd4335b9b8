"""Groups of similar texts, from their sentence vectors.

What belongs here: the clustering, and which texts it can be used on. What does not: making the vectors (``engines.embedding``) and naming
groups (``names``).

Our choices: average linkage of cosine distances, cut at ``MAX_DISTANCE``, on distinct texts. It takes the square of their number, so at
most ``MOST_CLUSTERED`` are clustered, drawn by the digest of the text; every other text joins the group to which its mean distance is
smallest, if that is within the cut: the same criterion. So the time is linear in the texts, and nothing depends on their order.

The encoder reads English. Texts in another language come close to each other because of the language alone, so they are not clustered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rlhi_dagster.base.language_id import detected

MAX_DISTANCE = 0.75
"""Mean cosine distance up to which groups become one."""
MOST_CLUSTERED = 3_000
NO_GROUP = -1

_SURE = 0.7
"""Least probability to hold a text in Latin letters for one of another language: short texts are told badly."""
_MIN_ASCII = 0.9
"""Of the letters of a text in English."""
_READ = 500
_AT_ONCE = 20_000

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Unit vectors of texts, in order: float32 ``[n, dimensions]``."""
Groups = npt.NDArray[np.int64]


def by_digest(texts: Sequence[str]) -> list[int]:
    """Positions of the texts in an order that has nothing to do with what they say, nor with how they came."""
    return sorted(range(len(texts)), key=lambda place: hashlib.blake2b(texts[place].encode(), digest_size=16).digest())


def foreign_language(text: str) -> str | None:
    """ISO 639-1 code of the language of a text that is not in English; ``None`` for English and what may be English."""
    letters = [letter for letter in text[:_READ] if letter.isalpha()]
    code, probability = detected(" ".join(text[:_READ].split()))
    is_ascii = sum(map(str.isascii, letters)) >= _MIN_ASCII * len(letters)
    return code if code != "en" and (probability >= _SURE or not is_ascii) else None


def clusters(texts: Sequence[str], embed: Embed, max_distance: float = MAX_DISTANCE, most: int = MOST_CLUSTERED) -> Groups:
    """Put similar texts together.

    Args:
        texts: In any order; the same text may come several times.
        embed: The encoder.
        max_distance: See ``MAX_DISTANCE``.
        most: See ``MOST_CLUSTERED``.

    Returns:
        Number of each text's group; `NO_GROUP` for a text that was not drawn and is near to none.
    """
    distinct = sorted(set(texts))
    if not distinct:
        return np.zeros(0, np.int64)
    vectors = np.asarray(embed(distinct), np.float32)
    order = np.array(by_digest(distinct))
    drawn, rest = order[:most], order[most:]
    groups = np.full(len(distinct), NO_GROUP)
    groups[drawn] = _linked(vectors[drawn], max_distance)
    means = np.stack([vectors[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
    for start in range(0, len(rest), _AT_ONCE):
        part = rest[start : start + _AT_ONCE]
        nearness = vectors[part] @ means.T
        groups[part] = np.where(1 - nearness.max(axis=1) <= max_distance, nearness.argmax(axis=1), NO_GROUP)
    of_text = dict(zip(distinct, groups.tolist(), strict=True))
    return np.array([of_text[text] for text in texts])


def _linked(vectors: npt.NDArray[np.float32], max_distance: float) -> Groups:
    """Average linkage, groups numbered by their first members."""
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    from sklearn.cluster import AgglomerativeClustering

    linkage = AgglomerativeClustering(n_clusters=None, metric="precomputed", linkage="average", distance_threshold=max_distance)
    found = linkage.fit_predict(1 - vectors @ vectors.T)
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
