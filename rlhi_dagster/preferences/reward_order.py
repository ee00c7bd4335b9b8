"""What the persona does to the reward: does the order of a request's candidates change without it, or with a stranger's?

What belongs here: comparing orders of candidates between persona conditions. What does not: computing rewards (``candidates``, ``workers``)
or judging replies. If the order hardly changes, the "user-based" reward is a generic one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.intervals import estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN, CONTROLS = "own", ("none", "shuffled")
QUANTITIES = {"spearman": False, "best_changes": True, "worst_changes": True, "best_or_worst_changes": True}
"""Each quantity, and whether it is a share."""
GENERIC_CORRELATION = 0.95
"""Mean rank correlation own/shuffled from which on the reward hardly reads the persona; our choice."""
MIN_REQUESTS = 20
"""Fewest requests with a rank correlation that say anything about it; our choice."""

REWARD_ORDER_SCHEMA = {
    "condition": pl.String(),
    "quantity": pl.String(),
    "value": pl.Float64(),
    "n": pl.Int64(),
    "users": pl.Int64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
}


def by_request(candidate_rewards: pl.DataFrame) -> pl.DataFrame:
    """Compare each request's candidates as ranked with the user's own persona and under each control condition.

    Only candidates with a reward under both conditions count, and only requests with at least two of them. Where both conditions show the
    reward model the same persona (users of whom the same, or nothing, is known), there is nothing to compare: both rewards are of one call,
    and do not count. Equal best (and equal worst) rewards are settled by the lower candidate id. Requests whose rewards are all the same
    have no rank correlation.

    Args:
        candidate_rewards: ``CANDIDATE_REWARDS``.

    Returns:
        One row per control condition (`none`, `shuffled`) and request: turn_id, user, and the ``QUANTITIES``, the shares as 0.0 or 1.0.
    """
    rewards = candidate_rewards.filter(pl.col("reward").is_not_null())
    user = pl.coalesce("persona_user_id", "turn_id").alias("user")
    own = rewards.filter(condition=OWN).select("candidate_id", "turn_id", user, own="reward", own_call="call_id")
    control = rewards.filter(pl.col("condition").is_in(CONTROLS)).select("candidate_id", "condition", control="reward", call="call_id")
    is_one_call = (pl.col("own_call") == pl.col("call")).fill_null(False)
    best, worst = (pl.col("own").arg_max() != pl.col("control").arg_max()), (pl.col("own").arg_min() != pl.col("control").arg_min())
    return (
        own.join(control, on="candidate_id", how="inner", validate="1:m")
        .filter(~is_one_call)
        .sort("condition", "turn_id", "candidate_id")
        .group_by("condition", "turn_id", maintain_order=True)
        .agg(
            pl.col("user").first(),
            pl.len().alias("candidates"),
            pl.corr(pl.col("own").rank(), pl.col("control").rank()).fill_nan(None).alias("spearman"),
            best.cast(pl.Float64).alias("best_changes"),
            worst.cast(pl.Float64).alias("worst_changes"),
            (best | worst).cast(pl.Float64).alias("best_or_worst_changes"),
        )
        .filter(pl.col("candidates") >= 2)
        .drop("candidates")
    )


def reward_order(candidate_rewards: pl.DataFrame) -> pl.DataFrame:
    """The means of ``by_request``, clustered by user.

    Returns:
        One row per control condition (`none`, `shuffled`) and quantity: ``spearman`` (mean rank correlation with `own` within a request),
        ``best_changes``, ``worst_changes`` and ``best_or_worst_changes`` (share of requests whose best, worst, or either candidate differs
        from that under `own`). A quantity that no request has is missing.
    """
    requests = by_request(candidate_rewards)
    rows = []
    for condition in CONTROLS:
        for quantity, is_share in QUANTITIES.items():
            known = requests.filter(condition=condition).drop_nulls(quantity)
            found = estimate(known[quantity], known["user"], is_share=is_share)
            if found.n:
                rows.append(
                    {"condition": condition, "quantity": quantity, "value": found.value, "n": found.n, "users": found.clusters}
                    | {"ci_low": found.ci_low, "ci_high": found.ci_high}
                )
    return pl.DataFrame(rows, schema=REWARD_ORDER_SCHEMA)


def headline(order: pl.DataFrame) -> dict[str, float]:
    """The numbers worth following from run to run: ``spearman_own_<condition>`` and ``best_or_worst_changes_<condition>``."""
    names = {"spearman": "spearman_own_{}", "best_or_worst_changes": "best_or_worst_changes_{}"}
    shown = order.filter(pl.col("quantity").is_in(list(names)))
    return {names[row["quantity"]].format(row["condition"]): row["value"] for row in shown.to_dicts()}


def reward_reads_the_persona(rewards: pl.LazyFrame) -> Finding:
    """Under another user's persona the reward orders a request's candidates otherwise; a generic reward warns, and so do few requests.

    Args:
        rewards: ``CANDIDATE_REWARDS``.
    """
    return reads_the_persona(reward_order(rewards.collect()))


def reads_the_persona(order: pl.DataFrame) -> Finding:
    """Under another user's persona the reward orders candidates otherwise: mean rank correlation below ``GENERIC_CORRELATION``.

    Fewer requests than ``MIN_REQUESTS`` do not pass.

    Args:
        order: As from ``reward_order``.
    """
    rows = order.filter(condition="shuffled", quantity="spearman").to_dicts()
    found: dict[str, Any] = rows[0] if rows else {"value": None, "n": 0, "users": 0, "ci_low": None, "ci_high": None}
    passed = found["n"] >= MIN_REQUESTS and found["value"] < GENERIC_CORRELATION
    limits = {"limit": GENERIC_CORRELATION, "fewest_requests": MIN_REQUESTS}
    measured = {"spearman_own_shuffled": found["value"], "ci_low": found["ci_low"], "ci_high": found["ci_high"]}
    return Finding(passed, {"requests": found["n"], "users": found["users"], **limits, **measured})


@plots.style(7)
def drawing(candidate_rewards: pl.DataFrame) -> Figure:
    """How many requests have which rank correlation with the order under the user's own persona, by control condition."""
    requests = by_request(candidate_rewards).drop_nulls("spearman")
    figure, every = plots.canvas(3.0 * len(CONTROLS), 2.2, columns=len(CONTROLS))
    for axes, condition in zip(every, CONTROLS, strict=True):
        values = requests.filter(condition=condition)["spearman"]
        axes.hist(values.to_list(), bins=20, range=(-1, 1), color=plots.MAIN)
        axes.set_title(f"own against {condition}, {len(values):,} requests")
        axes.set_xlabel("rank correlation of a request's candidates")
    return figure
