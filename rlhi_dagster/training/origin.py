"""Where an artefact's training pairs come from, for its manifest: the table, its version and how many pairs of what source. No text.

What belongs here: the summary of drawn pairs. What does not: drawing them (``pair_sets.py``). It makes no difference to what is trained,
so it is no part of the digest of an artefact's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.training.pair_sets import PairSets


def origin(table: str, pairs: pl.DataFrame, sets: PairSets, source: Mapping[str, Any], code_version: str | None) -> dict[str, Any]:
    """What a manifest says of its pairs.

    Args:
        table: Name of the table that they were drawn from.
        pairs: The rows of it; columns ``pair_id``, ``source`` and ``user_id`` at least.
        sets: What was drawn.
        source: What is told of the conversations (`Profile.source_facts`).
        code_version: Of the asset that is made.

    Returns:
        ``table`` and its ``data_version``; ``rows_digest`` of what was drawn as it is shown; how many ``pairs`` and ``validation_pairs``
        were drawn, the former ``by_source`` too, and of how many ``users``; the ``code_version``; the name of the ``conversations``, the
        ``hub_dataset`` that they are, if any, and whether their users are simulated.
    """
    drawn = pairs.select("pair_id", "source", "user_id").join(sets.train.select("pair_id"), on="pair_id", how="semi")
    return {
        "table": table,
        "data_version": fingerprint(pairs),
        "rows_digest": digest_of(sets.train.to_dicts(), sets.validation.to_dicts()),
        "pairs": len(sets.train),
        "validation_pairs": len(sets.validation),
        "by_source": dict(drawn.group_by("source").len().sort("source").iter_rows()),
        "users": drawn["user_id"].drop_nulls().n_unique(),
        "code_version": code_version,
        **source,
    }
