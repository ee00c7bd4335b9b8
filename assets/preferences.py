"""User-guided rewrites, user-based rewards and what users say outright, as pairs by month, and their union with those of reasoning."""

from functools import partial

import dagster as dg
import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.personas.evidence import personas_precede_use
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.preferences import candidates as ranking
from rlhi_dagster.preferences import decontamination, drop_account, merge, pair_checks, reward_order
from rlhi_dagster.preferences import explicit_pairs as outright
from rlhi_dagster.preferences import rewrites as rewriting
from rlhi_dagster.preferences.refusals import complaints
from rlhi_dagster.preferences.reward_pairs import reward_pairs as reward_pairs_of
from rlhi_dagster.roles.pair_judge import pair_judge
from rlhi_dagster.roles.rewriter import rewriter

GROUP = "preferences"


@declare.asset(
    "rewrites",
    "generation",
    {"huggingface"},
    code_version="3",
    reads=(
        *("rewrites", "models.rewriter", "models.pair_judge"),
        *("prompts.rewrite", "prompts.rewrite_scratch", "prompts.rewrite_repair", "prompts.persona"),
        *("prompts.applicability", "prompts.meets_feedback"),
    ),
    deps=["policy"],
    pool=declare.OF_ROLES,
)
def rewrites(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    wildllamachat: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
    users: pl.LazyFrame,
    personas: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a reply that drew a re-attempt with feedback, and its rewrite by one strategy.

    `feedback`: with the follow-up in view. `scratch`: without it, the control. `logged`: the next logged reply. A rewrite that speaks of
    the feedback or apologises is asked for once more.
    """
    rows = rewriting.criticised(
        wildllamachat.collect(), feedback_labels.collect(), users.collect(), personas.collect(), settings.profile.rewrites, personas_at
    )
    calls = Calls(context, workers, settings, lake)
    found = rewriting.rewrites(rows, rewriter(calls, settings.profile), pair_judge(calls))
    made = found.group_by("strategy").agg(
        rewrites=pl.col("rewrite").count(),
        errors=pl.col("error").count(),
        repaired=pl.col("is_repaired").sum(),
        mention_feedback=pl.col("mentions_feedback").sum(),
        meet_feedback_fraction=pl.col("meets_feedback").mean(),
        untold=pl.col("meets_feedback").null_count(),
    )
    return metadata.result(
        "rewrites",
        found,
        error_rows=found["error"].count(),
        by_strategy=metadata.markdown_table(made.sort("strategy")),
        **calls.metadata(),
    )


@declare.asset(
    "rewrite_pairs",
    GROUP,
    {"huggingface"},
    code_version="2",
    reads=("rewrites", "reward.persona_placement", "models.reward", "prompts.persona"),
    deps=["reward_model"],
    pool=declare.OF_ROLES,
)
def rewrite_pairs(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    rewrites: pl.LazyFrame,
    turns: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
    users: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a rewrite against its original as a candidate pair, kept or dropped with every reason against it.

    The reward model is asked only if a filter of the profile looks at rewards, and only about pairs that nothing else is against.
    """
    chosen, calls = settings.profile.rewrites, Calls(context, workers, settings, lake)
    pairs = rewriting.unscored_pairs(rewrites.collect(), chosen)
    if rewriting.needs_rewards(chosen.filters):
        model, answers = calls.rewards(rewriting.reward_requests(pairs, settings.profile.reward.persona_placement))
        pairs = rewriting.rewrite_pairs(pairs, answers, chosen.filters, model)
    said = int(turns.select(pl.len()).collect().item())
    steps = drop_account.account(said, feedback_labels.collect(), users.collect(), pairs, chosen.min_feedback_probability)
    kept = pairs.filter("is_kept")["strategy"].value_counts().sort("strategy")
    return metadata.result(
        "rewrite_pairs",
        pairs,
        kept_pairs=int(pairs["is_kept"].sum()),
        **complaints(pairs),
        kept_by_strategy=metadata.bars(dict(kept.iter_rows())),
        waterfall=metadata.plot(drop_account.drawing(steps)),
        account=metadata.markdown_table(steps.drop("is_drop"), max_rows=60),
        drop_reasons=metadata.markdown_table(drop_account.shares(pairs), max_rows=60),
        **calls.metadata(),
    )


@declare.asset("explicit_pairs", GROUP, set(), reads=("explicit_pairs",))
def explicit_pairs(
    settings: dg.ResourceParam[Settings],
    explicit_feedback: pl.LazyFrame,
    turns: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
    users: pl.LazyFrame,
    personas: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is an edit, a regeneration or a choice between drafts as a candidate pair, kept or dropped with every reason against it."""
    pairs = outright.explicit_pairs(
        explicit_feedback.collect(),
        turns.collect(),
        feedback_labels.collect(),
        users.collect(),
        personas.collect(),
        settings.profile.explicit_pairs,
        personas_at,
    )
    kept = pairs.filter("is_kept")
    return metadata.result(
        "explicit_pairs",
        pairs,
        kept_pairs=len(kept),
        **complaints(pairs),
        kept_by_kind=metadata.bars(dict(kept["kind"].value_counts().sort("kind").iter_rows())),
        fates=_fates(pairs),
        account=metadata.markdown_table(outright.account(pairs), max_rows=60),
    )


@declare.asset(
    "candidates",
    "generation",
    {"huggingface"},
    code_version="2",
    reads=(
        *("candidates.count", "candidates.max_requests", "candidates.with_persona_only"),
        *("seed", "models.policy", "prompts.persona"),
    ),
    deps=["policy"],
    pool=declare.OF_ROLES,
)
def candidates(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
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
    calls = Calls(context, workers, settings, lake)
    policy = calls.asked("policy")
    answers = policy(ranking.candidate_requests(requests, profile.candidates.count))
    found = ranking.candidates(requests, answers, profile.candidates.count, policy.model.identity)
    distinct = found.group_by("turn_id").agg(pl.col("reply").n_unique())["reply"].mean()
    return metadata.result(
        "candidates",
        found,
        requests=len(requests),
        distinct_replies_per_request=metadata.number(distinct),
        **calls.metadata(),
    )


@declare.asset(
    "candidate_rewards",
    GROUP,
    {"huggingface"},
    code_version="2",
    reads=("reward.persona_placement", "seed", "models.reward", "prompts.persona"),
    deps=["reward_model"],
    pool=declare.OF_ROLES,
)
def candidate_rewards(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    candidates: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is the reward of a candidate under one persona condition: the user's own, another user's, or none."""
    rows = ranking.conditioned(candidates.collect(), settings.profile.seed)
    calls = Calls(context, workers, settings, lake)
    model, answers = calls.rewards(ranking.reward_requests(rows, settings.profile.reward.persona_placement))
    found = ranking.candidate_rewards(rows, answers, model)
    order = reward_order.reward_order(found)
    return metadata.result(
        "candidate_rewards",
        found,
        error_rows=found["error"].count(),
        errors=metadata.bars(dict(found["error"].drop_nulls().value_counts(sort=True).iter_rows())),
        **reward_order.headline(order),
        order_by_persona=metadata.markdown_table(order),
        rank_correlations=metadata.plot(reward_order.drawing(found)),
        **calls.metadata(),
    )


@declare.asset("reward_pairs", GROUP, set(), code_version="2", reads=("candidates",))
def reward_pairs(
    settings: dg.ResourceParam[Settings], candidates: pl.LazyFrame, candidate_rewards: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
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


@declare.asset("preference_pairs", GROUP, {"huggingface"}, code_version="4", reads=("pairs", "validation_fraction"), pool=declare.MODEL)
def preference_pairs(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    workers: dg.ResourceParam[Workers],
    rewrite_pairs: pl.LazyFrame,
    reward_pairs: pl.LazyFrame,
    reasoning_pairs: pl.LazyFrame,
    explicit_pairs: pl.LazyFrame,
    eval_prompts: pl.LazyFrame,
    users: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a pair that a source kept: ready for training, or dropped as a duplicate or as part of an evaluation set."""
    profile, clean = settings.profile, settings.profile.pairs.decontamination
    offered = merge.offered_pairs(rewrite_pairs.collect(), reward_pairs.collect(), reasoning_pairs.collect(), explicit_pairs.collect())
    items = merge.eval_items(eval_prompts.collect(), clean.benchmarks)
    embed = partial(workers.embed, context, MiniLM.name)
    hits = decontamination.hits(offered, items, clean.ngram_words, clean.min_similarity, embed)
    pairs = merge.preference_pairs(offered, hits, users.collect(), profile.pairs.near_duplicate_jaccard, profile.validation_fraction)
    fates = pairs.select(pl.col("drop_reasons").list.first().fill_null("kept").alias("fate"), "source", "split", "is_kept")
    by_source = fates.filter("is_kept").group_by("source").len().sort("source")
    return metadata.result(
        "preference_pairs",
        pairs,
        kept_pairs=int(pairs["is_kept"].sum()),
        train_pairs=len(fates.filter("is_kept", pl.col("split") == "train")),
        fates=metadata.bars(dict(fates["fate"].value_counts(sort=True).iter_rows())),
        kept_by_source=metadata.bars(dict(by_source.iter_rows())),
        fates_by_source=metadata.markdown_table(fates.group_by("source", "fate").len("pairs").sort("source", "fate")),
    )


def _fates(pairs: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Kept pairs and dropped ones by reason; one with several reasons counts under each."""
    fates = pairs.select(pl.when("is_kept").then(pl.lit(["kept"])).otherwise("drop_reasons").alias("fate")).explode(
        "fate", empty_as_null=True
    )
    return metadata.bars(dict(fates["fate"].value_counts(sort=True).iter_rows()))


table_checks = [
    declare.matches_table(name)
    for name in ("rewrites", "rewrite_pairs", "explicit_pairs", "candidates", "candidate_rewards", "reward_pairs")
]
persona_checks = [
    declare.check(name, personas_precede_use, personas="personas", turns="turns") for name in ("rewrites", "explicit_pairs", "candidates")
]
sides_differ = [
    declare.check(name, pair_checks.chosen_differs_from_rejected) for name in ("rewrite_pairs", "explicit_pairs", "reward_pairs")
]
accounting = [
    declare.check("rewrite_pairs", pair_checks.rewrites_are_conserved, rewrites="rewrites", of_run=["rewrites"]),
    declare.check(
        "explicit_pairs",
        outright.outright_preferences_are_conserved,
        explicit_feedback="explicit_feedback",
        users="users",
        settings=lambda run: run.profile.explicit_pairs,
        of_run=["explicit_feedback"],
    ),
    declare.check("reward_pairs", pair_checks.requests_are_accounted_for, candidates="candidates", of_run=["candidates"]),
]
rewrites_are_of_training_users = declare.check("rewrites", pair_checks.no_held_out_user_in_training, users="users")
"""The reward model is trained on rewrites, and on no other table."""
reads_the_persona = declare.check("candidate_rewards", reward_order.reward_reads_the_persona, warns=True)
pairs_are_sound = [
    declare.check(
        "preference_pairs",
        pair_checks.offered_pairs_are_conserved,
        rewrite="rewrite_pairs",
        reward="reward_pairs",
        reasoning="reasoning_pairs",
        explicit="explicit_pairs",
    ),
    declare.check(
        "preference_pairs",
        pair_checks.pairs_are_decontaminated,
        eval_prompts="eval_prompts",
        settings=lambda run: run.profile.pairs.decontamination,
    ),
    declare.check("preference_pairs", pair_checks.no_held_out_user_in_training, users="users"),
    declare.check("preference_pairs", pair_checks.chosen_differs_from_rejected),
    declare.check("preference_pairs", personas_precede_use, personas="personas", turns="turns"),
]
