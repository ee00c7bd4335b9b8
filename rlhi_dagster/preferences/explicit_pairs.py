"""Pairs from what users say outright: edits, regenerations, and choices between drafts. No model is asked.

What belongs here: which of the explicit feedback prefers one reply to another, how strong that evidence is, and the reasons against such a
pair. What does not: where feedback comes from (``conversations``), and the reasons that texts give (``filters``).

An edit is the reply as the user would have it, over the logged one. A choice is one draft over another. A regeneration says less: whoever
asks for another try may be curious, and keeps the last one because it is the last. It is weak evidence, unless thumbs or what the user says
next speak for the reply that stayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.tables import EXPLICIT_PAIRS, MESSAGES
from rlhi_dagster.conversations.sources.records import FeedbackKind
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.preferences.feedback_talk import mentions_feedback
from rlhi_dagster.preferences.filters import DropReason, of_sides
from rlhi_dagster.preferences.rewrites import LOGGED_MODEL, Snapshot
from rlhi_dagster.preferences.settings import ExplicitPairSettings

PREFERRING = (FeedbackKind.EDIT, FeedbackKind.REGENERATION, FeedbackKind.CHOICE)
"""Feedback that has another reply beside the logged one."""


class Evidence(StrEnum):
    """How sure it is that the user prefers one side to the other."""

    STRONG = "strong"
    WEAK = "weak"


def explicit_pairs(
    feedback: pl.DataFrame,
    turns: pl.DataFrame,
    labels: pl.DataFrame,
    users: pl.DataFrame,
    personas: pl.DataFrame,
    settings: ExplicitPairSettings,
    snapshot: Snapshot,
) -> pl.DataFrame:
    """Each edit, regeneration and choice of a training user as a pair, with the persona as of the request, and every reason against it.

    Args:
        feedback: ``EXPLICIT_FEEDBACK``.
        turns: ``TURNS`` of the same conversations.
        labels: ``FEEDBACK_LABELS`` of the same conversations.
        users: ``USERS``.
        personas: ``PERSONAS``.
        settings: Whose feedback counts, and the limits.
        snapshot: See ``rewrites.Snapshot``.

    Returns:
        ``EXPLICIT_PAIRS``.
    """
    counted = feedback.filter(pl.col("giver").is_in([giver.value for giver in settings.givers]))
    thumbs = counted.filter(pl.col("kind") == FeedbackKind.THUMB.value).group_by("reply_id").agg(thumb=pl.col("value").sum())
    follow_ups = labels.select("conversation_id", pl.col("turn").cast(pl.Int32) - 1, next_label="label")
    is_edit = pl.col("kind") == FeedbackKind.EDIT.value
    rows = (
        counted.filter(pl.col("kind").is_in([kind.value for kind in PREFERRING]))
        .join(users.filter(pl.col("split") == "train"), on="user_id", how="semi")
        .with_columns(pl.col("text").fill_null(""))
        .join(turns.select("turn_id", "turn", "asked_at", "reply"), on="turn_id")
        .join(_histories(turns), on="turn_id")
        .join(thumbs, on="reply_id", how="left")
        .join(follow_ups, on=["conversation_id", "turn"], how="left")
        .with_columns(
            chosen=pl.when(is_edit).then("text").otherwise("reply"),
            rejected=pl.when(is_edit).then("reply").otherwise("text"),
            model=pl.when(is_edit).then("giver").otherwise(pl.lit(LOGGED_MODEL)),
            evidence=_evidence(),
            is_contradicted=~is_edit & ((pl.col("thumb") < 0) | (pl.col("value") > 0)).fill_null(value=False),
            is_off_policy=pl.lit(value=True),
        )
        .sort("feedback_id")
    )
    rows = snapshot(personas, rows)
    against = [_reasons(row, settings) for row in rows.to_dicts()]
    return EXPLICIT_PAIRS.conform(
        rows.with_columns(
            pair_id=pl.Series([digest_of("explicit", feedback_id) for feedback_id in rows["feedback_id"]], dtype=pl.String()),
            drop_reasons=pl.Series(against, dtype=pl.List(pl.String())),
            is_kept=pl.Series([not found for found in against], dtype=pl.Boolean()),
        )
    )


def _evidence() -> pl.Expr:
    """Strong of edits and choices; of a regeneration if a thumb or the user's next message speaks for the reply that stayed."""
    is_said = (pl.col("thumb") > 0) | (pl.col("value") < 0) | (pl.col("next_label") == Feedback.POSITIVE.value)
    is_strong = (pl.col("kind") != FeedbackKind.REGENERATION.value) | is_said.fill_null(value=False)
    return pl.when(is_strong).then(pl.lit(Evidence.STRONG.value)).otherwise(pl.lit(Evidence.WEAK.value))


def _histories(turns: pl.DataFrame) -> pl.DataFrame:
    """Of each turn the logged messages up to and with the user's: turn_id, prompt."""
    found: list[tuple[str, list[dict[str, str]]]] = []
    said: list[dict[str, str]] = []
    for turn_id, turn, prompt, reply in turns.sort("conversation_id", "turn").select("turn_id", "turn", "prompt", "reply").iter_rows():
        asked = [*(said if turn > 1 else ()), {"role": "user", "content": prompt}]
        found.append((turn_id, asked))
        said = [*asked, {"role": "assistant", "content": reply or ""}]
    return pl.DataFrame(found, schema={"turn_id": pl.String(), "prompt": MESSAGES}, orient="row")


def _reasons(row: Mapping[str, Any], settings: ExplicitPairSettings) -> list[DropReason]:
    found = of_sides(row["chosen"], row["rejected"], row["prompt"], [row["persona"]], settings.filters)
    found |= {
        DropReason.CONTRADICTED: row["is_contradicted"],
        DropReason.WEAK_EVIDENCE: not settings.weak and row["evidence"] == Evidence.WEAK,
        DropReason.EMPTY_ORIGINAL: not row["rejected"].strip(),
        DropReason.MENTIONS_FEEDBACK: mentions_feedback(row["chosen"], row["prompt"][-1]["content"]),
    }
    return [reason for reason in DropReason if found.get(reason)]


def account(pairs: pl.DataFrame) -> pl.DataFrame:
    """What became of each kind of feedback.

    Args:
        pairs: ``EXPLICIT_PAIRS``.

    Returns:
        kind, evidence, fate (``kept``, or the first reason against the pair) and pairs; sorted.
    """
    fates = pairs.select("kind", "evidence", fate=pl.col("drop_reasons").list.first().fill_null("kept"))
    return fates.group_by("kind", "evidence", "fate").len("pairs").sort("kind", "evidence", "fate")


def outright_preferences_are_conserved(
    pairs: pl.LazyFrame, explicit_feedback: pl.LazyFrame, users: pl.LazyFrame, settings: ExplicitPairSettings
) -> Finding:
    """Every edit, regeneration and choice that counts, of training users, is one pair with the same text, kept or dropped with a reason.

    Args:
        pairs: ``EXPLICIT_PAIRS``.
        explicit_feedback: ``EXPLICIT_FEEDBACK``.
        users: ``USERS``.
        settings: Whose feedback counts.
    """
    training = set(users.filter(pl.col("split") == "train").select("user_id").collect()["user_id"])
    kinds, givers = {kind.value for kind in PREFERRING}, {giver.value for giver in settings.givers}
    given = {
        row["feedback_id"]: row["text"] or ""
        for row in explicit_feedback.select("feedback_id", "user_id", "kind", "giver", "text").collect(engine="streaming").to_dicts()
        if row["kind"] in kinds and row["giver"] in givers and row["user_id"] in training
    }
    made = pairs.select("feedback_id", "kind", "chosen", "rejected", "is_kept", "drop_reasons").collect(engine="streaming").to_dicts()
    side = {kind.value: "chosen" if kind is FeedbackKind.EDIT else "rejected" for kind in PREFERRING}
    numbers = {
        "kept_pairs": sum(bool(row["is_kept"]) for row in made),
        "dropped_pairs": sum(not row["is_kept"] for row in made),
        "lost_feedback": len(given.keys() - {row["feedback_id"] for row in made}),
        "pairs_of_no_feedback": sum(row["feedback_id"] not in given for row in made),
        "changed_texts": sum(row["feedback_id"] in given and given[row["feedback_id"]] != row[side[row["kind"]]] for row in made),
        "repeated_pairs": len(made) - len({row["feedback_id"] for row in made}),
        "undecided_pairs": sum(row["is_kept"] is bool(row["drop_reasons"]) for row in made),
    }
    return Finding(not any(list(numbers.values())[2:]), numbers)
