"""Explicit feedback: what a score says, and which reply it is about.

What belongs here: scores under a name, as tracing systems keep feedback, as thumbs, ratings and comments; and, once all rows are read, the
replies that feedback is on. What does not: where a layout has its scores, and whom it has them from (``layouts``).

Which score is the end users' thumb is the customer's choice (setting `thumbs`). Of such a score 1, true and ``good`` are a thumb up; 0, -1,
false and ``bad`` a thumb down. Every other number is a rating on a scale that nobody tells, every other text a comment.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.conversations.sources.records import FEEDBACK, Feedback, FeedbackKind
from rlhi_dagster.conversations.sources.settings import SourceSettings

GIVEN = pl.Schema({**FEEDBACK, "request": pl.String(), "pair": pl.String()})
"""Feedback as the rows have it."""
NAMES = pl.Schema({"name": pl.String(), "reply": pl.String()})
"""Names of requests and of rows that were left for others, with the `Message.id` of the reply that was kept."""

_UP = {"up", "thumbsup", "thumbup", "good", "great", "positive", "pos", "yes", "true", "like", "liked", "helpful", "correct", "happy", "👍"}
_DOWN = {
    "down", "thumbsdown", "thumbdown", "bad", "poor", "negative", "neg", "no", "false", "dislike", "disliked", "unhelpful", "nothelpful",
    "incorrect", "unhappy", "👎",
}  # fmt: skip
_UNMISTAKABLE = {"thumbsup", "thumbup", "👍", "thumbsdown", "thumbdown", "👎"}
_THUMBS = {1.0: 1.0, 0.0: -1.0, -1.0: -1.0}


def is_thumb(name: str, settings: SourceSettings) -> bool:
    """Whether the settings name a score as the end users' thumb; capitals, hyphens and underscores do not matter."""
    return _plain(name) in map(_plain, settings.thumbs)


def given(
    name: str,
    value: Any,
    settings: SourceSettings,
    *,
    target: str | None,
    giver: str,
    label: str | None = None,
    comment: str | None = None,
    given_at: datetime | None = None,
    request: str | None = None,
) -> list[Feedback]:
    """What a score says; nothing if it has neither a value nor a label nor a comment.

    A label that speaks of thumbs is one under any name.
    """
    found = number(value)
    words = value.strip() if isinstance(value, str) and found is None else label or ""
    if is_thumb(name, settings) or _plain(words) in _UNMISTAKABLE:
        says = thumb(words)
        says = thumb(value) if says is None else says
        if says is not None:
            return [Feedback(target, FeedbackKind.THUMB, says, comment, given_at, giver, request)]
    text = "\n".join(filter(None, (words, comment))) or None
    if found is None and text is None:
        return []
    kind = FeedbackKind.RATING if found is not None else FeedbackKind.COMMENT
    return [Feedback(target, kind, found, text, given_at, giver, request)]


def thumb(value: Any) -> float | None:
    """1 for a thumb up, -1 for one down, as a number, as true and false or as a word; None for what is none."""
    found = number(value)
    if found is not None:
        return _THUMBS.get(found)
    mark = _plain(value) if isinstance(value, str) and value.strip() else ""
    return 1.0 if mark in _UP else -1.0 if mark in _DOWN else None


def settle(given_file: Path, names_file: Path, rows_file: Path, settled_file: Path) -> None:
    """Write what was given, each once and with the reply that it is about: of a request, whichever of its rows was kept.

    Replies that were compared (`Feedback.pair`) become choices of the best of them over each of the others.

    Args:
        given_file: Of `GIVEN`.
        names_file: Of `NAMES`.
        rows_file: Of `records.SCHEMA`.
        settled_file: Is written (`records.FEEDBACK`).
    """
    names = pl.scan_parquet(names_file).unique("name", keep="last", maintain_order=True)
    found = (
        pl.scan_parquet(given_file)
        .join(names, left_on="target", right_on="name", how="left", maintain_order="left")
        .join(names, left_on="request", right_on="name", how="left", maintain_order="left", suffix="_of_request")
        .with_columns(pl.coalesce("reply", "reply_of_request", "target").alias("target"))
    )
    single = found.filter(pl.col("pair").is_null()).select(*FEEDBACK)
    compared = found.filter(pl.col("pair").is_not_null(), pl.col("value").is_not_null()).collect()
    both = pl.concat([single, _choices(compared, rows_file)]) if len(compared) else single
    both.unique(maintain_order=True).sink_parquet(settled_file)


def _choices(compared: pl.DataFrame, rows_file: Path) -> pl.LazyFrame:
    """Choices of the best of replies that were compared over each of the others."""
    is_best = pl.col("value") == pl.col("value").max().over("pair")
    best = compared.filter(is_best).unique("pair", keep="none").select("pair", "target", "value")
    replies = (
        pl.scan_parquet(rows_file)
        .select(pl.col("messages").explode())
        .select(pl.col("messages").struct.field("id", "content"))
        .join(compared.lazy().select("target"), left_on="id", right_on="target", how="semi")  # what is held is not all text of the source
        .drop_nulls()
        .unique("id", keep="first")
    )
    return (
        compared.lazy()
        .join(best.lazy(), on="pair", suffix="_of_best")
        .filter(pl.col("value") < pl.col("value_of_best"))
        .join(replies, left_on="target", right_on="id", maintain_order="left")
        .with_columns(pl.col("target_of_best").alias("target"), pl.col("content").alias("text"), pl.lit(None, pl.Float64).alias("value"))
        .select(*FEEDBACK)
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower()) or name.strip()


def number(value: Any) -> float | None:
    """A number, also as text; None for what is none."""
    if isinstance(value, str):
        value = value.strip()
    try:
        found = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
