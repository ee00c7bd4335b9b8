"""Training the feedback classifier from labelled follow-ups, and the card that says how good it is.

What belongs here: joining labels to what they are about, keeping test rows apart, cross-validation, calibration, the card. What does not:
the head itself (``classifier.py``), metrics (``metrics.py``) and what the card looks like (``classifier_card.py``).

Labels have the columns ``conversation_hash, message_index, label`` and, if some rows were labelled twice, ``second_label``. Rows with a
second label are never trained on or tuned on: they are the test. Because other follow-ups of the same conversations may be trained on,
the test is scored twice: by the head as it is, and, with conversations kept apart, by heads that saw nothing of the row's conversation.

The head that comes with the project was trained by::

    python -m rlhi_dagster.feedback.labels.fitting --labels labels.csv --conversations wildchat_sample.parquet --out weights

in ``rlhi_dagster/feedback``.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback.labels import baselines, cascade
from rlhi_dagster.feedback.labels.anchors import WEIGHT
from rlhi_dagster.feedback.labels.classifier import (
    CLASS_WEIGHT_POWER,
    COSINES,
    CUE_SCALE,
    EMBEDDING_SCALE,
    FOLDS,
    Embed,
    FeedbackClassifier,
    anchor_examples,
    cross_validated,
    fit,
    inputs,
)
from rlhi_dagster.feedback.labels.cues import CUES
from rlhi_dagster.feedback.labels.follow_ups import MESSAGE_INDEX
from rlhi_dagster.feedback.labels.metrics import LABELS, calibration, difference, label_numbers, scores, temperature, tempered

logger = logging.getLogger(__name__)


def train(frame: pl.DataFrame, embed: Embed, seed: int, encoder: str = MiniLM.name) -> FeedbackClassifier:
    """Train the head on the rows labelled once, calibrate it, and score it.

    Args:
        frame: One row per follow-up: the columns of ``classifier.TEXTS``, ``label``, ``second_label`` (null where labelled once) and
            ``conversation_id``, which groups folds and intervals.
        embed: The sentence encoder.
        seed: Seed of folds and bootstrap.
        encoder: Name of the sentence encoder.

    Returns:
        A head trained on all rows labelled once. Its card says how heads trained on four fifths of the conversations did on the rest,
        beside baselines on the same folds, and how it does on the rows labelled twice.

    Raises:
        ValueError: A label is unknown, or there are fewer conversations than folds.
    """
    is_test = frame["second_label"].is_not_null()
    known, test = frame.filter(~is_test), frame.filter(is_test)
    truth, groups = label_numbers(known["label"].to_list()), known["conversation_id"].to_numpy()
    if len(np.unique(groups)) < FOLDS:
        raise ValueError(f"training needs follow-ups of at least {FOLDS} conversations labelled once, got {len(np.unique(groups))}")
    values, prior = inputs(known, embed), anchor_examples(embed)

    def fitted(rows: np.ndarray) -> FeedbackClassifier:
        return fit(values[rows], truth[rows], prior, encoder)

    held_out = cross_validated(lambda seen, unseen: fitted(seen).probabilities(values[unseen]), groups, seed)
    warmth = round(temperature(truth, held_out), 3)
    calibrated = tempered(held_out, warmth)
    vectors = values[:, : -(len(CUES) + len(COSINES))]
    beside = {"bag_of_words": baselines.bag_of_words(known, truth), "embeddings": baselines.embeddings(vectors, truth)}
    card: dict[str, Any] = {
        "training": {"n": len(known), "conversations": len(np.unique(groups))},
        "cross_validation": {
            "folds": FOLDS,
            "grouped_by": "conversation_id",
            "labels": {label: int((truth == i).sum()) for i, label in enumerate(LABELS)},
            **scores(truth, calibrated, groups, seed),
            "calibration_before_tempering": calibration(held_out.argmax(axis=1) == truth, held_out.max(axis=1), seed),
            "baselines": {
                name: _beside(calibrated, cross_validated(baseline, groups, seed), truth, groups, seed) for name, baseline in beside.items()
            },
        },
        "settings": {
            "embedding_scale": list(EMBEDDING_SCALE),
            "cue_scale": CUE_SCALE,
            "class_weight_power": CLASS_WEIGHT_POWER,
            "anchors": len(prior.truth),
            "anchor_weight": WEIGHT,
            "temperature": warmth,
            "seed": seed,
        },
    }
    head = fit(values, truth, prior, encoder).tempered(warmth)
    if len(test):
        card["test"] = _tested(head, test, inputs(test, embed), lambda rows: fitted(rows).tempered(warmth), groups, seed)
    return replace(head, card=card)


def _beside(ours: np.ndarray, theirs: np.ndarray, truth: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    return {**scores(truth, theirs, groups, seed), "head_minus_this": difference(truth, ours, theirs, groups, seed)}


def _tested(
    head: FeedbackClassifier,
    test: pl.DataFrame,
    asked: np.ndarray,
    seen: Callable[[np.ndarray], FeedbackClassifier],
    known_groups: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Scores on the rows labelled twice.

    Args:
        head: The head as it is.
        test: The rows labelled twice.
        asked: Their inputs.
        seen: Fits a calibrated head to some of the rows labelled once, given as a mask.
        known_groups: Conversation of each row labelled once.
        seed: Seed of folds and bootstrap.
    """
    truth, second = (label_numbers(test[name].to_list()) for name in ("label", "second_label"))
    groups = test["conversation_id"].to_numpy()
    apart = np.zeros((len(test), len(LABELS)))
    for mine, others in _apart(groups, known_groups, seed):
        apart[mine] = seen(others).probabilities(asked[mine])
    return {
        "rows": "labelled twice; the first label is the truth",
        "agreement_of_the_two_labels": round(float((truth == second).mean()), 4),
        "conversations_apart": scores(truth, apart, groups, seed),
        "as_shipped": scores(truth, head.probabilities(asked), groups, seed),
        "second_labeller": scores(truth, np.eye(len(LABELS))[second], groups, seed),
        "cascade": {
            "model": "the second labeller in the place of a language model",
            "curve": cascade.curve(truth, apart, second, groups, seed),
        },
    }


def _apart(groups: np.ndarray, known_groups: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each fold of the test's conversations: its rows, and the known rows of all other conversations, as masks."""
    conversations = np.unique(groups)
    fold_of = dict(zip(conversations, np.random.default_rng(seed).permutation(len(conversations)) % FOLDS, strict=True))
    test_fold, known_fold = (np.array([fold_of.get(group, -1) for group in each]) for each in (groups, known_groups))
    for fold in range(FOLDS):
        yield test_fold == fold, known_fold != fold


def labelled(follow_ups: pl.DataFrame, gold: pl.DataFrame) -> pl.DataFrame:
    """Join labels to the follow-ups of an ingested source.

    Args:
        follow_ups: As ``labels.follow_ups`` returns them.
        gold: As ``agreement.read_gold`` returns them.

    Returns:
        What `train` takes, sorted by conversation and message. Labels of quarantined conversations are not in it.

    Raises:
        ValueError: No label is about one of the follow-ups.
    """
    joined = (
        follow_ups.with_columns(MESSAGE_INDEX)
        .join(gold.rename({"conversation_hash": "conversation_id"}), on=["conversation_id", "message_index"], how="inner")
        .sort("conversation_id", "message_index")
    )
    if not len(joined):
        raise ValueError(f"none of the {len(gold):,} labels is about one of the {len(follow_ups):,} follow-ups of the source")
    return joined


def of_training_users(known: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """Without what users said on whom checkpoints are tried: the labeller, too, learns from training users only.

    Args:
        known: From `labelled`.
        users: ``USERS``; labelled users who are not there have no evaluation item either, and stay.
    """
    return known.join(users.filter(pl.col("split") != "train"), on="user_id", how="anti", maintain_order="left")


def labelled_wildchat(gold: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """Join labels to messages of WildChat's Parquet as it is, so that labels of conversations that ingestion rejects count, too.

    The previous request is the nearest user message before the follow-up (some logs have several assistant messages in a row), the
    reply the message right before it.

    Returns:
        What `train` takes, sorted by conversation and message.

    Raises:
        ValueError: A label names a message that is missing, is no user message, or has no reply before it.
    """
    messages = (
        conversations.unique("conversation_hash", keep="first", maintain_order=True)
        .select("conversation_hash", pl.col("conversation").list.eval(pl.struct(pl.element().struct.field("role", "content"))))
        .explode("conversation", empty_as_null=True)
        .unnest("conversation")
        .with_columns(message_index=pl.int_range(pl.len()).over("conversation_hash"), content=pl.col("content").fill_null(""))
        .with_columns(
            previous_role=pl.col("role").shift(1).over("conversation_hash"),
            previous_reply=pl.col("content").shift(1).over("conversation_hash"),
            previous_prompt=pl.when(role="user").then("content").forward_fill().shift(1).over("conversation_hash"),
        )
    )
    joined = gold.join(messages, on=["conversation_hash", "message_index"], how="left")
    is_follow_up = (pl.col("role") == "user") & (pl.col("previous_role") == "assistant") & pl.col("previous_prompt").is_not_null()
    bad = joined.filter(is_follow_up.not_() | is_follow_up.is_null())
    if len(bad):
        conversation, index = bad.select("conversation_hash", "message_index").row(0)
        raise ValueError(f"{len(bad)} label(s) are not about a follow-up; first: {conversation}, message {index}")
    return joined.sort("conversation_hash", "message_index").rename({"conversation_hash": "conversation_id", "content": "follow_up"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train, and write the head."""
    from rlhi_dagster.feedback.labels.agreement import read_gold

    parser = argparse.ArgumentParser(description="Train the feedback classifier and write head.npz and card.json.")
    parser.add_argument("--labels", type=Path, required=True, help="CSV: conversation_hash, message_index, label, second_label")
    parser.add_argument("--conversations", type=Path, required=True, help="Parquet in WildChat's schema with the labelled conversations")
    parser.add_argument("--out", type=Path, required=True, help="folder for head.npz and card.json")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and bootstrap (default: 0)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    conversations = pl.read_parquet(options.conversations, columns=["conversation_hash", "conversation"])
    classifier = train(labelled_wildchat(read_gold(options.labels), conversations), MiniLM().embed, options.seed)
    classifier.save(options.out)
    logger.info("%s", json.dumps({"digest": classifier.digest, **_headline(classifier.card)}, indent=2))


def _headline(card: dict[str, Any]) -> dict[str, Any]:
    names = ("macro_f1", "reattempt_f1", "reattempt_average_precision", "accuracy")
    parts = {"cross_validation": card["cross_validation"], "conversations_apart": card.get("test", {}).get("conversations_apart")}
    return {
        part: {name: values[name] for name in names} | {"calibration_error": values["calibration"]["error"]}
        for part, values in parts.items()
        if values
    }


if __name__ == "__main__":
    main()
