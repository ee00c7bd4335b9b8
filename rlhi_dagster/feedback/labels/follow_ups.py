"""From turns to labelled follow-ups.

What belongs here: pairing a follow-up with what it reacts to, what a labeller is, and the rows of ``feedback_labels``. What does not:
how a label is found (``classifier``, ``chat_labeller``), who labels what (``cascade``) and what is counted from labels (``rates``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from rlhi_dagster.base.tables import FEEDBACK_LABELS
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.aspects import MAX_SENTENCE, requests
from rlhi_dagster.feedback.labels.classifier import Embed, FeedbackClassifier
from rlhi_dagster.feedback.labels.metrics import LABELS

MESSAGE_INDEX = pl.col("turn_id").str.extract(r":(\d+)$").cast(pl.Int64).alias("message_index")
"""Position of a turn's user message in the source's message list."""


def follow_ups(turns: pl.LazyFrame) -> pl.DataFrame:
    """Pair each user message after a conversation's first with the request and the reply before it.

    Args:
        turns: Rows of ``tables.TURNS``.

    Returns:
        turn_id, conversation_id, user_id, month, turn, asked_at, template_id, follow_up, is_unanswered, previous_turn_id,
        previous_prompt, previous_reply; sorted by ``turn_id``.

    Raises:
        ValueError: A turn after the first has no turn before it.
    """
    turns = turns.lazy()
    previous = turns.select(
        "conversation_id",
        turn=pl.col("turn") + 1,
        previous_turn_id="turn_id",
        previous_prompt="prompt",
        previous_reply="reply",
    )
    kept = ["turn_id", "conversation_id", "user_id", "month", "turn", "asked_at", "template_id"]
    paired = (
        turns.filter(pl.col("turn") > 1)
        .select(*kept, follow_up="prompt", is_unanswered=pl.col("reply").is_null())
        .join(previous, on=["conversation_id", "turn"], how="left")
        .sort("turn_id")
        .collect()
    )
    orphans = paired.filter(pl.col("previous_turn_id").is_null())
    if len(orphans):
        raise ValueError(f"{len(orphans)} turn(s) have no turn before them; first: {orphans['turn_id'][0]}")
    return paired


class Labeller(Protocol):
    """Says of follow-ups what they say about the reply before them."""

    @property
    def name(self) -> str:
        """Name and digest, as the column ``labeller`` states them."""

    def label(self, follow_ups: pl.DataFrame) -> pl.DataFrame:
        """Label follow-ups.

        Args:
            follow_ups: As ``follow_ups`` returns them.

        Returns:
            Rows of ``tables.FEEDBACK_LABELS``, at most one for each follow-up, sorted by ``turn_id``.
        """


@dataclass(frozen=True, slots=True)
class ClassifierLabeller:
    """The trained classifier; it labels every follow-up.

    ``span`` is filled where the label is ``reattempt_with_feedback`` and the lexicon found a style request; other feedback ("no, I meant
    tulips") has no span.

    Attributes:
        classifier: The head.
        embed: The encoder it was trained with.
    """

    classifier: FeedbackClassifier
    embed: Embed

    @property
    def name(self) -> str:
        """See `Labeller.name`."""
        return self.classifier.name

    def label(self, follow_ups: pl.DataFrame) -> pl.DataFrame:
        """See `Labeller.label`."""
        if not len(follow_ups):
            return FEEDBACK_LABELS.empty()
        probabilities = self.classifier.predict_proba(follow_ups, self.embed)
        return rows(follow_ups, probabilities, self.name, map(span, follow_ups["follow_up"]), [[]] * len(follow_ups))


def rows(
    follow_ups: pl.DataFrame, probabilities: np.ndarray, labeller: str, spans: Iterable[str | None], call_ids: Sequence[Sequence[str]]
) -> pl.DataFrame:
    """Rows of ``tables.FEEDBACK_LABELS`` from the probabilities of the labels.

    Args:
        follow_ups: As ``follow_ups`` returns them.
        probabilities: [n, 6], columns in the order of ``scoring.LABELS``.
        labeller: Who gave them.
        spans: What each follow-up asks to change; kept where the likeliest label is ``reattempt_with_feedback``.
        call_ids: The model calls that gave each label and span.
    """
    wanted = Feedback.REATTEMPT_WITH_FEEDBACK
    labels = [LABELS[i].value for i in probabilities.argmax(axis=1)]
    kept = [stretch if found == wanted else None for stretch, found in zip(spans, labels, strict=True)]
    return FEEDBACK_LABELS.conform(
        follow_ups.select("turn_id", "conversation_id", "user_id", "month", "turn", "is_unanswered").with_columns(
            label=pl.Series(labels, dtype=pl.String),
            probability=pl.Series(probabilities.max(axis=1)),
            reattempt_probability=pl.Series(probabilities[:, LABELS.index(wanted)]),
            span=pl.Series(kept, dtype=pl.String),
            labeller=pl.lit(labeller),
            call_ids=pl.Series(call_ids, dtype=pl.List(pl.String)),
        )
    )


def span(text: str) -> str | None:
    """The stretch of ``text`` from its first to its last style request, verbatim; the first alone if that would be long."""
    found = [(text.find(request.span), request.span) for request in requests(text)]
    if not found:
        return None
    start, end = min(at for at, _ in found), max(at + len(words) for at, words in found)
    return text[start:end] if end - start <= MAX_SENTENCE else min(found)[1]
