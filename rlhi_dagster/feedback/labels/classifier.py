"""The cheap labeller: a multinomial logistic head over sentence vectors and cues.

What belongs here: the head, how it is fitted, and its file format. What does not: the cues (``cues``), the encoder (handed in as
``embed``), its scores (``training``, ``scoring``), and who stores the labels (``labels``).

Input of the head, in this order: the vectors of follow-up, previous request and reply, their three cosines, the cues. The blocks
are scaled before one common L2 penalty, vectors much less than cues: on a thousand examples vectors mostly memorise topics, while a
cue such as "asks for a shorter answer" means the same in every topic. The scales were chosen by cross-validation on training rows.
``anchors`` join every training and no score.

Stored as ``head.npz`` (arrays only) and ``card.json`` (labels, encoder, scores); never as a pickle.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.base.failures import DamagedError, NotMadeError
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels.anchors import WEIGHT, anchors
from rlhi_dagster.feedback.labels.cues import CUES, CUES_VERSION, features
from rlhi_dagster.feedback.labels.metrics import LABELS, label_numbers

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to L2-normalised float32 rows, one per text, in order."""

TEXTS = ("follow_up", "previous_prompt", "previous_reply")
WEIGHTS = Path(__file__).parents[1] / "weights"
"""The head that comes with the project."""
_HEAD, _CARD = "head.npz", "card.json"

COSINES = ("cosine_follow_up_prompt", "cosine_follow_up_reply", "cosine_prompt_reply")
EMBEDDING_SCALE = (0.5, 0.25, 0.25)
CUE_SCALE = 0.15
CLASS_WEIGHT_POWER = 0.5
MIN_DEVIATION = 0.1
FOLDS = 5
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

    def tempered(self, temperature: float) -> FeedbackClassifier:
        """The same head with its logits divided by ``temperature``: the same labels, less sure of them if it is above 1."""
        return replace(self, weights=(self.weights / temperature).astype(np.float32), bias=(self.bias / temperature).astype(np.float32))

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
        np.savez_compressed(directory / _HEAD, weights=self.weights, bias=self.bias, mean=self.mean, scale=self.scale)
        card: dict[str, Any] = {"encoder": self.encoder, "labels": list(self.labels), "digest": self.digest}
        card |= {"cues_version": CUES_VERSION, "cues": list(CUES)}
        (directory / _CARD).write_text(json.dumps(card | {"scores": self.card}, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path = WEIGHTS) -> FeedbackClassifier:
        """Read a head written by ``save``.

        Raises:
            NotMadeError: There is none.
            DamagedError: Its files are not as they were written, or do not belong together.
            ValueError: The head was trained for other cues than this code computes.
        """
        missing = [name for name in (_HEAD, _CARD) if not (directory / name).is_file()]
        if missing:
            raise NotMadeError(f"{directory} holds no classifier ({', '.join(missing)} missing)", "feedback_classifier")
        try:
            head, card = cls._read(directory)
        except (ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DamagedError(f"{directory} holds a damaged classifier ({type(error).__name__})", "feedback_classifier") from error
        if (card["cues_version"], tuple(card["cues"])) != (CUES_VERSION, CUES):
            raise ValueError(f"{directory}: trained for cues version {card['cues_version']}, the code has {CUES_VERSION}: train it again")
        if head.digest != card["digest"]:
            told = f"{directory} holds a damaged classifier: head.npz has digest {head.digest}, card.json says {card['digest']}"
            raise DamagedError(told, "feedback_classifier")
        return head

    @classmethod
    def _read(cls, directory: Path) -> tuple[FeedbackClassifier, dict[str, Any]]:
        card = json.loads((directory / _CARD).read_bytes())
        with np.load(directory / _HEAD, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("weights", "bias", "mean", "scale")}
        labels = tuple(Feedback(label) for label in card["labels"])
        known = {name: card[name] for name in ("cues_version", "cues", "digest")}
        return cls(**arrays, labels=labels, encoder=card["encoder"], card=card["scores"]), known


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


Fitted = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Row numbers to train on and row numbers to label; returns [n, 6] probabilities of the latter."""


def cross_validated(fitted: Fitted, groups: np.ndarray, seed: int) -> np.ndarray:
    """[n, 6] probabilities of each row from a training that saw no row of its group; ``FOLDS`` folds."""
    from sklearn.model_selection import GroupKFold

    probabilities = np.zeros((len(groups), len(LABELS)))
    for seen, unseen in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(groups, groups=groups):
        probabilities[unseen] = fitted(seen, unseen)
    return probabilities
