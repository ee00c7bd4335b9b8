"""The cascade: the classifier labels what it is sure of, a language model the rest.

What belongs here: who labels what, and what the model's share buys. What does not: the two labellers (``labels``, ``chat_labeller``).

The cost is the share of the follow-ups that go to the model: the classifier costs next to nothing. How sure the classifier must be is one
number, a calibrated probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.feedback.labels.follow_ups import Labeller
from rlhi_dagster.feedback.labels.metrics import bootstrapped, metrics

LEVELS = tuple(step / 20 for step in range(21))
"""Points of the curve: how sure the classifier must be. At 0 it labels everything, at 1 the model does."""


def refined(given: pl.DataFrame, follow_ups: pl.DataFrame, model: Labeller, sure: float) -> pl.DataFrame:
    """Ask the dear labeller about what the cheap one is not sure of.

    Args:
        given: Labels of all follow-ups by the cheap labeller: rows of ``tables.FEEDBACK_LABELS``.
        follow_ups: As ``labels.follow_ups`` returns them.
        model: The dear labeller.
        sure: Least probability at which the cheap one's label stands; 1 leaves everything to the model.

    Returns:
        Labels of all follow-ups, sorted by ``turn_id``; the column ``labeller`` says whose each is. Where the model gives no label, the
        cheap one's stands.
    """
    unsure = given.filter(pl.col("probability") < sure) if sure < 1 else given
    better = model.label(follow_ups.join(unsure, on="turn_id", how="semi", maintain_order="left"))
    return pl.concat([given.join(better, on="turn_id", how="anti"), better]).sort("turn_id")


def agreement(given: pl.DataFrame, labels: pl.DataFrame) -> float | None:
    """Share of the labels by the model that are the cheap labeller's, too; ``None`` without any."""
    both = labels.join(given, on="turn_id", suffix="_given").filter(pl.col("labeller") != pl.col("labeller_given"))
    return len(both.filter(pl.col("label") == pl.col("label_given"))) / len(both) if len(both) else None


def curve(truth: np.ndarray, probabilities: np.ndarray, model: np.ndarray, groups: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Cost against quality of the cascade on labelled follow-ups.

    Args:
        truth: Number of each row's true label.
        probabilities: [n, 6] of the classifier, calibrated.
        model: Number of the label that the model gives each row.
        groups: Conversation of each row.
        seed: Seed of the bootstrap.

    Returns:
        For each of ``LEVELS``: ``sure``, ``share_to_model`` and the figures ``accuracy``, ``macro_f1`` and ``reattempt_f1``. Levels at
        which the same rows go to the model are one point.
    """
    confidence, cheap = probabilities.max(axis=1), probabilities.argmax(axis=1)
    points: list[dict[str, Any]] = []
    for sure in LEVELS:
        is_model = confidence < sure
        share = round(float(is_model.mean()), 4)
        if points and points[-1]["share_to_model"] == share:
            continue
        guess = np.where(is_model, model, cheap)

        def measure(rows: np.ndarray, guess: np.ndarray = guess) -> dict[str, float]:
            found = metrics(truth[rows], guess[rows], np.zeros(len(rows)))
            return {name: found[name] for name in ("accuracy", "macro_f1", "reattempt_f1")}

        points.append({"sure": sure, "share_to_model": share, **bootstrapped(measure, groups, seed)})
    return points


def costs(confidence: np.ndarray) -> list[tuple[float, float, float]]:
    """What a run's own follow-ups would cost, and how often the classifier would be right about those that it labels itself.

    Args:
        confidence: The classifier's calibrated probability of its label, one per follow-up.

    Returns:
        (level, share to the model, mean confidence of the rest; NaN if there is no rest) for each of ``LEVELS``.
    """
    return [
        (sure, float((confidence < sure).mean()), float(kept.mean()) if len(kept := confidence[confidence >= sure]) else float("nan"))
        for sure in LEVELS
    ]
