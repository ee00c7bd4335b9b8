"""Thumbs of users as unpaired examples: a logged reply that its user liked or disliked, with nothing to compare it with.

What belongs here: which replies become examples, as pairs of which one side is missing, why others do not, and the shuffled control. What
does not: whose thumb counts (``feedback/labels/thumbs.py``) and training on the examples (``workers/train_kto.py``).

A thumb says more than no thumb and less than a pair: it is about a reply of whatever model was in use, so the examples are off-policy, and
a user who gives thumbs is not every user.
"""

from __future__ import annotations

from enum import StrEnum

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.tables import THUMB_EXAMPLES
from rlhi_dagster.conversations.turns import said_before
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.feedback.labels.thumbs import latest_thumbs
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.training.examples import judged


class Thumbs(StrEnum):
    """Where an unpaired example comes from: what a recipe of the method `kto` trains on."""

    GIVEN = "thumbs"
    """Replies with the thumbs that their users gave."""
    SHUFFLED = "thumbs_shuffled"
    """The same replies with the same thumbs dealt out anew."""


def offered(explicit_feedback: pl.LazyFrame, turns: pl.LazyFrame, users: pl.DataFrame, personas: pl.DataFrame) -> pl.DataFrame:
    """Logged replies of training users with their user's latest thumb, and the persona as of the request.

    Args:
        explicit_feedback: ``EXPLICIT_FEEDBACK``. A thumb that was taken back (0 or no value) is none.
        turns: ``TURNS``.
        users: ``USERS``.
        personas: ``PERSONAS``.

    Returns:
        ``pair_id``, ``source``, ``user_id``, ``conversation_id``, ``turn_id``, ``asked_at``, ``prompt`` (the logged conversation up to the
        reply), ``chosen`` or ``rejected`` (the reply), ``persona`` and ``persona_line_ids``; sorted by ``pair_id``.
    """
    training = users.lazy().filter(pl.col("split") == "train").select("user_id")
    given = latest_thumbs(explicit_feedback).filter(pl.col("value").fill_nan(None).fill_null(0) != 0)
    rated = turns.join(training, on="user_id", how="semi").join(given, on="turn_id")
    is_up, text = pl.col("value") > 0, pl.col("reply").fill_null("")
    found = (
        rated.join(said_before(turns, rated), on="turn_id")
        .select(
            "user_id",
            "conversation_id",
            "turn_id",
            "asked_at",
            prompt="messages",
            chosen=pl.when(is_up).then(text),
            rejected=pl.when(~is_up).then(text),
            source=pl.lit(Thumbs.GIVEN.value),
        )
        .collect()
    )
    return personas_at(personas, _named(found).sort("pair_id"))


def thumb_examples(
    rated: pl.DataFrame, hits: pl.DataFrame, users: pl.DataFrame, near_duplicate_jaccard: float, validation_fraction: float, seed: int
) -> pl.DataFrame:
    """Say of every reply with a thumb whether it stays, why not, and which split it is in; and add the control.

    Args:
        rated: From `offered`.
        hits: ``decontamination.HITS`` of these examples.
        users: ``USERS``; ``split_group`` decides who validates together.
        near_duplicate_jaccard: As in ``duplicates.duplicates``. Replies that are alike with unlike thumbs are no duplicates.
        validation_fraction: Share of groups of users whose examples validate: the groups that validate among pairs.
        seed: Of the shuffle.

    Returns:
        ``THUMB_EXAMPLES``: a row for each reply, and for each that stays one with a shuffled thumb.
    """
    sides = {side: pl.col(side).fill_null("") for side in ("chosen", "rejected")}
    given = judged(rated, pl.coalesce("chosen", "rejected"), sides, hits, users, near_duplicate_jaccard, validation_fraction)
    return THUMB_EXAMPLES.conform(pl.concat([given, _shuffled(given.filter("is_kept"), seed)]))


def each_example_has_one_side(examples: pl.LazyFrame) -> Finding:
    """Every example is a reply with a thumb up or a thumb down, kept or dropped with a reason, and the control has as many of each.

    Args:
        examples: ``THUMB_EXAMPLES``.
    """
    up, down = pl.col("chosen").is_not_null(), pl.col("rejected").is_not_null()
    kept = examples.filter("is_kept").group_by("source", "split").agg(up=up.sum(), down=down.sum()).collect()
    counts = {(row["source"], row["split"]): (int(row["up"]), int(row["down"])) for row in kept.iter_rows(named=True)}
    uneven = [
        split for split in ("train", "validation") if counts.get((Thumbs.GIVEN.value, split)) != counts.get((Thumbs.SHUFFLED.value, split))
    ]
    untold = pl.col("is_kept").eq_missing(pl.col("drop_reasons").list.len() > 0)
    faults = examples.select(not_one_side=(up == down).sum(), without_a_word_why=untold.sum()).collect().row(0, named=True)
    shown = {f"up/{source}/{split}": n for (source, split), (n, _) in counts.items()}
    shown |= {f"down/{source}/{split}": n for (source, split), (_, n) in counts.items()}
    return Finding(not uneven and not any(faults.values()), {**faults, "splits_with_another_control": uneven, **shown})


def _shuffled(kept: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The same replies in each split, with its thumbs dealt out anew: their order by one digest against that by another."""
    parts = [kept.head(0)]
    for _, part in kept.sort("pair_id").group_by("split", maintain_order=True):
        order = pl.Series([digest_of("shuffled", pair_id, seed) for pair_id in part["pair_id"]], dtype=pl.String())
        is_up = part["chosen"].is_not_null().gather(order.arg_sort())
        reply = pl.coalesce("chosen", "rejected")
        parts.append(part.with_columns(chosen=pl.when(is_up).then(reply), rejected=pl.when(~is_up).then(reply)))
    return _named(pl.concat(parts).with_columns(source=pl.lit(Thumbs.SHUFFLED.value)))


def _named(examples: pl.DataFrame) -> pl.DataFrame:
    """Give each example its id."""
    ids = [digest_of("thumb", *key) for key in examples.select("source", "turn_id").iter_rows()]
    return examples.with_columns(pair_id=pl.Series(ids, dtype=pl.String()))
