"""Preference pairs: the kept pairs of every source as one table, each with what became of it, split by user.

What belongs here: which pairs are offered, which of them are dropped as contaminated or repeated, and which validate. What does not: what
counts as repeated (``duplicates.py``) and as contaminated (``decontamination.py``), which users may be one person
(``conversations/splits.py``), and which pairs a recipe draws (``training/``).

A pair that repeats an evaluation item is dropped and not looked at further, so that ``duplicate_of`` always names a pair that stays.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import PREFERENCE_PAIRS
from rlhi_dagster.conversations.sources.records import FeedbackKind
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.preferences import Source, Strategy
from rlhi_dagster.preferences.duplicates import duplicates

CONTAMINATED = "contaminated"
OF_STRATEGY = {
    Strategy.FEEDBACK: Source.REWRITES,
    Strategy.SCRATCH: Source.REWRITES_FROM_SCRATCH,
    Strategy.LOGGED: Source.REWRITES_LOGGED,
}
"""The source of a rewrite pair."""
OF_KIND = {FeedbackKind.EDIT: Source.EDITS, FeedbackKind.REGENERATION: Source.SIBLINGS, FeedbackKind.CHOICE: Source.DRAFTS}
"""The source of a pair from explicit feedback."""
OF_CONDITION = {"own": Source.REWARDS, "shuffled": Source.REWARDS_SHUFFLED, "none": Source.REWARDS_NONE}
"""The source of a reward pair, by the persona that the reward model saw."""


def offered_pairs(rewrites: pl.DataFrame, rewards: pl.DataFrame, reasoning: pl.DataFrame, explicit: pl.DataFrame) -> pl.DataFrame:
    """The kept pairs of all sources with their provenance.

    Args:
        rewrites: ``REWRITE_PAIRS``.
        rewards: ``REWARD_PAIRS``.
        reasoning: ``REASONING_PAIRS``.
        explicit: ``EXPLICIT_PAIRS``.

    Returns:
        ``PREFERENCE_PAIRS``, all kept, without ``split``.

    Raises:
        ValueError: Two pairs have the same id.
    """
    sources = {str(strategy): str(source) for strategy, source in OF_STRATEGY.items()}
    conditions = {condition: str(source) for condition, source in OF_CONDITION.items()}
    of_rewrites = rewrites.filter("is_kept").with_columns(source=pl.col("strategy").replace_strict(sources, return_dtype=pl.String()))
    of_rewards = rewards.filter("is_kept").with_columns(
        source=pl.col("condition").replace_strict(conditions, return_dtype=pl.String()), strategy=pl.lit("best_of_n")
    )
    of_reasoning = reasoning.filter("is_kept").with_columns(source=pl.lit(Source.REASONING.value), strategy=pl.lit("corrected"))
    kinds = {str(kind): str(source) for kind, source in OF_KIND.items()}
    of_explicit = explicit.filter("is_kept").with_columns(
        source=pl.col("kind").replace_strict(kinds, return_dtype=pl.String()), strategy="kind"
    )
    offered = pl.concat([_widened(frame) for frame in (of_rewrites, of_rewards, of_reasoning, of_explicit)]).sort("pair_id")
    twice = offered.filter(pl.col("pair_id").is_duplicated())["pair_id"]
    if len(twice):
        raise ValueError(f"{len(twice)} offered pairs share a pair_id, {twice[0]} among them: ids must name one pair of one source")
    return offered


def preference_pairs(
    offered: pl.DataFrame, hits: pl.DataFrame, users: pl.DataFrame, near_duplicate_jaccard: float, validation_fraction: float
) -> pl.DataFrame:
    """Say of every offered pair whether it stays, why not, and which split it is in.

    Args:
        offered: From `offered_pairs`.
        hits: ``decontamination.HITS`` of these pairs.
        users: ``USERS``; ``split_group`` decides who validates together.
        near_duplicate_jaccard: As in ``duplicates.duplicates``.
        validation_fraction: Share of groups of users whose pairs are the validation split.

    Returns:
        ``PREFERENCE_PAIRS``, one row for each offered pair.
    """
    named = hits.rename({"prompt_id": "contaminated_by", "kind": "contaminated_how", "similarity": "contamination_similarity"})
    clean = offered.join(named, on="pair_id", how="anti")
    repeated = duplicates(clean, near_duplicate_jaccard)
    told = offered.drop("duplicate_of", *named.columns[1:]).join(named, on="pair_id", how="left").join(repeated, on="pair_id", how="left")
    reason = pl.when(pl.col("contaminated_by").is_not_null()).then(pl.lit(CONTAMINATED)).otherwise("reason")
    found = told.with_columns(is_kept=reason.is_null(), drop_reasons=pl.concat_list(reason).list.drop_nulls())
    return PREFERENCE_PAIRS.conform(with_split(found, users, validation_fraction))


def with_split(pairs: pl.DataFrame, users: pl.DataFrame, validation_fraction: float) -> pl.DataFrame:
    """Add ``split``, ``train`` or ``validation``: users who may be one person are on one side, pairs without a user are split one by one.

    Args:
        pairs: Columns ``pair_id`` and ``user_id``; in this order they come back.
        users: ``USERS``; a user who is not there is split alone.
        validation_fraction: Share of groups of users that validate.
    """
    grouped = pairs.join(users.select("user_id", "split_group"), on="user_id", how="left", maintain_order="left")
    owners = grouped.select(owner=pl.coalesce("split_group", "user_id", "pair_id"))["owner"]
    split = {owner: split_of(owner, validation_fraction) for owner in owners.unique()}
    return pairs.with_columns(split=pl.Series([split[owner] for owner in owners], dtype=pl.String()))


def eval_items(eval_prompts: pl.DataFrame, benchmarks: tuple[str, ...] | None) -> pl.DataFrame:
    """The evaluation items that pairs must not repeat.

    Args:
        eval_prompts: ``EVAL_PROMPTS``.
        benchmarks: Names of benchmarks; ``None`` for all.

    Raises:
        ValueError: There is no item of a named benchmark; the message names it.
    """
    if benchmarks is None:
        return eval_prompts
    there = set(eval_prompts["benchmark"].unique())
    missing = sorted(set(benchmarks) - there)
    if missing:
        known = ", ".join(sorted(there)) or "none"
        raise ValueError(f"pairs.decontamination.benchmarks: eval_prompts has no item of {', '.join(missing)}; it has {known}")
    return eval_prompts.filter(pl.col("benchmark").is_in(sorted(benchmarks)))


def contamination(pairs: pl.DataFrame) -> pl.DataFrame:
    """What was dropped as contaminated, without texts.

    Args:
        pairs: ``PREFERENCE_PAIRS``.

    Returns:
        ``pair_id``, ``prompt_id``, ``kind`` and ``similarity``, ordered by kind and id.
    """
    hit = pairs.filter(pl.col("contaminated_by").is_not_null()).select(
        "pair_id", prompt_id="contaminated_by", kind="contaminated_how", similarity="contamination_similarity"
    )
    return hit.sort("kind", "pair_id")


def split_of(owner: str, validation_fraction: float) -> str:
    """``train`` or ``validation``: a function of the owner (group of users, or pair without a user) alone."""
    return "validation" if int(digest_of("validation", owner)[:8], 16) / 2**32 < validation_fraction else "train"


def _widened(frame: pl.DataFrame) -> pl.DataFrame:
    """All columns of ``PREFERENCE_PAIRS``, null where a source has none; an absent persona is the empty one."""
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in PREFERENCE_PAIRS.schema.items() if name not in frame.columns]
    empty = pl.lit([], dtype=pl.List(pl.String()))
    wide = frame.with_columns(missing).with_columns(
        pl.col("persona").fill_null(""),
        pl.col("persona_line_ids", "call_ids").fill_null(empty),
        pl.col("is_off_policy").fill_null(False),
    )
    return PREFERENCE_PAIRS.conform(wide)
