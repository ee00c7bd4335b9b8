"""The two jobs that make the whole: conversations to preference pairs by month, then training to scores by recipe.

What belongs here: selections of assets. What does not: when they run (``graph/automation.py``). Every asset of a job carries
``BackfillPolicy.single_run()``, so that ``dg launch --job preference_data --partition-range 2023-04...2023-09`` runs partitioned and
unpartitioned assets together in one run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from rlhi_dagster.graph.declare import Place

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition  # not exported

    Job: TypeAlias = UnresolvedAssetJobDefinition


def preference_data(place: Place) -> Job:
    """The job that makes preference pairs."""
    groups = dg.AssetSelection.groups("conversations", "feedback", "reconstruction", "personas", "preferences", "reasoning")
    others = ("policy", "reward_model", "reward_model_scores", "eval_prompts", "token_budget")
    return dg.define_asset_job(
        "preference_data",
        selection=groups | dg.AssetSelection.assets(*map(place.key, others)),
        description="From raw conversations to preference pairs, for a range of months.",
    )


def training(place: Place) -> Job:
    """The job that makes checkpoints and tries them."""
    online = ("online_candidates", "online_pairs", "online_policies")
    others = ("checkpoints", "eval_prompts", "responses", "judgements", "scores", "report")
    return dg.define_asset_job(
        "training",
        selection=dg.AssetSelection.assets(*map(place.key, (*online, *others))),
        description="From preference pairs to trained checkpoints, scores and the report, for a range of recipes.",
    )
