"""Online rounds: candidates of the policy as it is, the pairs made of them, and the policies between the rounds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.forgetting.marks import marks_of, trained_on_nobody_forgotten
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import TrainingRun, Workers
from rlhi_dagster.online import checks, rounds
from rlhi_dagster.personas.evidence import personas_precede_use
from rlhi_dagster.preferences import Source, pair_checks
from rlhi_dagster.profiles import Profile
from rlhi_dagster.training import artefacts, manifest_checks, pair_sets, recipes
from rlhi_dagster.training.curves import compared
from rlhi_dagster.training.origin import origin

GROUP = "online"
_TABLES = {
    "online_candidates": "One row is one of N replies that the policy of a round wrote to a request, with its reward; no row for a recipe "
    "without rounds.",
    "online_pairs": "One row is a better against a worse candidate of a round, trained or validated on in that round, or dropped with the "
    "reasons; no row for a recipe without rounds.",
}
_POLICIES = "One artefact a round but the last: the policy that the round's pairs trained, which writes the candidates of the next one."
_READS = (
    *(each for each in declare.OF_RECIPES if each not in ("sft", "kto", "sdpo", "prompts.hindsight")),  # rounds need the method dpo
    *("candidates", "pairs.near_duplicate_jaccard", "reward.persona_placement"),
    *("models.policy", "models.reward"),
)


@declare.together(
    "online_rounds",
    "recipe",
    [
        *(declare.Out(name, GROUP, {"huggingface"}, told, reads=_READS) for name, told in _TABLES.items()),
        declare.Out("online_policies", GROUP, {"huggingface", "pytorch"}, _POLICIES, reads=_READS),
    ],
    deps=["policy", "reward_model"],
    pool=declare.MODEL,
)
def online_rounds(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    preference_pairs: pl.LazyFrame,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Run the rounds of the recipes that have some; an interrupted round asks and trains only what is missing."""
    profile, pairs, arms = settings.profile, preference_pairs.collect(), settings.profile.arms
    lacking = pair_sets.without_data(
        pairs, {name: arms[name] for name in context.partition_keys if arms[name].method not in ("kto", "sdpo")}
    )
    chosen = {name: recipe for name, recipe in _online(arms, context.partition_keys).items() if name not in lacking}
    count = pair_sets.equal_count(pairs, arms, profile.max_pairs)
    wanted = {"train": count, "validation": round(count * profile.validation_fraction)}
    done, calls = list[rounds.Round](), Calls(context, workers, settings, lake)
    for name, recipe in chosen.items():
        plan = rounds.Plan(
            recipe=name,
            source=_source(recipe),
            rounds=recipe.rounds,
            pairs=wanted,
            candidates=profile.candidates,
            near_duplicate_jaccard=profile.pairs.near_duplicate_jaccard,
            placement=profile.reward.persona_placement,
            seed=profile.seed,
        )
        done += _rounds(context, profile, lake, workers, calls, plan, recipe, pairs)
    manifests = {name: each for name, each in _manifests(lake, arms, context.partition_keys).items() if each}
    yield from _results(lake, done, manifests, calls)


def _rounds(
    context: dg.AssetExecutionContext,
    profile: Profile,
    lake: Lake,
    workers: Workers,
    calls: Calls,
    plan: rounds.Plan,
    recipe: recipes.Recipe,
    pairs: pl.DataFrame,
) -> list[rounds.Round]:
    """The rounds of a recipe, with workers as its models and trainer."""
    trained = recipes.training_settings({plan.recipe: recipe}, profile)[plan.recipe]
    reward_model = calls.model("reward")

    def ask(policy: ModelRef, wanted: list[ChatRequest]) -> Sequence[ChatAnswer]:
        (answers,) = calls.ask([(policy, wanted)])
        return answers

    def score(wanted: list[RewardRequest]) -> tuple[str, Sequence[RewardAnswer]]:
        return reward_model.identity, calls.score(reward_model, wanted)

    def train(done: rounds.Round) -> ModelRef:
        name = rounds.policy_name(plan.recipe, done.number)
        usable, out = rounds.as_preference_pairs(done.pairs, plan.source), lake.artefact_path("online_policies", name)
        sets = pair_sets.kept_sets(usable, recipe, profile.seed)
        said = origin("online_pairs", usable, sets, profile.source_facts, metadata.code_version(context, "online_policies"))
        reply_tokens = profile.players("policy")[0].sampling.max_new_tokens
        extra = {"persona": recipe.persona, "reply_tokens": reply_tokens, "round": done.number}
        run = TrainingRun(name, recipe.method, done.policy, sets.train, sets.validation, trained, out, extra, said)
        workers.train(context, [run])
        return ModelRef.from_manifest(out)

    asked = rounds.requests(pairs, plan.source, recipe.persona, plan.rounds, plan.seed)
    try:
        return list(rounds.rounds(plan, asked, calls.model("policy"), ask, score, train))
    except rounds.RoundError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _results(
    lake: Lake, done: Sequence[rounds.Round], manifests: Mapping[str, Mapping[str, Any]], calls: Calls
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
        **calls.metadata(),
    )
    yield metadata.result(
        "online_pairs",
        pairs,
        kept_pairs=int(pairs["is_kept"].sum()),
        fates=metadata.markdown_table(fates.sort("recipe", "round", "split", "fate"), max_rows=60),
    )
    version = artefacts.joint_version({name: manifest["model"]["revision"] for name, manifest in manifests.items()})
    yield dg.MaterializeResult(
        asset_key="online_policies",
        data_version=dg.DataVersion(version),
        metadata={"curves": metadata.picture(compared(lake.artefact_path("online_policies"), manifests))} if manifests else {},
    )


def _manifests(lake: Lake, arms: Mapping[str, recipes.Recipe], partitions: Sequence[str] | None) -> dict[str, Mapping[str, Any] | None]:
    """Manifests of the policies between the rounds of some recipes, or of all; ``None`` where there is none."""
    online_arms = _online(arms, partitions)
    names = [rounds.policy_name(name, number) for name, recipe in online_arms.items() for number in range(1, recipe.rounds)]
    return {name: artefacts.manifest(lake.artefact_path("online_policies", name)) for name in names}


def _online(arms: Mapping[str, recipes.Recipe], partitions: Sequence[str] | None) -> dict[str, recipes.Recipe]:
    """Recipes with rounds, among some or all."""
    return {name: arm for name, arm in arms.items() if arm.rounds and (partitions is None or name in partitions)}


def _source(recipe: recipes.Recipe) -> Source:
    """Of a recipe with rounds, which has one."""
    return Source(recipe.sources[0])


def _arms_of_run(run: declare.Run) -> dict[str, Source]:
    return {name: _source(recipe) for name, recipe in _online(run.profile.arms, run.partitions).items()}


def _pairs_wanted(run: declare.Run) -> dict[str, int]:
    offered = run.lake.scan("preference_pairs").collect()
    return dict.fromkeys(_arms_of_run(run), pair_sets.equal_count(offered, run.profile.arms, run.profile.max_pairs))


def _manifests_of_run(run: declare.Run) -> dict[str, Mapping[str, Any] | None]:
    return _manifests(run.lake, run.profile.arms, run.partitions)


table_checks = [declare.matches_table(name) for name in _TABLES]
precedes = declare.check("online_candidates", personas_precede_use, personas="personas", turns="turns")
pairs_are_sound = [
    declare.check(
        "online_pairs",
        checks.requests_are_in_one_round,
        candidates="online_candidates",
        offered="preference_pairs",
        recipes=_arms_of_run,
    ),
    declare.check("online_pairs", checks.rounds_are_full, wanted=_pairs_wanted, warns=True),
    declare.check("online_pairs", pair_checks.chosen_differs_from_rejected),
    declare.check("online_pairs", pair_checks.no_held_out_user_in_training, users="users"),
]
manifests_are_sound = [
    declare.check("online_policies", manifest_checks.step0_loss_is_ln2, manifests=_manifests_of_run),
    declare.check("online_policies", manifest_checks.nothing_lost, manifests=_manifests_of_run),
    declare.check("online_policies", manifest_checks.chosen_likelihood_holds, manifests=_manifests_of_run, warns=True),
]
forgotten = declare.check(
    "online_policies", trained_on_nobody_forgotten, marked=lambda run: marks_of(run.lake, "online_policies"), warns=True
)
