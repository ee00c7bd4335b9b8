"""User-guided rewrites and user-based rewards, as preference pairs by month."""

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.preferences import candidates as ranking
from rlhi_dagster.preferences import reward_order
from rlhi_dagster.preferences import rewrites as rewriting
from rlhi_dagster.preferences.reward_pairs import reward_pairs as reward_pairs_of
from rlhi_dagster.resources import Settings, Workers, call_metadata
from rlhi_dagster.tables import TABLES

GROUP = "preferences"


@declare.table("rewrites", GROUP, {"huggingface"}, deps=["policy"], pool="model")
def rewrites(
    context: dg.AssetExecutionContext,
    settings: Settings,
    lake: dg.ResourceParam[Lake],
    workers: Workers,
    wildllamachat: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
    users: pl.LazyFrame,
    personas: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a reply of the policy that drew a re-attempt with feedback, and its rewrite with that feedback in view."""
    rows = rewriting.criticised(
        wildllamachat.collect(),
        feedback_labels.collect(),
        users.collect(),
        personas.collect(),
        settings.profile.rewrites.min_feedback_probability,
        personas_at,
        logged_where_inapplicable=settings.profile.rewrites.inapplicable == "logged",
    )
    policy = ModelRef.from_manifest(lake.artefact_path("policy"))
    (answers,), stats = workers.chat(context, [(policy, [rewriting.rewrite_request(row) for row in rows.to_dicts()])], settings.sampling())
    found = rewriting.rewrites(rows, answers, policy.identity)
    return metadata.result("rewrites", found, error_rows=found["error"].count(), **call_metadata(stats))


@declare.table("rewrite_pairs", GROUP, set())
def rewrite_pairs(settings: Settings, rewrites: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a rewrite against its original as a candidate pair, kept or dropped with the reason."""
    pairs = rewriting.rewrite_pairs(rewrites.collect(), drops_inapplicable=settings.profile.rewrites.inapplicable == "drop")
    return metadata.result("rewrite_pairs", pairs, kept_pairs=int(pairs["is_kept"].sum()), fates=_fates(pairs))


@declare.table("candidates", GROUP, {"huggingface"}, code_version="2", deps=["policy"], pool="model")
def candidates(
    context: dg.AssetExecutionContext,
    settings: Settings,
    lake: dg.ResourceParam[Lake],
    workers: Workers,
    turns: pl.LazyFrame,
    users: pl.LazyFrame,
    personas: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is one of N replies sampled from the policy for an opening request, with the persona in view."""
    profile = settings.profile
    requests = ranking.opening_requests(
        turns.collect(),
        users.collect(),
        personas.collect(),
        profile.candidates.max_requests,
        profile.seed,
        personas_at,
        with_persona_only=profile.candidates.with_persona_only,
    )
    policy = ModelRef.from_manifest(lake.artefact_path("policy"))
    wanted = ranking.candidate_requests(requests, profile.candidates.count)
    (answers,), stats = workers.chat(context, [(policy, wanted)], settings.sampling())
    found = ranking.candidates(requests, answers, profile.candidates.count, policy.identity)
    distinct = found.group_by("turn_id").agg(pl.col("reply").n_unique())["reply"].mean()
    return metadata.result(
        "candidates",
        found,
        requests=len(requests),
        distinct_replies_per_request=metadata.number(distinct),
        **call_metadata(stats),
    )


@declare.table("candidate_rewards", GROUP, {"huggingface"}, code_version="2", deps=["reward_model"], pool="model")
def candidate_rewards(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, candidates: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is the reward of a candidate under one persona condition: the user's own, another user's, or none."""
    rows = ranking.conditioned(candidates.collect(), settings.profile.seed)
    model = ModelRef.from_manifest(lake.artefact_path("reward_model"))
    answers, stats = workers.score(context, model, ranking.reward_requests(rows, settings.profile.reward.persona_placement))
    found = ranking.candidate_rewards(rows, answers, model.identity)
    order = reward_order.reward_order(found)
    return metadata.result(
        "candidate_rewards",
        found,
        error_rows=found["error"].count(),
        **reward_order.headline(order),
        order_by_persona=metadata.markdown_table(order),
        rank_correlations=metadata.plot(reward_order.drawing(found)),
        **call_metadata(stats),
    )


@declare.table("reward_pairs", GROUP, set(), code_version="2")
def reward_pairs(settings: Settings, candidates: pl.LazyFrame, candidate_rewards: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is the best against the worst candidate of a request under one persona condition, kept or dropped with the reasons."""
    pairs = reward_pairs_of(candidates.collect(), candidate_rewards.collect(), settings.profile.candidates)
    kept = pairs.filter("is_kept")
    return metadata.result(
        "reward_pairs",
        pairs,
        kept_pairs=len(kept),
        kept_by_condition=metadata.bars(dict(kept["condition"].value_counts().sort("condition").iter_rows())),
        fates=_fates(pairs),
    )


def _fates(pairs: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Kept pairs and dropped ones by reason; one with several reasons counts under each."""
    fates = pairs.select(pl.when("is_kept").then(pl.lit(["kept"])).otherwise("drop_reasons").alias("fate")).explode(
        "fate", empty_as_null=True
    )
    return metadata.bars(dict(fates["fate"].value_counts(sort=True).iter_rows()))


table_checks = [
    checks.table_check(name, TABLES[name]) for name in ("rewrites", "rewrite_pairs", "candidates", "candidate_rewards", "reward_pairs")
]
persona_checks = [checks.personas_precede_use_check(name) for name in ("rewrites", "candidates")]
pair_checks = [checks.chosen_differs_from_rejected_check(name) for name in ("rewrite_pairs", "reward_pairs")]
accounting_checks = [checks.requests_are_accounted_for_check("reward_pairs")]


@dg.asset_check(asset=candidate_rewards, name="reward_reads_the_persona")
def reward_reads_the_persona(frame: pl.LazyFrame) -> dg.AssetCheckResult:
    """Under another user's persona the reward orders a request's candidates otherwise; a generic reward warns, and so do few requests."""
    return reward_order.reads_the_persona(reward_order.reward_order(frame.collect())).as_result(dg.AssetCheckSeverity.WARN)
