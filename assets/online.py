"""Online rounds: candidates of the policy as it is, the pairs made of them, and the policies between the rounds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.calls import CallStats
from rlhi_dagster.engines.models import MANIFEST, ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.partitions import partitions_of_run
from rlhi_dagster.preferences import online, online_checks
from rlhi_dagster.resources import Settings, TrainingRun, Workers, call_metadata
from rlhi_dagster.tables import TABLES
from rlhi_dagster.training import artefacts, pair_sets, recipes
from rlhi_dagster.training.curves import compared
from rlhi_dagster.training.origin import origin

GROUP = "training"
_TABLES = {
    "online_candidates": "One row is one of N replies that the policy of a round wrote to a request, with its reward; no row for a recipe "
    "without rounds.",
    "online_pairs": "One row is a better against a worse candidate of a round, trained or validated on in that round, or dropped with the "
    "reasons; no row for a recipe without rounds.",
}
_POLICIES = "One artefact a round but the last: the policy that the round's pairs trained, which writes the candidates of the next one."


_READS = (
    *declare.OF_RECIPES,
    *("candidates", "pairs.near_duplicate_jaccard", "reward.persona_placement"),
    *("sampling", "engines.policy", "engines.reward"),
)


def _out(description: str, metadata: Mapping[str, Any], **more: Any) -> dg.AssetOut:
    return dg.AssetOut(group_name=GROUP, description=description, owners=declare.OWNERS, **declare.versioned("1", _READS, metadata), **more)


@declare.together(
    "online_rounds",
    declare.RECIPES,
    deps=["policy", "reward_model"],
    outs={
        **{name: _out(told, TABLES[name].metadata, kinds={"polars", "huggingface"}) for name, told in _TABLES.items()},
        "online_policies": _out(_POLICIES, declare.folder("online_policies"), kinds={"huggingface", "pytorch"}, dagster_type=dg.Nothing),
    },
    pool="model",
)
def online_rounds(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, preference_pairs: pl.LazyFrame
) -> Iterator[dg.MaterializeResult[Any]]:
    """Run the rounds of the recipes that have some; an interrupted round asks and trains only what is missing."""
    profile, pairs, arms = settings.profile, preference_pairs.collect(), recipes.load_all()
    chosen = _online(context.partition_keys)
    if told := pair_sets.unfit(pairs, chosen):
        raise dg.Failure("; ".join(told), allow_retries=False)
    count = pair_sets.equal_count(pairs, arms, profile.max_pairs)
    wanted = {"train": count, "validation": round(count * profile.validation_fraction)}
    done, spent = list[online.Round](), list[CallStats]()
    for name, recipe in chosen.items():
        plan = online.Plan(
            recipe=name,
            rounds=recipe.rounds,
            pairs=wanted,
            candidates=profile.candidates,
            near_duplicate_jaccard=profile.pairs.near_duplicate_jaccard,
            placement=profile.reward.persona_placement,
            seed=profile.seed,
        )
        done += _rounds(context, settings, lake, workers, plan, pairs, spent)
    yield from _results(context, lake, done, sum(spent, CallStats()))


def _rounds(
    context: dg.AssetExecutionContext,
    settings: Settings,
    lake: Lake,
    workers: Workers,
    plan: online.Plan,
    pairs: pl.DataFrame,
    spent: list[CallStats],
) -> list[online.Round]:
    """The rounds of a recipe, with workers as its models and trainer."""
    profile, recipe = settings.profile, recipes.load(plan.recipe)
    trained = recipes.training_settings({plan.recipe: recipe}, profile)[plan.recipe]
    reward_model = ModelRef.from_manifest(lake.artefact_path("reward_model"))

    def ask(policy: ModelRef, wanted: list[ChatRequest]) -> Sequence[ChatAnswer]:
        (answers,), stats = workers.chat(context, [(policy, wanted)], settings.sampling())
        spent.append(stats)
        return answers

    def score(wanted: list[RewardRequest]) -> tuple[str, Sequence[RewardAnswer]]:
        answers, stats = workers.score(context, reward_model, wanted)
        spent.append(stats)
        return reward_model.identity, answers

    def train(done: online.Round) -> ModelRef:
        name = online.policy_name(plan.recipe, done.number)
        usable, out = online.as_preference_pairs(done.pairs), lake.artefact_path("online_policies", name)
        sets = pair_sets.kept_sets(usable, recipe, profile.seed)
        said = origin("online_pairs", usable, sets, profile, context.assets_def.code_versions_by_key[dg.AssetKey("online_policies")])
        extra = {"persona": recipe.persona, "reply_tokens": profile.sampling.max_new_tokens, "round": done.number}
        run = TrainingRun(name, recipe.method, done.policy, sets.train, sets.validation, trained, out, extra, said)
        workers.train(context, [run])
        return ModelRef.from_manifest(out)

    asked = online.requests(pairs, plan.rounds, plan.seed)
    start = ModelRef.from_manifest(lake.artefact_path("policy"))
    try:
        return list(online.rounds(plan, asked, start, ask, score, train))
    except online.RoundError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _results(
    context: dg.AssetExecutionContext, lake: Lake, done: Sequence[online.Round], stats: CallStats
) -> Iterator[dg.MaterializeResult[Any]]:
    candidates = pl.concat([TABLES["online_candidates"].empty(), *(each.candidates for each in done)])
    pairs = pl.concat([TABLES["online_pairs"].empty(), *(each.pairs for each in done)])
    rewards = candidates.group_by("recipe", "round", "split").agg(
        requests=pl.col("turn_id").n_unique(),
        mean_reward=pl.col("reward").mean(),
        distinct_replies=pl.struct("turn_id", "reply").n_unique() / pl.col("turn_id").n_unique(),
        errors=pl.col("error").count(),
    )
    fates = pairs.group_by("recipe", "round", "split", fate=pl.col("drop_reasons").list.first().fill_null("kept")).len("pairs")
    yield metadata.result(
        "online_candidates",
        candidates,
        error_rows=candidates["error"].count(),
        by_round=metadata.markdown_table(rewards.sort("recipe", "round", "split")),
        **call_metadata(stats),
    )
    yield metadata.result(
        "online_pairs",
        pairs,
        kept_pairs=int(pairs["is_kept"].sum()),
        fates=metadata.markdown_table(fates.sort("recipe", "round", "split", "fate"), max_rows=60),
    )
    manifests = {name: manifest for name, manifest in _manifests(lake, context.partition_keys).items() if manifest}
    version = artefacts.joint_version({name: manifest["model"]["revision"] for name, manifest in manifests.items()})
    yield dg.MaterializeResult(
        asset_key="online_policies",
        data_version=dg.DataVersion(version),
        metadata={"curves": metadata.picture(compared(lake.artefact_path("online_policies"), manifests))} if manifests else {},
    )


def _manifests(lake: Lake, partitions: Sequence[str] | None) -> dict[str, Mapping[str, Any] | None]:
    """Manifests of the policies between the rounds of some recipes, or of all; ``None`` where there is none."""
    names = [online.policy_name(name, number) for name, recipe in _online(partitions).items() for number in range(1, recipe.rounds)]
    files = {name: lake.artefact_path("online_policies", name) / MANIFEST for name in names}
    return {name: json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None for name, file in files.items()}


def _online(partitions: Sequence[str] | None) -> dict[str, recipes.Recipe]:
    """Recipes with rounds, among some or all."""
    arms = recipes.load_all()
    return {name: arm for name, arm in arms.items() if arm.rounds and (partitions is None or name in partitions)}


@dg.asset_check(
    asset="online_pairs",
    blocking=True,
    additional_ins={"candidates": dg.AssetIn("online_candidates"), "offered": dg.AssetIn("preference_pairs")},
)
def requests_are_in_one_round(
    context: dg.AssetCheckExecutionContext, frame: pl.LazyFrame, candidates: pl.LazyFrame, offered: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Every request has candidates and pairs in one round of each recipe with rounds, and every pair is kept or dropped with a reason."""
    arms = _online(partitions_of_run(context.run.tags, declare.RECIPES))
    return online_checks.requests_are_in_one_round(frame, candidates, offered, list(arms)).as_result()


@dg.asset_check(asset="online_pairs", additional_ins={"offered": dg.AssetIn("preference_pairs")})
def rounds_are_full(
    context: dg.AssetCheckExecutionContext, settings: Settings, frame: pl.LazyFrame, offered: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Warn unless the rounds of a recipe train on as many pairs as every other recipe."""
    arms = _online(partitions_of_run(context.run.tags, declare.RECIPES))
    count = pair_sets.equal_count(offered.collect(), recipes.load_all(), settings.profile.max_pairs)
    return online_checks.rounds_are_full(frame, dict.fromkeys(arms, count)).as_result(dg.AssetCheckSeverity.WARN)


table_checks = [checks.table_check(name, TABLES[name]) for name in _TABLES]
precedes = checks.personas_precede_use_check("online_candidates")
differs = checks.chosen_differs_from_rejected_check("online_pairs")
held_out = checks.no_held_out_user_in_training_check("online_pairs")
manifest_checks = [
    checks.manifest_check("online_policies", checks.step0_loss_is_ln2, found=_manifests),
    checks.manifest_check("online_policies", checks.nothing_lost, found=_manifests),
    checks.manifest_check("online_policies", checks.chosen_likelihood_holds, found=_manifests, is_blocking=False),
]
forgotten = checks.trained_on_nobody_forgotten_check("online_policies")
