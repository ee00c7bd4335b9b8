"""What examples of single logged replies have in common, thumbs and follow-ups alike: why one is dropped, and how recipes draw them.

What belongs here: the fate of a reply as an example, and its form as a pair. What does not: which replies are offered and their controls
(``thumbs``, ``follow_ups``).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from rlhi_dagster.base.tables import PREFERENCE_PAIRS
from rlhi_dagster.preferences.duplicates import duplicates
from rlhi_dagster.preferences.merge import CONTAMINATED, with_split
from rlhi_dagster.preferences.refusals import is_refusal

EMPTY = "empty_reply"
"""The reply has no text, so there is nothing to learn from."""
REFUSAL = "reply_is_refusal"
"""The reply declines: neither a thumb down nor what an insisting user said next must teach to comply."""


def judged(
    offered: pl.DataFrame,
    reply: pl.Expr,
    sides: Mapping[str, pl.Expr],
    hits: pl.DataFrame,
    users: pl.DataFrame,
    near_duplicate_jaccard: float,
    validation_fraction: float,
) -> pl.DataFrame:
    """Say of every offered reply whether it stays, why not, and which split it is in.

    Args:
        offered: A row for each reply, with ``pair_id`` and ``user_id``.
        reply: Its text.
        sides: ``chosen`` and ``rejected``, as duplicates are looked for; never null.
        hits: ``decontamination.HITS`` of these rows.
        users: ``USERS``; ``split_group`` decides who validates together.
        near_duplicate_jaccard: As in ``duplicates.duplicates``.
        validation_fraction: Share of groups of users whose examples validate: the groups that validate among pairs.

    Returns:
        The rows with ``drop_reasons``, ``is_kept``, ``split``, and what they repeat.
    """
    named = hits.rename({"prompt_id": "contaminated_by", "kind": "contaminated_how", "similarity": "contamination_similarity"})
    replies = offered.select(reply).to_series()
    offered = offered.with_columns(declines=pl.Series(map(is_refusal, replies), dtype=pl.Boolean()))
    is_empty = reply.str.strip_chars() == ""
    whole = offered.filter(~is_empty & ~pl.col("declines")).join(named, on="pair_id", how="anti").with_columns(**sides)
    told = offered.join(named, on="pair_id", how="left").join(duplicates(whole, near_duplicate_jaccard), on="pair_id", how="left")
    contaminated = pl.when(pl.col("contaminated_by").is_not_null()).then(pl.lit(CONTAMINATED))
    own = [pl.when(is_empty).then(pl.lit(EMPTY)), pl.when("declines").then(pl.lit(REFUSAL))]
    reasons = pl.concat_list(*own, contaminated, "reason").list.drop_nulls()
    return with_split(told.with_columns(drop_reasons=reasons, is_kept=reasons.list.len() == 0), users, validation_fraction)


def as_pairs(examples: pl.DataFrame) -> pl.DataFrame:
    """Examples as rows of ``PREFERENCE_PAIRS`` without one of the sides, so that recipes draw them as they draw pairs."""
    lacking = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in PREFERENCE_PAIRS.schema.items() if name not in examples.columns]
    return PREFERENCE_PAIRS.conform(examples.with_columns(lacking))
