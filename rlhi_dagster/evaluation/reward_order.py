"""What the persona does to the reward: does the order of a request's candidates change without it, or with a stranger's?

What belongs here: comparing orders of candidates between persona conditions. What does not: computing rewards (``preferences``,
``workers``) or judging replies. If the order hardly changes, the "user-based" reward is a generic one.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.evaluation.intervals import estimate

OWN, CONTROLS = "own", ("none", "shuffled")

REWARD_ORDER_SCHEMA = {
    "condition": pl.String(),
    "quantity": pl.String(),
    "value": pl.Float64(),
    "n": pl.Int64(),
    "users": pl.Int64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
}


def reward_order(candidate_rewards: pl.DataFrame) -> pl.DataFrame:
    """Compare each request's candidates as ranked with the user's own persona and under each control condition.

    Only candidates with a reward under both conditions count, and only requests with at least two of them. Equal best rewards
    are settled by the lower candidate id. Requests whose rewards are all the same have no rank correlation.

    Args:
        candidate_rewards: ``CANDIDATE_REWARDS``.

    Returns:
        One row per control condition (`none`, `shuffled`) and quantity: ``best_changes`` (share of requests whose best candidate
        differs from that under `own`) and ``spearman`` (mean rank correlation with `own` within a request), clustered by user.
    """
    rewards = candidate_rewards.filter(pl.col("reward").is_not_null())
    own = rewards.filter(condition=OWN).select(
        "candidate_id", "turn_id", pl.coalesce("persona_user_id", "turn_id").alias("cluster"), pl.col("reward").alias("own")
    )
    rows = []
    for condition in CONTROLS:
        control = rewards.filter(condition=condition).select("candidate_id", pl.col("reward").alias("control"))
        requests = (
            own.join(control, on="candidate_id", how="inner", validate="1:1")
            .sort("turn_id", "candidate_id")
            .group_by("turn_id", maintain_order=True)
            .agg(
                pl.col("cluster").first(),
                pl.len().alias("candidates"),
                (pl.col("own").arg_max() != pl.col("control").arg_max()).cast(pl.Float64).alias("best_changes"),
                pl.corr(pl.col("own").rank(), pl.col("control").rank()).fill_nan(None).alias("spearman"),
            )
            .filter(pl.col("candidates") >= 2)
        )
        for quantity, is_share in (("best_changes", True), ("spearman", False)):
            known = requests.drop_nulls(quantity)
            found = estimate(known[quantity], known["cluster"], is_share=is_share)
            if found.n:
                rows.append(
                    {"condition": condition, "quantity": quantity, "value": found.value, "n": found.n, "users": found.clusters}
                    | {"ci_low": found.ci_low, "ci_high": found.ci_high}
                )
    return pl.DataFrame(rows, schema=REWARD_ORDER_SCHEMA)
