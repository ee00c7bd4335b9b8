"""What the classifier has to beat: the same labels learnt from plain words, and from plain sentence vectors.

What belongs here: fitting baselines on some rows and labelling others with them. What does not: scores (``scoring``) and the majority
label, which every score has beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.feedback.labels.classifier import Fitted
from rlhi_dagster.feedback.labels.metrics import LABELS

_CHARACTERS = 2_000


def bag_of_words(frame: pl.DataFrame, truth: np.ndarray) -> Fitted:
    """Logistic regression on TF-IDF of the follow-up's words and pairs of words.

    Args:
        frame: One row per follow-up with the column ``follow_up``.
        truth: Number of each row's true label.

    Returns:
        A function of the rows to train on and the rows to label that returns [n, 6] probabilities.
    """
    texts = np.array([text[:_CHARACTERS] for text in frame["follow_up"]], dtype=object)

    def fitted(seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        return _regression(words.fit_transform(texts[seen]), truth[seen], words.transform(texts[unseen]), 3.0)

    return fitted


def embeddings(vectors: np.ndarray, truth: np.ndarray) -> Fitted:
    """Logistic regression on the vectors of follow-up, previous request and reply; arguments and result as for `bag_of_words`."""
    return lambda seen, unseen: _regression(vectors[seen], truth[seen], vectors[unseen], 1.0)


def _regression(values: Any, truth: np.ndarray, asked: Any, inverse_penalty: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=2_000).fit(values, truth)
    probabilities = np.zeros((asked.shape[0], len(LABELS)))
    probabilities[:, model.classes_] = model.predict_proba(asked)
    return probabilities
