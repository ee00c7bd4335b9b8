"""The cheap labeller: a multinomial logistic head over sentence vectors and cues.

What belongs here: the head, its training with honest scores, and its file format. What does not: the cues (``cues``), the encoder
(handed in as ``embed``), and who stores the labels (``labels``).

Input of the head, in this order: the vectors of follow-up, previous request and reply, their three cosines, the cues. The blocks
are scaled before one common L2 penalty, vectors much less than cues: on a thousand examples vectors mostly memorise topics, while a
cue such as "asks for a shorter answer" means the same in every topic. The scales were chosen by cross-validation on training rows.
``anchors`` join every training and no score.

Stored as ``head.npz`` (arrays only) and ``card.json`` (labels, encoder, scores); never as a pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.anchors import WEIGHT, anchors
from rlhi_dagster.feedback.cues import CUES, CUES_VERSION, features

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to L2-normalised float32 rows, one per text, in order."""

TEXTS = ("follow_up", "previous_prompt", "previous_reply")
LABELS = tuple(Feedback)
WEIGHTS = Path(__file__).parent / "weights"
"""The head that comes with the project."""

COSINES = ("cosine_follow_up_prompt", "cosine_follow_up_reply", "cosine_prompt_reply")
EMBEDDING_SCALE = (0.5, 0.25, 0.25)
CUE_SCALE = 0.15
CLASS_WEIGHT_POWER = 0.5
MIN_DEVIATION = 0.1
FOLDS = 5
RESAMPLES = 1_000
CHUNK = 4_096


@dataclass(frozen=True, slots=True)
class FeedbackClassifier:
    """A trained head.

    Attributes:
        weights: [inputs, 6] float32.
        bias: [6] float32.
        mean: [inputs] float32, subtracted from the input.
        scale: [inputs] float32, the centred input is multiplied by it.
        labels: The label of each column.
        encoder: Name of the sentence encoder it was trained with.
        card: What it was trained on and how well it does; JSON-serialisable.
    """

    weights: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    labels: tuple[Feedback, ...]
    encoder: str
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of everything that determines the answers (not of the card): 16 hexadecimal digits."""
        digest = hashlib.sha256("\x1f".join((self.encoder, str(CUES_VERSION), *CUES, *self.labels)).encode())
        for array in (self.weights, self.bias, self.mean, self.scale):
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return digest.hexdigest()[:16]

    @property
    def name(self) -> str:
        """Name and digest, as the column ``labeller`` states them."""
        return f"logistic+{self.encoder}@{self.digest}"

    def predict_proba(self, frame: pl.DataFrame, embed: Embed) -> np.ndarray:
        """Return [n, 6] float64 probabilities, columns in the order of ``labels``.

        Args:
            frame: One row per follow-up with the columns of ``TEXTS``, no nulls.
            embed: The sentence encoder that ``encoder`` names.

        Raises:
            ValueError: A column is missing or holds nulls, or the vectors have the wrong width.
        """
        parts = [self.probabilities(inputs(chunk, embed)) for chunk in frame.select(_texts(frame)).iter_slices(CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)))

    def probabilities(self, values: np.ndarray) -> np.ndarray:
        """Return [n, 6] float64 probabilities for ready-made ``inputs``."""
        if values.shape[1] != len(self.weights):
            raise ValueError(f"the head takes {len(self.weights)} inputs and got {values.shape[1]}: wrong encoder for {self.encoder}?")
        logits = ((values - self.mean) * self.scale).astype(np.float64) @ self.weights.astype(np.float64) + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def save(self, directory: Path) -> None:
        """Write ``head.npz`` and ``card.json`` into ``directory``, which is made if missing."""
        directory.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(directory / "head.npz", weights=self.weights, bias=self.bias, mean=self.mean, scale=self.scale)
        card: dict[str, Any] = {"encoder": self.encoder, "labels": list(self.labels), "digest": self.digest}
        card |= {"cues_version": CUES_VERSION, "cues": list(CUES)}
        (directory / "card.json").write_text(json.dumps(card | {"scores": self.card}, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path = WEIGHTS) -> FeedbackClassifier:
        """Read a head written by ``save``.

        Raises:
            ValueError: The head was trained for other cues than this code computes, or its files do not belong together.
        """
        card = json.loads((directory / "card.json").read_text(encoding="utf-8"))
        if (card["cues_version"], tuple(card["cues"])) != (CUES_VERSION, CUES):
            raise ValueError(f"{directory}: trained for cues version {card['cues_version']}, the code has {CUES_VERSION}: train it again")
        with np.load(directory / "head.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("weights", "bias", "mean", "scale")}
        head = cls(**arrays, labels=tuple(Feedback(label) for label in card["labels"]), encoder=card["encoder"], card=card["scores"])
        if head.digest != card["digest"]:
            raise ValueError(f"{directory}: head.npz has digest {head.digest}, card.json says {card['digest']}")
        return head


def _texts(frame: pl.DataFrame) -> list[str]:
    missing = [name for name in TEXTS if name not in frame.columns]
    if missing:
        raise ValueError(f"follow-ups lack the column(s) {', '.join(missing)}")
    holes = [name for name in TEXTS if frame[name].null_count()]
    if holes:
        raise ValueError(f"follow-ups hold nulls in {', '.join(holes)}")
    return list(TEXTS)


def inputs(frame: pl.DataFrame, embed: Embed) -> np.ndarray:
    """Return the head's input for each follow-up: three vectors, their cosines, the cues; float32 [n, 3 d + 3 + cues]."""
    columns = [frame[name].to_list() for name in _texts(frame)]
    vectors = np.split(np.asarray(embed([text for column in columns for text in column]), np.float32), 3)
    follow_up, prompt, reply = vectors
    cosines = np.stack([(a * b).sum(axis=1) for a, b in ((follow_up, prompt), (follow_up, reply), (prompt, reply))], axis=1)
    cues = np.array([features(*texts) for texts in zip(*columns, strict=True)], np.float32).reshape(len(frame), len(CUES))
    return np.concatenate([*vectors, cosines, cues], axis=1)


def train(frame: pl.DataFrame, labels: Sequence[str], embed: Embed, seed: int, encoder: str = "all-MiniLM-L6-v2") -> FeedbackClassifier:
    """Train the head and score it by grouped cross-validation.

    Args:
        frame: One row per follow-up: the columns of ``TEXTS`` and ``conversation_id``, which groups the folds and the intervals.
        labels: The true label of each row.
        embed: The sentence encoder.
        seed: Seed of folds and bootstrap.
        encoder: Name of the sentence encoder.

    Returns:
        A head trained on all rows; its card says how heads trained on four fifths did on the rest.

    Raises:
        ValueError: A label is unknown, or there are fewer conversations than folds.
    """
    truth, groups = label_numbers(labels), frame["conversation_id"].to_numpy()
    if len(np.unique(groups)) < FOLDS:
        raise ValueError(f"training needs at least {FOLDS} conversations, got {len(np.unique(groups))}")
    values, prior = inputs(frame, embed), anchor_examples(embed)
    held_out = cross_validated(values, truth, groups, prior, seed)
    card = {
        "cross_validation": {
            "folds": FOLDS,
            "grouped_by": "conversation_id",
            "labels": {label: int((truth == i).sum()) for i, label in enumerate(LABELS)},
            **scores(truth, held_out, groups, seed),
        },
        "settings": {
            "embedding_scale": list(EMBEDDING_SCALE),
            "cue_scale": CUE_SCALE,
            "class_weight_power": CLASS_WEIGHT_POWER,
            "anchors": len(prior.truth),
            "anchor_weight": WEIGHT,
            "seed": seed,
        },
    }
    return replace(fit(values, truth, prior, encoder), card=card)


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs and label numbers that join every training, weighted ``anchors.WEIGHT`` each."""

    values: np.ndarray
    truth: np.ndarray


def anchor_examples(embed: Embed) -> Examples:
    """The anchors as the head takes them."""
    frame = anchors()
    return Examples(inputs(frame, embed), label_numbers(frame["label"].to_list()))


def fit(values: np.ndarray, truth: np.ndarray, prior: Examples, encoder: str) -> FeedbackClassifier:
    """Fit a head to inputs and label numbers, and to the anchors beside them."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = _standardise(values)
    importance = np.concatenate([np.ones(len(truth)), np.full(len(prior.truth), WEIGHT)])
    truth = np.concatenate([truth, prior.truth])
    counts = np.bincount(truth, weights=importance, minlength=len(LABELS))
    importance *= (importance.sum() / counts[truth]) ** CLASS_WEIGHT_POWER
    model = LogisticRegression(C=1.0, max_iter=2_000, tol=1e-6)
    model.fit((np.concatenate([values, prior.values]) - mean) * scale, truth, sample_weight=importance)
    weights, bias = model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
    return FeedbackClassifier(np.ascontiguousarray(weights), bias, mean, scale, LABELS, encoder)


def _standardise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and multiplier of each input: cues and cosines to unit deviation times ``CUE_SCALE``, vectors by block."""
    dense = len(CUES) + len(COSINES)
    width = (values.shape[1] - dense) // 3
    mean = np.concatenate([np.zeros(3 * width), values[:, -dense:].mean(axis=0)])
    deviation = np.maximum(values[:, -dense:].std(axis=0), MIN_DEVIATION)
    scale = np.concatenate([np.repeat(EMBEDDING_SCALE, width), CUE_SCALE / deviation])
    return mean.astype(np.float32), scale.astype(np.float32)


def label_numbers(labels: Sequence[str]) -> np.ndarray:
    """Position of each label in ``LABELS``; ValueError if one is unknown."""
    unknown = sorted(set(labels) - set(LABELS))
    if unknown:
        raise ValueError(f"unknown label(s): {', '.join(map(repr, unknown))}")
    return np.array([LABELS.index(Feedback(label)) for label in labels], np.int64)


def cross_validated(values: np.ndarray, truth: np.ndarray, groups: np.ndarray, prior: Examples, seed: int) -> np.ndarray:
    """Probabilities of each row from a head that saw no row of its conversation."""
    from sklearn.model_selection import GroupKFold

    probabilities = np.zeros((len(truth), len(LABELS)))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for seen, unseen in folds.split(values, truth, groups):
        probabilities[unseen] = fit(values[seen], truth[seen], prior, "").probabilities(values[unseen])
    return probabilities


def scores(truth: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Score probabilities against the truth: `score_guesses` of the likeliest label."""
    chance = probabilities[:, LABELS.index(Feedback.REATTEMPT_WITH_FEEDBACK)]
    return score_guesses(truth, probabilities.argmax(axis=1), chance, groups, seed)


def score_guesses(truth: np.ndarray, guess: np.ndarray, chance: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Score guessed labels against the truth, with 95 % bootstrap intervals over conversations and the majority label beside.

    Args:
        truth: Number of each row's true label.
        guess: Number of each row's guessed label.
        chance: Probability of ``reattempt_with_feedback`` of each row, for its average precision.
        groups: Conversation of each row.
        seed: Seed of the bootstrap.

    Returns:
        ``n``, ``conversations``, the metrics as ``{"value", "ci_low", "ci_high"}``, F1 per label, confusion counts, baseline.
    """
    majority = np.full_like(truth, np.bincount(truth).argmax())
    return {
        "n": len(truth),
        "conversations": len(np.unique(groups)),
        **bootstrapped(lambda rows: _metrics(truth[rows], guess[rows], chance[rows]), groups, seed),
        "f1_by_label": {label: _round(_f1(truth == i, guess == i)) for i, label in enumerate(LABELS)},
        "confusion_truth_by_guess": np.bincount(truth * len(LABELS) + guess, minlength=len(LABELS) ** 2).reshape(len(LABELS), -1).tolist(),
        "majority_baseline": {name: _round(value) for name, value in _metrics(truth, majority, np.zeros(len(truth))).items()},
    }


def bootstrapped(metrics: Callable[[np.ndarray], dict[str, float]], groups: np.ndarray, seed: int) -> dict[str, dict[str, float | None]]:
    """Metrics over all rows, with 95 % percentile intervals from resamples of whole groups.

    Args:
        metrics: Metrics of the rows at some positions; NaN where one is not defined. Such a resample does not count.
        groups: Group of each row.
        seed: Seed of the bootstrap.

    Returns:
        ``{"value", "ci_low", "ci_high"}`` for each metric.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    generator = np.random.default_rng(seed)
    samples = [metrics(np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])) for _ in range(RESAMPLES)]
    found = {}
    for name, value in metrics(np.arange(len(groups))).items():
        defined = [sample[name] for sample in samples if not np.isnan(sample[name])] or [float("nan")]
        low, high = np.percentile(defined, (2.5, 97.5))
        found[name] = {"value": _round(value), "ci_low": _round(low), "ci_high": _round(high)}
    return found


def _round(value: float) -> float | None:
    """Four digits for the card; null for a metric that is not defined."""
    return None if np.isnan(value) else round(float(value), 4)


def _f1(truth: np.ndarray, guess: np.ndarray) -> float:
    total = int(truth.sum() + guess.sum())
    return 2 * int((truth & guess).sum()) / total if total else 0.0


def _metrics(truth: np.ndarray, guess: np.ndarray, chance: np.ndarray) -> dict[str, float]:
    """Macro-F1 is over the labels that occur in the truth."""
    reattempt = LABELS.index(Feedback.REATTEMPT_WITH_FEEDBACK)
    return {
        "macro_f1": float(np.mean([_f1(truth == i, guess == i) for i in np.unique(truth)])),
        "accuracy": float((truth == guess).mean()),
        "reattempt_f1": _f1(truth == reattempt, guess == reattempt),
        "reattempt_average_precision": _average_precision(truth == reattempt, chance),
        "reattempt_rate_error": float((guess == reattempt).mean() - (truth == reattempt).mean()),
    }


def _average_precision(truth: np.ndarray, chance: np.ndarray) -> float:
    """Area under precision over recall as a step function, ties taken together (as scikit-learn defines it)."""
    if not truth.any():
        return float("nan")
    order = np.argsort(-chance, kind="stable")
    hits, ends = np.cumsum(truth[order]), np.append(np.flatnonzero(np.diff(chance[order])), len(chance) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())
