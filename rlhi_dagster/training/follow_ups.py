"""Follow-ups as privileged context: a logged reply, and what its user said next, which the teacher is told and the trained model is not.

What belongs here: which replies become examples, why others do not, the shuffled control, and how the teacher is told. What does not:
training on the examples (``workers/train_sdpo.py``).

Nothing is labelled, written or ranked for it: every reply counts that its user said something after, whatever it was.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import polars as pl

from rlhi_dagster.base.control_tokens import escaped
from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.tables import FOLLOW_UP_EXAMPLES, MESSAGES
from rlhi_dagster.conversations.turns import said_before
from rlhi_dagster.engines.base import Messages
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.engines.questions import question, template
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.training.examples import as_pairs as examples_as_pairs
from rlhi_dagster.training.examples import judged

Form = Literal["instruction", "dialogue"]
"""How the teacher is told: by ``prompts/hindsight.md``, or by the follow-up as another paragraph of the request."""


class FollowUps(StrEnum):
    """Where an example comes from: what a recipe of the method `sdpo` trains on."""

    GIVEN = "follow_ups"
    """Replies with what their users said next."""
    SHUFFLED = "follow_ups_shuffled"
    """The same replies with what other users said next after others."""


def offered(turns: pl.LazyFrame, users: pl.DataFrame, personas: pl.DataFrame) -> pl.DataFrame:
    """Logged replies of training users that another message of the user followed, with the persona as of the request.

    Args:
        turns: ``TURNS``.
        users: ``USERS``.
        personas: ``PERSONAS``.

    Returns:
        ``pair_id``, ``source``, ``user_id``, ``conversation_id``, ``turn_id``, ``follow_up_turn_id``, ``asked_at``, ``prompt`` (the logged
        conversation up to the reply), ``reply``, ``follow_up``, ``persona`` and ``persona_line_ids``; sorted by ``pair_id``.
    """
    training = users.lazy().filter(pl.col("split") == "train").select("user_id")
    following = {"follow_up_turn_id": "turn_id", "follow_up": "prompt"}
    drew = (
        turns.join(training, on="user_id", how="semi")
        .sort("conversation_id", "turn")
        .with_columns(pl.col(column).shift(-1).over("conversation_id").alias(name) for name, column in following.items())
        .filter(pl.col("follow_up_turn_id").is_not_null())
    )
    found = (
        drew.join(said_before(turns, drew), on="turn_id")
        .select(
            *("user_id", "conversation_id", "turn_id", "follow_up_turn_id", "asked_at", "follow_up"),
            prompt="messages",
            reply=pl.col("reply").fill_null(""),
            source=pl.lit(FollowUps.GIVEN.value),
        )
        .collect()
    )
    return personas_at(personas, _named(found).sort("pair_id"))


def follow_up_examples(
    drew: pl.DataFrame, hits: pl.DataFrame, users: pl.DataFrame, near_duplicate_jaccard: float, validation_fraction: float, seed: int
) -> pl.DataFrame:
    """Say of every reply with a follow-up whether it stays, why not, and which split it is in; and add the control.

    Args:
        drew: From `offered`.
        hits: ``decontamination.HITS`` of these examples.
        users: ``USERS``; ``split_group`` decides who validates together.
        near_duplicate_jaccard: As in ``duplicates.duplicates``, of prompt, reply and follow-up.
        validation_fraction: Share of groups of users whose examples validate: the groups that validate among pairs.
        seed: Of the shuffle.

    Returns:
        ``FOLLOW_UP_EXAMPLES``: a row for each reply, and for each that stays one with another user's follow-up.
    """
    sides = {"chosen": pl.col("reply"), "rejected": pl.col("follow_up")}
    given = judged(drew, pl.col("reply"), sides, hits, users, near_duplicate_jaccard, validation_fraction)
    return FOLLOW_UP_EXAMPLES.conform(pl.concat([given, _shuffled(given.filter("is_kept"), seed)]))


def as_pairs(examples: pl.DataFrame) -> pl.DataFrame:
    """Examples as rows of ``PREFERENCE_PAIRS`` with the reply as the one side, so that recipes draw them as they draw pairs."""
    return examples_as_pairs(examples.with_columns(chosen="reply"))


def told(rows: pl.DataFrame, examples: pl.DataFrame, form: Form) -> pl.DataFrame:
    """Add what the teacher is asked: the same messages, with the follow-up in the last one.

    Args:
        rows: ``pair_sets.TRAINING_ROWS`` of examples.
        examples: ``FOLLOW_UP_EXAMPLES``.
        form: How the teacher is told.

    Returns:
        The rows with ``told``, messages.
    """
    follow_ups = dict(examples.select("pair_id", "follow_up").iter_rows())
    asked = [
        _with_hindsight(prompt, escaped(follow_ups[pair_id]), form) for pair_id, prompt in rows.select("pair_id", "prompt").iter_rows()
    ]
    return rows.with_columns(told=pl.Series(asked, dtype=MESSAGES))


def each_example_has_its_follow_up(examples: pl.LazyFrame, turns: pl.LazyFrame) -> Finding:
    """Every example has what its user said next, and in the control something that another user said; none is dropped without a word why.

    Args:
        examples: ``FOLLOW_UP_EXAMPLES``.
        turns: ``TURNS``.
    """
    said = turns.select("turn_id", "conversation_id", "turn", "user_id", "prompt")
    asked = said.select("turn_id", at="turn")
    next_message = said.select(follow_up_turn_id="turn_id", said_in="conversation_id", said_at="turn", said_by="user_id", said="prompt")
    both = examples.join(asked, on="turn_id", how="left").join(next_message, on="follow_up_turn_id", how="left")
    is_given = pl.col("source") == FollowUps.GIVEN.value
    is_next = (pl.col("said_in") == pl.col("conversation_id")) & (pl.col("said_at") == pl.col("at") + 1)
    is_anothers = pl.col("said_by") != pl.col("user_id")
    faults = both.select(
        other_words=(pl.col("said").ne_missing(pl.col("follow_up"))).sum(),
        not_the_next_message=(is_given & ~is_next.fill_null(False)).sum(),
        of_the_same_user_in_the_control=(~is_given & ~is_anothers.fill_null(False)).sum(),
        without_a_word_why=(pl.col("is_kept").eq_missing(pl.col("drop_reasons").list.len() > 0)).sum(),
    )
    counts = examples.filter("is_kept").group_by("source", "split").len().sort("source", "split").collect()
    found = faults.collect().row(0, named=True)
    return Finding(not any(found.values()), {**found, **{f"kept/{source}/{split}": n for source, split, n in counts.iter_rows()}})


def _with_hindsight(prompt: Messages, follow_up: str, form: Form) -> Messages:
    *before, last = prompt
    if form == "dialogue":
        return [*before, {**last, "content": f"{last['content']}\n\n{follow_up}"}]
    return [*before, *question(template("hindsight").strip(), {"request": last["content"], "follow_up": follow_up})]


def _shuffled(kept: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The same replies in each split with its follow-ups dealt out anew, each to another user's reply.

    Users in the order of one digest, and the replies of each in that of another, stand in a circle, and follow-ups move on by as many
    places as the user with the most replies has. So none stays with its user, unless that one has more than half; such rows are left out.
    """
    parts = [kept.head(0)]
    for _, part in kept.sort("pair_id").group_by("split", maintain_order=True):
        keys = {name: [digest_of("shuffled", key, seed) for key in part[name]] for name in ("user_id", "pair_id")}
        placed = part.with_columns(pl.Series(f"{name}_key", values, dtype=pl.String()) for name, values in keys.items())
        placed = placed.sort("user_id_key", "pair_id_key").drop("user_id_key", "pair_id_key")
        most: int = placed.select(pl.len().over("user_id").max()).item()
        moved = placed.select("follow_up", "follow_up_turn_id", giver="user_id")
        dealt = placed.with_columns(*pl.concat([moved.slice(most), moved.head(most)]))
        parts.append(dealt.filter(pl.col("giver") != pl.col("user_id")).drop("giver"))
    return _named(pl.concat(parts).with_columns(source=pl.lit(FollowUps.SHUFFLED.value)))


def _named(examples: pl.DataFrame) -> pl.DataFrame:
    """Give each example its id."""
    ids = [digest_of("follow_up", *key) for key in examples.select("source", "turn_id").iter_rows()]
    return examples.with_columns(pair_id=pl.Series(ids, dtype=pl.String()))
