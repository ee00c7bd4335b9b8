"""Train the feedback classifier from labelled conversations and write it with its card.

What belongs here: reading labels and conversations, keeping the test rows apart, calling ``feedback.classifier``. What does not: the
head itself. Run it as::

    python -m rlhi_dagster.workers.train_feedback_classifier --labels labels.csv --conversations sample.parquet --out weights

``labels.csv`` has the columns ``conversation_hash, message_index, label, second_label``. A row with a ``second_label`` was labelled
twice independently: it is never trained on, and is the test. Because other follow-ups of the same conversations may be trained on, the
test is scored twice: by the head as shipped, and, with conversations kept apart, by heads that saw nothing of the row's conversation.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback.classifier import (
    FOLDS,
    LABELS,
    Embed,
    FeedbackClassifier,
    anchor_examples,
    fit,
    inputs,
    label_numbers,
    scores,
    train,
)

logger = logging.getLogger(__name__)


def labelled_follow_ups(labels: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """Join labels to the texts they are about, sorted by conversation and message.

    The previous request is the nearest user message before the follow-up (some logs have several assistant messages in a row), the
    reply the message right before it.

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
    joined = labels.join(messages, on=["conversation_hash", "message_index"], how="left")
    is_follow_up = (pl.col("role") == "user") & (pl.col("previous_role") == "assistant") & pl.col("previous_prompt").is_not_null()
    bad = joined.filter(is_follow_up.not_() | is_follow_up.is_null())
    if len(bad):
        conversation, index = bad.select("conversation_hash", "message_index").row(0)
        raise ValueError(f"{len(bad)} label(s) are not about a follow-up; first: {conversation}, message {index}")
    return joined.sort("conversation_hash", "message_index").rename({"conversation_hash": "conversation_id", "content": "follow_up"})


def train_and_test(frame: pl.DataFrame, embed: Embed, seed: int) -> FeedbackClassifier:
    """Train on the rows labelled once, score on the rows labelled twice, and put both into the card."""
    is_test = frame["second_label"].is_not_null()
    known, test = frame.filter(~is_test), frame.filter(is_test)
    logger.info("%d follow-ups to train on, %d to test on", len(known), len(test))
    classifier = train(known, known["label"].to_list(), embed, seed, MiniLM.name)
    card: dict[str, Any] = {**classifier.card, "training": {"n": len(known), "conversations": known["conversation_id"].n_unique()}}
    if len(test):
        truth, groups = label_numbers(test["label"].to_list()), test["conversation_id"].to_numpy()
        apart = _conversations_apart(known, test, embed, seed)
        card["test"] = {
            "rows": "labelled twice; the first label is the truth",
            "agreement_of_the_two_labels": round(float(np.mean((test["label"] == test["second_label"]).to_numpy())), 4),
            "conversations_apart": scores(truth, apart, groups, seed),
            "as_shipped": scores(truth, classifier.predict_proba(test, embed), groups, seed),
            "second_labeller": scores(truth, np.eye(len(LABELS))[label_numbers(test["second_label"].to_list())], groups, seed),
        }
    return replace(classifier, card=card)


def _conversations_apart(known: pl.DataFrame, test: pl.DataFrame, embed: Embed, seed: int) -> np.ndarray:
    """Probabilities of the test rows, each from a head that was trained without any row of its conversation."""
    conversations = np.sort(test["conversation_id"].unique().to_numpy())
    fold_of = dict(zip(conversations, np.random.default_rng(seed).permutation(len(conversations)) % FOLDS, strict=True))
    values, truth = inputs(known, embed), label_numbers(known["label"].to_list())
    asked, prior = inputs(test, embed), anchor_examples(embed)
    known_fold = np.array([fold_of.get(group, -1) for group in known["conversation_id"]])
    test_fold = np.array([fold_of[group] for group in test["conversation_id"]])
    result = np.zeros((len(test), len(LABELS)))
    for fold in range(FOLDS):
        seen = known_fold != fold
        result[test_fold == fold] = fit(values[seen], truth[seen], prior, "").probabilities(asked[test_fold == fold])
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train, and write the head."""
    parser = argparse.ArgumentParser(description="Train the feedback classifier and write head.npz and card.json.")
    parser.add_argument("--labels", type=Path, required=True, help="CSV: conversation_hash, message_index, label, second_label")
    parser.add_argument("--conversations", type=Path, required=True, help="Parquet in WildChat's schema with the labelled conversations")
    parser.add_argument("--out", type=Path, required=True, help="folder for head.npz and card.json")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and bootstrap (default: 0)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    conversations = pl.read_parquet(options.conversations, columns=["conversation_hash", "conversation"])
    frame = labelled_follow_ups(pl.read_csv(options.labels), conversations)
    classifier = train_and_test(frame, remembered(MiniLM().embed), options.seed)
    classifier.save(options.out)
    logger.info("%s", json.dumps({"digest": classifier.digest, **_headline(classifier.card)}, indent=2))


def remembered(embed: Embed) -> Embed:
    """Wrap ``embed`` so that a text seen before is not encoded again."""
    vectors: dict[str, np.ndarray] = {}

    def look_up(texts: Sequence[str]) -> np.ndarray:
        new = sorted(set(texts) - vectors.keys())
        vectors.update(zip(new, embed(new), strict=True))
        return np.stack([vectors[text] for text in texts])

    return look_up


def _headline(card: dict[str, Any]) -> dict[str, Any]:
    names = ("macro_f1", "reattempt_f1", "reattempt_average_precision", "accuracy")
    parts = {"cross_validation": card["cross_validation"], **{k: v for k, v in card.get("test", {}).items() if isinstance(v, dict)}}
    return {part: {name: values[name] for name in names} for part, values in parts.items()}


if __name__ == "__main__":
    main()
