"""The two jobs that make the whole: conversations to preference pairs by month, then training to scores by recipe.

What belongs here: selections of assets. What does not: when they run (``automation.py``). Every asset of a job carries
``BackfillPolicy.single_run()``, so that ``dg launch --job preference_data --partition-range 2023-04...2023-09`` runs partitioned and
unpartitioned assets together in one run.
"""

from __future__ import annotations

import dagster as dg

preference_data = dg.define_asset_job(
    "preference_data",
    selection=(
        dg.AssetSelection.groups("conversations", "feedback", "reconstruction", "personas", "preferences", "reasoning")
        | dg.AssetSelection.assets("policy", "reward_model", "reward_model_scores", "eval_prompts", "preference_pairs", "token_budget")
    ),
    description="From raw conversations to preference pairs, for a range of months.",
)

training = dg.define_asset_job(
    "training",
    selection=dg.AssetSelection.assets(
        "online_candidates", "online_pairs", "online_policies", "checkpoints", "eval_prompts", "responses", "judgements", "scores", "report"
    ),
    description="From preference pairs to trained checkpoints, scores and the report, for a range of recipes.",
)
