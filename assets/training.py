"""From preference pairs to checkpoints: the starting policy, the reward model, and a checkpoint per recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.failures import NotMadeError
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.models import ModelRef, read_manifest
from rlhi_dagster.forgetting.marks import marks_of, trained_on_nobody_forgotten
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import TrainingRun, Workers
from rlhi_dagster.online import rounds
from rlhi_dagster.preferences import Source, Strategy
from rlhi_dagster.preferences.rewrites import unscored_pairs
from rlhi_dagster.profiles import Profile
from rlhi_dagster.training import (
    artefacts,
    budget,
    follow_ups,
    human_preferences,
    manifest_checks,
    pair_sets,
    recipes,
    reward_scores,
)
from rlhi_dagster.training.curves import compared, final_numbers, picture
from rlhi_dagster.training.examples import as_pairs
from rlhi_dagster.training.origin import origin
from rlhi_dagster.training.settings import SDPOSettings

GROUP = "training"
_EXAMPLES = {"kto": "thumb_examples", "sdpo": "follow_up_examples"}
"""Where the rows of a method come from that trains on no pairs."""
_NO_REWRITES = (
    "it learns from rewrites of replies to opening requests that a user then criticised, and of these logs there is none for a training "
    "user; logs of single turns have no such follow-ups, and models.reward can name a reward model that was made elsewhere"
)
_SHOWN = ("pairs", "validation_pairs", "pairs_too_long", "dialogues", "parameters", "seconds")


@declare.asset("policy", "policy", {"huggingface", "pytorch"}, reads=("policy", "models.policy"), pool=declare.MODEL)
def policy(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
) -> dg.MaterializeResult[None]:
    """One artefact: the starting model, a pinned Hub revision or the town's own Llama, trained here."""
    (player,), out = settings.profile.players("policy"), lake.artefact_path("policy")
    if not player.is_trained_here:
        return _trained(workers.put(context, player.settings, out), out)
    chosen = settings.profile.policy
    assert chosen
    corpus = pl.read_parquet(profiles.project_path(chosen.corpus))
    run = TrainingRun("town-policy", "policy", None, corpus, None, chosen.training, out, chosen.town.model_dump())
    return _trained(workers.train(context, [run])["town-policy"], out)


@declare.asset(
    "reward_model",
    "reward",
    {"huggingface", "pytorch"},
    code_version="3",
    reads=(
        *("models.reward", "reward.training", "reward.max_pairs", "reward.persona_placement"),
        *("rewrites", "validation_fraction", "seed", "prompts.persona"),
    ),
    deps=["policy"],
    pool=declare.MODEL,
)
def reward_model(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    rewrites: pl.LazyFrame,
    users: pl.LazyFrame,
) -> dg.MaterializeResult[None]:
    """One artefact: the reward model, a pinned Hub revision or one trained here.

    The one trained here is a persona-conditioned Bradley-Terry model on the rewrites of opening requests that follow the feedback and
    that no rule and no judge drops; it starts from the policy.
    """
    profile, out = settings.profile, lake.artefact_path("reward_model")
    (player,) = profile.players("reward")
    if not player.is_trained_here:
        return _trained(workers.put(context, player.settings, out), out)
    assert profile.reward.training
    found = _reward_model_pairs(profile, rewrites, users)
    sets = pair_sets.PairSets(*pair_sets.reward_model_sets(found, profile.reward.max_pairs, profile.seed, profile.reward.persona_placement))
    if sets.train.is_empty():
        context.log.warning(f"there is no reward model: {_NO_REWRITES}")
        artefacts.leave_empty(out, _NO_REWRITES)
        return dg.MaterializeResult(data_version=dg.DataVersion(read_manifest(out)["inputs"]), metadata={"no_data": _NO_REWRITES})
    start = ModelRef.from_manifest(lake.artefact_path("policy"))
    said = origin("rewrites", found, sets, profile.source_facts, metadata.code_version(context, out.name))
    run = TrainingRun("reward-model", "reward", start, sets.train, sets.validation, profile.reward.training, out, {}, said)
    return _trained(workers.train(context, [run])["reward-model"], out)


@declare.asset(
    "reward_model_scores",
    "reward",
    {"huggingface"},
    code_version="2",
    reads=(
        *("models.reward", "reward.persona_placement", "reward.human_preferences"),
        *("rewrites", "validation_fraction", "seed", "prompts.persona"),
    ),
    deps=["reward_model"],
    pool=declare.OF_ROLES,
)
def reward_model_scores(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    rewrites: pl.LazyFrame,
    users: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is how often the reward model prefers the preferred reply of a set of pairs, under one persona condition."""
    profile, folder = settings.profile, lake.artefact_path("reward_model")
    held_out, calls = _reward_model_pairs(profile, rewrites, users), Calls(context, workers, settings, lake)
    if profile.players("reward")[0].is_trained_here:
        held_out = held_out.filter(split="validation")
    sets = [human_preferences.read(each.name, each.location) for each in profiles.human_preferences(profile)]
    rows = pl.concat([reward_scores.held_out_rows(held_out, profile.seed), reward_scores.human_rows(sets)])
    model, answers = calls.rewards(reward_scores.reward_requests(rows, profile.reward.persona_placement))
    scores = reward_scores.reward_model_scores(rows, answers, sets, model)
    accuracies = {f"accuracy/{row['pairs']}/{row['condition']}": row["value"] for row in scores.filter(pl.col("n") > 0).to_dicts()}
    return metadata.result(
        "reward_model_scores",
        scores,
        backbone=reward_scores.backbone(read_manifest(folder)),
        accuracies=metadata.plot(reward_scores.drawing(scores)),
        other_persona_fraction=metadata.number(reward_scores.other_persona_fraction(rows)),
        error_rows=sum(reward_scores.errors(answers).values()),
        errors_by_reason=metadata.bars(reward_scores.errors(answers)),
        rows_without_a_pair=metadata.bars({f"{each.name}: {reason}": n for each in sets for reason, n in each.broken.items()}),
        **accuracies,
        **calls.metadata(),
    )


@declare.asset("token_budget", GROUP, {"huggingface"}, reads=declare.OF_RECIPES, deps=["policy"])
def token_budget(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    preference_pairs: pl.LazyFrame,
    thumb_examples: pl.LazyFrame,
    follow_up_examples: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a fate of a recipe's pairs at its training length: what training would use and what it would leave out."""
    profile, everything = settings.profile, settings.profile.arms
    limits = {name: trained.max_length for name, trained in recipes.training_settings(everything, profile).items()}
    tables = _tables(preference_pairs, thumb_examples, follow_up_examples)
    sets, rows = budget.shown(_drawn(profile, tables), limits)
    told = budget.fates(sets, workers.count_tokens(context, ModelRef.from_manifest(lake.artefact_path("policy")), rows))
    found = budget.token_budget(told, limits)
    left_out = found.filter(pl.col("fate") != budget.Fate.FITS.value)["pairs"].sum()
    return metadata.result(
        "token_budget",
        found,
        distinct_pairs=len(rows),
        pairs_left_out=int(left_out),
        fates=metadata.markdown_table(found.filter(pl.col("pairs") > 0), max_rows=60),
        token_lengths=metadata.plot(budget.lengths(told, limits)),
    )


@declare.asset(
    "checkpoints",
    GROUP,
    {"huggingface", "pytorch"},
    reads=(*declare.OF_RECIPES, "models.policy"),
    deps=["policy", "online_pairs", "online_policies"],
    pool=declare.MODEL,
)
def checkpoints(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    preference_pairs: pl.LazyFrame,
    thumb_examples: pl.LazyFrame,
    follow_up_examples: pl.LazyFrame,
) -> dg.MaterializeResult[None]:
    """One artefact a recipe: a trained policy with its manifest, curves and gates; recipes use equally many pairs unless they say not to.

    One with online rounds is the policy of the last round. One without data says so in its manifest, and the others are trained.
    """
    profile, tables = settings.profile, _tables(preference_pairs, thumb_examples, follow_up_examples)
    pairs = _rows(tables)
    everything, reply_tokens = profile.arms, profile.players("policy")[0].sampling.max_new_tokens
    trained = recipes.training_settings(everything, profile)
    lacking = pair_sets.without_data(pairs, {name: everything[name] for name in context.partition_keys})
    count = pair_sets.equal_count(pairs, everything, profile.max_pairs)
    drawn = _drawn(profile, tables)
    start = ModelRef.from_manifest(lake.artefact_path("policy"))
    runs = []
    for name in (name for name in context.partition_keys if name not in lacking):
        recipe, out = everything[name], lake.artefact_path("checkpoints", name)
        if recipe.method == "none":
            artefacts.refer(out, start, method="none")
            continue
        if recipe.rounds:
            runs.append(_last_round(context, profile, lake, name, recipe, out))
            continue
        sets = drawn[name]
        extra = {"persona": recipe.persona, "reply_tokens": reply_tokens}
        table = _EXAMPLES.get(recipe.method, "preference_pairs")
        said = origin(table, tables[table], sets, profile.source_facts, metadata.code_version(context, "checkpoints"))
        runs.append(TrainingRun(name, recipe.method, start, sets.train, sets.validation, trained[name], out, extra, said))
    manifests = workers.train(context, runs)
    for name, why in lacking.items():
        context.log.warning(f"{why}; it is left out")
        artefacts.leave_empty(lake.artefact_path("checkpoints", name), why)
        context.add_asset_metadata({"no_data": why}, partition_key=name)
    for name, manifest in manifests.items():
        facts = {"step0_loss": manifest.get("step0_loss"), "seconds": manifest["seconds"], "steps": manifest["chosen"]["of"]}
        curve = metadata.picture(picture(lake.artefact_path("checkpoints", name), manifest))
        context.add_asset_metadata({**facts, **final_numbers(manifest), "curves": curve}, partition_key=name)
    made = [name for name in context.partition_keys if name not in lacking]
    versions = {name: ModelRef.from_manifest(lake.artefact_path("checkpoints", name)).revision for name in made}
    version = dg.DataVersion(artefacts.joint_version(versions | lacking))
    shown: dict[str, Any] = {"pairs_per_recipe": count}
    if len(manifests) > 1:
        shown["curves_compared"] = metadata.picture(compared(lake.artefact_path("checkpoints"), manifests))
    return dg.MaterializeResult(data_version=version, metadata=shown)


def _tables(pairs: pl.LazyFrame, thumbed: pl.LazyFrame, followed: pl.LazyFrame) -> dict[str, pl.DataFrame]:
    return {"preference_pairs": pairs.collect(), "thumb_examples": thumbed.collect(), "follow_up_examples": followed.collect()}


def _rows(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """All that recipes draw from, as pairs."""
    examples = [as_pairs(tables["thumb_examples"]), follow_ups.as_pairs(tables["follow_up_examples"])]
    return pl.concat([tables["preference_pairs"], *examples])


def _drawn(profile: Profile, tables: Mapping[str, pl.DataFrame]) -> dict[str, pair_sets.PairSets]:
    """What each recipe trains and validates on; of the method `sdpo` with what the teacher is asked."""
    everything = profile.arms
    trained = recipes.training_settings(everything, profile)
    drawn = pair_sets.drawn_sets(_rows(tables), everything, profile.max_pairs, profile.validation_fraction, profile.seed)
    for name, how in trained.items():
        if isinstance(how, SDPOSettings):
            rows = {split: follow_ups.told(each, tables["follow_up_examples"], how.form) for split, each in drawn[name].by_split.items()}
            drawn[name] = pair_sets.PairSets(**rows)
    return drawn


def _last_round(
    context: dg.AssetExecutionContext, profile: Profile, lake: Lake, name: str, recipe: recipes.Recipe, out: Path
) -> TrainingRun:
    """Train on the pairs of a recipe's last online round, from the policy that wrote them."""
    before = rounds.policy_name(name, recipe.rounds - 1)
    last = lake.scan("online_pairs", [name]).filter(pl.col("round") == recipe.rounds).collect()
    pairs = rounds.as_preference_pairs(last, Source(recipe.sources[0]))
    start = ModelRef.from_manifest(lake.artefact_path("online_policies", before) if recipe.rounds > 1 else lake.artefact_path("policy"))
    if set(pairs["model"]) != {start.identity}:
        told = f"recipe {name}: its last round is not of {start.identity}"
        raise NotMadeError(told, "online_pairs", [name])
    sets = pair_sets.kept_sets(pairs, recipe, profile.seed)
    said = origin("online_pairs", pairs, sets, profile.source_facts, metadata.code_version(context, "checkpoints"))
    trained = recipes.training_settings({name: recipe}, profile)[name]
    reply_tokens = profile.players("policy")[0].sampling.max_new_tokens
    extra = {"persona": recipe.persona, "reply_tokens": reply_tokens, "round": recipe.rounds}
    return TrainingRun(name, recipe.method, start, sets.train, sets.validation, trained, out, extra, said)


def _reward_model_pairs(profile: Profile, rewrites: pl.LazyFrame, users: pl.LazyFrame) -> pl.DataFrame:
    """What the reward model learns from and is tried on; only rewrites that can be among it are looked at for reasons against them."""
    possible = rewrites.filter(pl.col("strategy") != Strategy.SCRATCH.value, pl.col("prompt").list.len() == 1).collect()
    return pair_sets.reward_model_pairs(unscored_pairs(possible, profile.rewrites), users.collect(), profile.validation_fraction)


def _trained(manifest: dict[str, Any], out: Path) -> dg.MaterializeResult[None]:
    shown: dict[str, Any] = {name: manifest[name] for name in _SHOWN if name in manifest}
    drawn: dict[str, Any] = {"curves": metadata.picture(picture(out, manifest))} if manifest.get("steps") else {}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest["model"]["revision"]),
        metadata={"path": dg.MetadataValue.path(out), "model": manifest["model"]["name"], **shown, **final_numbers(manifest), **drawn},
    )


table_checks = [declare.matches_table(name) for name in ("reward_model_scores", "token_budget")]
fits = declare.check("token_budget", budget.pairs_fit, warns=True)
prefers_preferred = declare.check("reward_model_scores", reward_scores.reward_model_prefers_preferred, warns=True)


def _checkpoints(run: declare.Run) -> dict[str, Mapping[str, Any] | None]:
    return manifest_checks.manifests(run.lake, "checkpoints", run.partitions)


def _reward_model(run: declare.Run) -> dict[str, Mapping[str, Any] | None]:
    return {"reward_model": artefacts.manifest(run.lake.artefact_path("reward_model"))}


manifests_are_sound = [
    declare.check("checkpoints", manifest_checks.step0_loss_is_ln2, manifests=_checkpoints),
    declare.check("checkpoints", manifest_checks.step0_loss_is_half, manifests=_checkpoints),
    declare.check("checkpoints", manifest_checks.nothing_lost, manifests=_checkpoints),
    declare.check("checkpoints", manifest_checks.only_replies_carry_loss, manifests=_checkpoints),
    declare.check("checkpoints", manifest_checks.chosen_likelihood_holds, manifests=_checkpoints, warns=True),
    declare.check("checkpoints", manifest_checks.no_memorisation, manifests=_checkpoints, warns=True),
    declare.check("reward_model", manifest_checks.nothing_lost, manifests=_reward_model),
    declare.check("reward_model", manifest_checks.no_memorisation, manifests=_reward_model, warns=True),
]
forgotten = [
    declare.check("checkpoints", trained_on_nobody_forgotten, marked=lambda run: marks_of(run.lake, "checkpoints"), warns=True),
    declare.check("reward_model", trained_on_nobody_forgotten, marked=lambda run: marks_of(run.lake, "reward_model"), warns=True),
]
