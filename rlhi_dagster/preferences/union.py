"""Preference pairs: the kept pairs of every source, each once, none that an evaluation set contains, split by user."""

from __future__ import annotations

import polars as pl

from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.tables import PREFERENCE_PAIRS

SOURCES = {"own": "rewards", "shuffled": "rewards_shuffled", "none": "rewards_none"}
"""``preference_pairs.source`` by the persona condition of the reward."""


def preference_pairs(
    rewrites: pl.DataFrame, rewards: pl.DataFrame, reasoning: pl.DataFrame, eval_prompts: pl.DataFrame, validation_fraction: float
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Unite the kept pairs.

    Decontamination compares a pair's last user message, case and white space folded, with the items of fixed benchmarks; the user-based
    benchmark is kept apart by user, for its point is unseen users, not unseen requests.

    Args:
        rewrites: ``REWRITE_PAIRS``.
        rewards: ``REWARD_PAIRS``.
        reasoning: ``REASONING_PAIRS``.
        eval_prompts: ``EVAL_PROMPTS``.
        validation_fraction: Share of users whose pairs are the validation split.

    Returns:
        ``PREFERENCE_PAIRS``, and the counts of pairs offered, duplicates, contaminated and kept, which add up.
    """
    of_rewrites = rewrites.filter("is_kept").with_columns(source=pl.lit("rewrites"))
    of_rewards = rewards.filter("is_kept").with_columns(source=pl.col("condition").replace_strict(SOURCES), strategy=pl.lit("best_of_n"))
    of_reasoning = reasoning.filter("is_kept").with_columns(source=pl.lit("reasoning"), strategy=pl.lit("corrected"))
    offered = pl.concat([_widened(frame) for frame in (of_rewrites, of_rewards, of_reasoning)])
    content = [digest_of(*row) for row in offered.select("source", "prompt", "persona", "chosen", "rejected").iter_rows()]
    unique = offered.with_columns(content=pl.Series(content, dtype=pl.String())).sort("pair_id").unique("content", keep="first")
    asked = pl.col("prompt").list.last().struct.field("content")
    fixed = eval_prompts.filter(pl.col("user_id").is_null()).select(request=_folded(asked)).unique()
    clean = unique.with_columns(request=_folded(asked)).join(fixed, on="request", how="anti")
    owners = clean.select(pl.coalesce("user_id", "pair_id").alias("owner"))["owner"]
    split = pl.Series([split_of(owner, validation_fraction) for owner in owners], dtype=pl.String())
    counts = {
        "offered": len(offered),
        "duplicates": len(offered) - len(unique),
        "contaminated": len(unique) - len(clean),
        "kept": len(clean),
    }
    return PREFERENCE_PAIRS.conform(clean.with_columns(split=split)), counts


def split_of(owner: str, validation_fraction: float) -> str:
    """``train`` or ``validation``: a function of the owner (user, or pair without one) alone."""
    return "validation" if int(digest_of("validation", owner)[:8], 16) / 2**32 < validation_fraction else "train"


def _folded(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def _widened(frame: pl.DataFrame) -> pl.DataFrame:
    """All columns of ``PREFERENCE_PAIRS``, null where a source has none; an absent persona is the empty one."""
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in PREFERENCE_PAIRS.schema.items() if name not in frame.columns]
    wide = frame.with_columns(missing).with_columns(
        pl.col("persona").fill_null(""), pl.col("persona_line_ids").fill_null(pl.lit([], dtype=pl.List(pl.String())))
    )
    return PREFERENCE_PAIRS.conform(wide)
