"""How good labels and their probabilities are, measured against given labels.

What belongs here: metrics, calibration, their intervals, and the difference of two labellers. What does not: who made the labels
(``classifier``, ``baselines``, ``chat_labeller``) and whom the figures are told (``agreement``, ``card``).

Intervals are 95 % percentile intervals from a bootstrap of whole conversations, because follow-ups of one conversation are not
independent. Every figure is ``{"value", "ci_low", "ci_high"}``, null where it is not defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhi_dagster.feedback import Feedback

LABELS = tuple(Feedback)
BINS = 10
RESAMPLES = 1_000

_REATTEMPT = LABELS.index(Feedback.REATTEMPT_WITH_FEEDBACK)


def label_numbers(labels: Sequence[str]) -> np.ndarray:
    """Position of each label in ``LABELS``; ValueError if one is unknown."""
    unknown = sorted(set(labels) - set(LABELS))
    if unknown:
        raise ValueError(f"unknown label(s): {', '.join(map(repr, unknown))}")
    return np.array([LABELS.index(Feedback(label)) for label in labels], np.int64)


def scores(truth: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Score probabilities against the truth: `score_guesses` of the likeliest label, and how well it is calibrated.

    Args:
        truth: Number of each row's true label.
        probabilities: [n, 6], columns in the order of ``LABELS``.
        groups: Conversation of each row.
        seed: Seed of the bootstrap.

    Returns:
        What `score_guesses` returns, and ``calibration`` (`calibration` of the likeliest label).
    """
    guess, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return {
        **score_guesses(truth, guess, probabilities[:, _REATTEMPT], groups, seed),
        "calibration": calibration(guess == truth, confidence, seed),
    }


def score_guesses(truth: np.ndarray, guess: np.ndarray, chance: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Score guessed labels against the truth, with the majority label beside.

    Args:
        truth: Number of each row's true label.
        guess: Number of each row's guessed label.
        chance: Probability of ``reattempt_with_feedback`` of each row, for its average precision.
        groups: Conversation of each row.
        seed: Seed of the bootstrap.

    Returns:
        ``n``, ``conversations``, the metrics as figures, F1 per label, confusion counts, baseline.
    """
    majority = np.full_like(truth, np.bincount(truth).argmax())
    return {
        "n": len(truth),
        "conversations": len(np.unique(groups)),
        **bootstrapped(lambda rows: metrics(truth[rows], guess[rows], chance[rows]), groups, seed),
        "f1_by_label": {label: _round(_f1(truth == i, guess == i)) for i, label in enumerate(LABELS)},
        "confusion_truth_by_guess": np.bincount(truth * len(LABELS) + guess, minlength=len(LABELS) ** 2).reshape(len(LABELS), -1).tolist(),
        "majority_baseline": {name: _round(value) for name, value in metrics(truth, majority, np.zeros(len(truth))).items()},
    }


def difference(truth: np.ndarray, one: np.ndarray, other: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Metrics of one labeller minus those of another on the same rows; both as [n, 6] probabilities, resampled together."""

    def both(rows: np.ndarray) -> dict[str, float]:
        first, second = (metrics(truth[rows], p[rows].argmax(axis=1), p[rows, _REATTEMPT]) for p in (one, other))
        return {name: first[name] - second[name] for name in first}

    return bootstrapped(both, groups, seed)


def bootstrapped(measure: Callable[[np.ndarray], dict[str, float]], groups: np.ndarray, seed: int) -> dict[str, dict[str, float | None]]:
    """Figures over all rows, with intervals from resamples of whole groups.

    Args:
        measure: Figures of the rows at some positions; NaN where one is not defined. Such a resample does not count.
        groups: Group of each row.
        seed: Seed of the bootstrap.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    generator = np.random.default_rng(seed)
    samples = [measure(np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])) for _ in range(RESAMPLES)]
    found = {}
    for name, value in measure(np.arange(len(groups))).items():
        defined = [sample[name] for sample in samples if not np.isnan(sample[name])] or [float("nan")]
        low, high = np.percentile(defined, (2.5, 97.5))
        found[name] = {"value": _round(value), "ci_low": _round(low), "ci_high": _round(high)}
    return found


def kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa of two judgements of the same; NaN where both are one and the same throughout, for then it is 0/0."""
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(one, other)) if len(np.unique([one, other])) > 1 else float("nan")


def metrics(truth: np.ndarray, guess: np.ndarray, chance: np.ndarray) -> dict[str, float]:
    """The metrics themselves; macro-F1 is over the labels that occur in the truth."""
    return {
        "macro_f1": float(np.mean([_f1(truth == i, guess == i) for i in np.unique(truth)])),
        "accuracy": float((truth == guess).mean()),
        "reattempt_f1": _f1(truth == _REATTEMPT, guess == _REATTEMPT),
        "reattempt_average_precision": _average_precision(truth == _REATTEMPT, chance),
        "reattempt_rate_error": float((guess == _REATTEMPT).mean() - (truth == _REATTEMPT).mean()),
    }


def temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature under which held-out probabilities have the least log loss (Guo et al., 2017); above 1 they were too sure."""
    from scipy.optimize import minimize_scalar

    def log_loss(logarithm: float) -> float:
        return float(-np.log(tempered(probabilities, float(np.exp(logarithm)))[np.arange(len(truth)), truth]).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded").x))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at another temperature, rows summing to 1."""
    logits = np.log(np.maximum(probabilities, 1e-300)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def calibration(is_right: np.ndarray, confidence: np.ndarray, seed: int) -> dict[str, Any]:
    """How far confidence is from the share of right labels.

    The error of a finite sample is above zero even where the confidence is perfect, and a bootstrap of it is biased, so in place of an
    interval it has what perfect confidence would give on rows like these (consistency resampling; Broecker & Smith, 2007).

    Args:
        is_right: Whether each label is right.
        confidence: The labeller's probability of each.
        seed: Seed of the resampling.

    Returns:
        ``error``: expected calibration error, over ``BINS`` bins of equal width. ``error_if_perfect`` and ``error_if_perfect_95``: mean and
        95th percentile of it if each label were right with its confidence, rows being independent. ``reliability``: of each bin that
        occurs, where it begins, its rows, mean confidence, share of right labels.
    """
    generator, bins = np.random.default_rng(seed), _bins(confidence)
    perfect = [_calibration_error(generator.random(len(confidence)) < confidence, confidence) for _ in range(RESAMPLES)]
    reliability = [
        {
            "from": number / BINS,
            "n": int(chosen.sum()),
            "confidence": round(float(confidence[chosen].mean()), 4),
            "accuracy": round(float(is_right[chosen].mean()), 4),
        }
        for number in range(BINS)
        if (chosen := bins == number).any()
    ]
    return {
        "error": _round(_calibration_error(is_right, confidence)),
        "error_if_perfect": _round(float(np.mean(perfect))),
        "error_if_perfect_95": _round(float(np.quantile(perfect, 0.95))),
        "reliability": reliability,
    }


def _bins(confidence: np.ndarray) -> np.ndarray:
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def _calibration_error(is_right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error: mean distance of confidence and share of right labels over the bins, weighted by rows."""
    gaps = np.bincount(_bins(confidence), weights=is_right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _round(value: float) -> float | None:
    """Four digits; null for a metric that is not defined."""
    return None if np.isnan(value) else round(float(value), 4)


def _f1(truth: np.ndarray, guess: np.ndarray) -> float:
    total = int(truth.sum() + guess.sum())
    return 2 * int((truth & guess).sum()) / total if total else 0.0


def _average_precision(truth: np.ndarray, chance: np.ndarray) -> float:
    """Area under precision over recall as a step function, ties taken together (as scikit-learn defines it)."""
    if not truth.any():
        return float("nan")
    order = np.argsort(-chance, kind="stable")
    hits, ends = np.cumsum(truth[order]), np.append(np.flatnonzero(np.diff(chance[order])), len(chance) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())
