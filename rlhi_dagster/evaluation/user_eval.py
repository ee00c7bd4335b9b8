"""UserEval: the latest opening requests of users that training never sees.

What belongs here: choosing the items and giving each the persona of its moment. What does not: how personas are written and
cut off in time (``rlhi_dagster.personas``), and replies or verdicts.

Our choice: opening requests only, since a follow-up speaks about a reply that the evaluated model did not write.
"""

from __future__ import annotations

from typing import Protocol

import polars as pl

from rlhi_dagster.base.tables import EVAL_PROMPTS, MESSAGES
from rlhi_dagster.evaluation import Benchmark


class Snapshot(Protocol):
    """Adds ``persona`` and ``persona_line_ids``, as known strictly before each moment, to the rows of ``moments``."""

    def __call__(self, personas: pl.DataFrame, moments: pl.DataFrame, /) -> pl.DataFrame:
        """Return ``moments`` (which has ``turn_id``, ``user_id`` and ``asked_at``) with the two columns added."""


def user_eval_prompts(turns: pl.LazyFrame, users: pl.DataFrame, personas: pl.DataFrame, per_user: int, snapshot: Snapshot) -> pl.DataFrame:
    """The held-out requests: of each held-out user, the opening requests of the latest ``per_user`` conversations.

    Template traffic is passed over. Conversations that start at the same moment are told apart by their id, so the choice is
    the same on every run.

    Args:
        turns: ``TURNS``; only the opening turns of held-out users are collected.
        users: ``USERS``; ``split`` decides who is held out.
        personas: ``PERSONAS``.
        per_user: Most items a user gets; at least 1.
        snapshot: Gives the persona as of a moment.

    Returns:
        ``EVAL_PROMPTS`` for the benchmark ``user_eval``; ``earlier_conversations`` counts all conversations of the user that
        started strictly earlier, template traffic included.

    Raises:
        ValueError: ``per_user`` is below 1, or the snapshot lost or repeated items.
    """
    if per_user < 1:
        raise ValueError(f"per_user must be at least 1, not {per_user}")
    held_out = users.lazy().filter(pl.col("split") == "held_out").select("user_id")
    chosen = (
        turns.filter(pl.col("turn") == 1)
        .join(held_out, on="user_id", how="semi")
        .select("turn_id", "conversation_id", "user_id", "asked_at", "prompt", "template_id")
        .with_columns((pl.col("asked_at").rank("min").over("user_id") - 1).cast(pl.Int64).alias("earlier_conversations"))
        .filter(pl.col("template_id").is_null())
        .sort("user_id", "asked_at", "conversation_id", descending=[False, True, True])
        .filter(pl.int_range(pl.len()).over("user_id") < per_user)
        .collect()
    )
    if chosen.is_empty():
        return EVAL_PROMPTS.empty()
    moments = chosen.select("turn_id", "user_id", "asked_at")
    known = snapshot(personas, moments).select("turn_id", "persona", "persona_line_ids")
    if known["turn_id"].n_unique() != len(known) or len(known) != len(chosen):
        raise ValueError(f"the persona snapshot returned {len(known)} rows for {len(chosen)} requests; one each is needed")
    message = pl.struct(pl.lit("user").alias("role"), pl.col("prompt").alias("content"))
    items = chosen.join(known, on="turn_id", how="left", validate="1:1").with_columns(
        prompt_id=pl.format("{}:{}", pl.lit(Benchmark.USER_EVAL.value), "turn_id"),
        benchmark=pl.lit(Benchmark.USER_EVAL.value),
        prompt=pl.concat_list(message).cast(MESSAGES),
        persona=pl.col("persona").fill_null(""),
        persona_line_ids=pl.col("persona_line_ids").fill_null(pl.lit([], dtype=pl.List(pl.String))),
        reference=pl.lit(None, dtype=pl.String),
    )
    return EVAL_PROMPTS.conform(items)
