"""From preference pairs to checkpoints: the starting policy, the reward model, the union of pairs, and a checkpoint per recipe."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata, profiles
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.launching import command
from rlhi_dagster.preferences import Strategy, decontamination, online, pair_checks, union
from rlhi_dagster.preferences.rewrites import unscored_pairs
from rlhi_dagster.resources import Settings, TrainingRun, Workers, call_metadata
from rlhi_dagster.tables import TABLES
from rlhi_dagster.training import artefacts, budget, human_preferences, pair_sets, recipes, reward_scores
from rlhi_dagster.training.curves import compared, final_numbers, picture
from rlhi_dagster.training.origin import origin

GROUP = "training"
_SHOWN = ("pairs", "validation_pairs", "pairs_too_long", "dialogues", "parameters", "seconds")


@declare.artefact("policy", GROUP, {"huggingface", "pytorch"}, reads=("policy",), pool="model")
def policy(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers
) -> dg.MaterializeResult[None]:
    """One artefact: the starting model, a pinned Hub revision or the town's own Llama, trained here."""
    chosen, out = settings.profile.policy, lake.artefact_path("policy")
    if chosen.hub_model:
        manifest = artefacts.refer(out, artefacts.hub_model(chosen.hub_model, chosen.hub_revision), method="none")
    else:
        assert chosen.town
        assert chosen.training
        assert chosen.corpus
        corpus = pl.read_parquet(profiles.project_path(chosen.corpus))
        run = TrainingRun("town-policy", "policy", None, corpus, None, chosen.training, out, chosen.town.model_dump())
        manifest = workers.train(context, [run])["town-policy"]
    return _trained(manifest, out)


@declare.artefact(
    "reward_model",
    GROUP,
    {"huggingface", "pytorch"},
    code_version="2",
    reads=(
        *("reward.hub_model", "reward.hub_revision", "reward.training", "reward.max_pairs", "reward.persona_placement"),
        *("rewrites", "validation_fraction", "seed"),
    ),
    deps=["policy"],
    pool="model",
)
def reward_model(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, rewrites: pl.LazyFrame
) -> dg.MaterializeResult[None]:
    """One artefact: the reward model, a pinned Hub revision or one trained here.

    The one trained here is a persona-conditioned Bradley-Terry model on the rewrites of opening requests that follow the feedback and
    that no rule and no judge drops; it starts from the policy.
    """
    profile, out = settings.profile, lake.artefact_path("reward_model")
    if profile.reward.hub_model:
        return _trained(
            artefacts.refer(out, artefacts.hub_model(profile.reward.hub_model, profile.reward.hub_revision), method="none"), out
        )
    assert profile.reward.training
    found = _reward_model_pairs(settings, rewrites)
    sets = pair_sets.PairSets(*pair_sets.reward_model_sets(found, profile.reward.max_pairs, profile.seed, profile.reward.persona_placement))
    if sets.train.is_empty():
        raise dg.Failure("no rewrite to train the reward model on: see the drop reasons of rewrite_pairs", allow_retries=False)
    start = ModelRef.from_manifest(lake.artefact_path("policy"))
    said = origin("rewrites", found, sets, profile, _code_version(context))
    run = TrainingRun("reward-model", "reward", start, sets.train, sets.validation, profile.reward.training, out, {}, said)
    return _trained(workers.train(context, [run])["reward-model"], out)


@declare.table(
    "reward_model_scores",
    GROUP,
    {"huggingface"},
    reads=(
        *("reward.training", "reward.persona_placement", "reward.human_preferences"),
        *("rewrites", "validation_fraction", "seed", "engines.reward"),
    ),
    deps=["reward_model"],
    pool="model",
)
def reward_model_scores(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, rewrites: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is how often the reward model prefers the preferred reply of a set of pairs, under one persona condition."""
    profile, folder = settings.profile, lake.artefact_path("reward_model")
    held_out = _reward_model_pairs(settings, rewrites)
    if profile.reward.training:
        held_out = held_out.filter(split="validation")
    sets = [human_preferences.read(each.name, each.location) for each in profiles.human_preferences(profile)]
    rows = pl.concat([reward_scores.held_out_rows(held_out, profile.seed), reward_scores.human_rows(sets)])
    model = ModelRef.from_manifest(folder)
    answers, stats = workers.score(context, model, reward_scores.reward_requests(rows, profile.reward.persona_placement))
    scores = reward_scores.reward_model_scores(rows, answers, sets, model.identity)
    accuracies = {f"accuracy/{row['pairs']}/{row['condition']}": row["value"] for row in scores.filter(pl.col("n") > 0).to_dicts()}
    return metadata.result(
        "reward_model_scores",
        scores,
        backbone=reward_scores.backbone(_manifest(folder)),
        accuracies=metadata.plot(reward_scores.drawing(scores)),
        other_persona_fraction=metadata.number(reward_scores.other_persona_fraction(rows)),
        error_rows=sum(reward_scores.errors(answers).values()),
        errors_by_reason=metadata.bars(reward_scores.errors(answers)),
        rows_without_a_pair=metadata.bars({f"{each.name}: {reason}": n for each in sets for reason, n in each.broken.items()}),
        **accuracies,
        **call_metadata(stats),
    )


@declare.table("preference_pairs", GROUP, {"huggingface"}, code_version="2", reads=("pairs", "validation_fraction"), pool="model")
def preference_pairs(
    context: dg.AssetExecutionContext,
    settings: Settings,
    workers: Workers,
    rewrite_pairs: pl.LazyFrame,
    reward_pairs: pl.LazyFrame,
    reasoning_pairs: pl.LazyFrame,
    eval_prompts: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a pair that a source kept: ready for training, or dropped as a duplicate or as part of an evaluation set."""
    profile, clean = settings.profile, settings.profile.pairs.decontamination
    offered = union.offered_pairs(rewrite_pairs.collect(), reward_pairs.collect(), reasoning_pairs.collect())
    items = union.eval_items(eval_prompts.collect(), clean.benchmarks)
    embed = partial(workers.embed, context, MiniLM.name)
    hits = decontamination.hits(offered, items, clean.ngram_words, clean.min_similarity, embed)
    pairs = union.preference_pairs(offered, hits, profile.pairs.near_duplicate_jaccard, profile.validation_fraction)
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


@declare.table("token_budget", GROUP, {"huggingface"}, reads=declare.OF_RECIPES, deps=["policy"])
def token_budget(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, preference_pairs: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a fate of a recipe's pairs at its training length: what training would use and what it would leave out."""
    profile, everything = settings.profile, recipes.load_all()
    limits = {name: trained.max_length for name, trained in recipes.training_settings(everything, profile).items()}
    drawn = pair_sets.drawn_sets(preference_pairs.collect(), everything, profile.max_pairs, profile.validation_fraction, profile.seed)
    sets, rows = budget.shown(drawn, limits)
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


@declare.artefact(
    "checkpoints",
    GROUP,
    {"huggingface", "pytorch"},
    reads=(*declare.OF_RECIPES, "sampling.max_new_tokens"),
    by_recipe=True,
    deps=["policy", "online_pairs", "online_policies"],
    pool="model",
)
def checkpoints(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, preference_pairs: pl.LazyFrame
) -> dg.MaterializeResult[None]:
    """One artefact a recipe: a trained policy with its manifest, curves and gates; recipes use equally many pairs unless they say not to.

    One with online rounds is the policy of the last round.
    """
    profile, pairs = settings.profile, preference_pairs.collect()
    everything = recipes.load_all()
    trained = recipes.training_settings(everything, profile)
    if told := pair_sets.unfit(pairs, {name: everything[name] for name in context.partition_keys}):
        raise dg.Failure("; ".join(told), allow_retries=False)
    count = pair_sets.equal_count(pairs, everything, profile.max_pairs)
    drawn = pair_sets.drawn_sets(pairs, everything, profile.max_pairs, profile.validation_fraction, profile.seed)
    start = ModelRef.from_manifest(lake.artefact_path("policy"))
    runs = []
    for name in context.partition_keys:
        recipe, out = everything[name], lake.artefact_path("checkpoints", name)
        if recipe.method == "none":
            artefacts.refer(out, start, method="none")
            continue
        if recipe.rounds:
            runs.append(_last_round(context, settings, lake, name, recipe, out))
            continue
        sets = drawn[name]
        extra = {"persona": recipe.persona, "reply_tokens": profile.sampling.max_new_tokens}
        said = origin("preference_pairs", pairs, sets, profile, _code_version(context))
        runs.append(TrainingRun(name, recipe.method, start, sets.train, sets.validation, trained[name], out, extra, said))
    manifests = workers.train(context, runs)
    for name, manifest in manifests.items():
        facts = {"step0_loss": manifest.get("step0_loss"), "seconds": manifest["seconds"], "steps": manifest["chosen"]["of"]}
        drawn = metadata.picture(picture(lake.artefact_path("checkpoints", name), manifest))
        context.add_asset_metadata({**facts, **final_numbers(manifest), "curves": drawn}, partition_key=name)
    versions = {name: _manifest(lake.artefact_path("checkpoints", name))["model"]["revision"] for name in context.partition_keys}
    version = dg.DataVersion(artefacts.joint_version(versions))
    shown: dict[str, Any] = {"pairs_per_recipe": count}
    if len(manifests) > 1:
        shown["curves_compared"] = metadata.picture(compared(lake.artefact_path("checkpoints"), manifests))
    return dg.MaterializeResult(data_version=version, metadata=shown)


def _last_round(
    context: dg.AssetExecutionContext, settings: Settings, lake: Lake, name: str, recipe: recipes.Recipe, out: Path
) -> TrainingRun:
    """Train on the pairs of a recipe's last online round, from the policy that wrote them."""
    profile, before = settings.profile, online.policy_name(name, recipe.rounds - 1)
    pairs = online.as_preference_pairs(lake.scan("online_pairs", [name]).filter(pl.col("round") == recipe.rounds).collect())
    start = ModelRef.from_manifest(lake.artefact_path("online_policies", before) if recipe.rounds > 1 else lake.artefact_path("policy"))
    if set(pairs["model"]) != {start.identity}:
        told = f"recipe {name}: its last round is not of {start.identity}"
        raise dg.Failure(f"{told}; run: {command('online_pairs', [name])}", allow_retries=False)
    sets = pair_sets.kept_sets(pairs, recipe, profile.seed)
    said = origin("online_pairs", pairs, sets, profile, _code_version(context))
    trained = recipes.training_settings({name: recipe}, profile)[name]
    extra = {"persona": recipe.persona, "reply_tokens": profile.sampling.max_new_tokens, "round": recipe.rounds}
    return TrainingRun(name, recipe.method, start, sets.train, sets.validation, trained, out, extra, said)


def _reward_model_pairs(settings: Settings, rewrites: pl.LazyFrame) -> pl.DataFrame:
    """What the reward model learns from and is tried on; only rewrites that can be among it are looked at for reasons against them."""
    profile = settings.profile
    possible = rewrites.filter(pl.col("strategy") != Strategy.SCRATCH.value, pl.col("prompt").list.len() == 1).collect()
    return pair_sets.reward_model_pairs(unscored_pairs(possible, profile.rewrites), profile.validation_fraction)


def _code_version(context: dg.AssetExecutionContext) -> str | None:
    return context.assets_def.code_versions_by_key[context.assets_def.key]


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def _trained(manifest: dict[str, Any], out: Path) -> dg.MaterializeResult[None]:
    shown: dict[str, Any] = {name: manifest[name] for name in _SHOWN if name in manifest}
    drawn: dict[str, Any] = {"curves": metadata.picture(picture(out, manifest))} if manifest.get("steps") else {}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest["model"]["revision"]),
        metadata={"path": dg.MetadataValue.path(out), "model": manifest["model"]["name"], **shown, **final_numbers(manifest), **drawn},
    )


@dg.asset_check(asset=token_budget)
def pairs_fit(token_budget: pl.LazyFrame) -> dg.AssetCheckResult:
    """Warn when more than one in a hundred of a recipe's pairs is too long to train on."""
    return budget.pairs_fit(token_budget).as_result(dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset="reward_model_scores", description="Above chance, with the whole interval, on users it was not trained on.")
def reward_model_prefers_preferred(reward_model_scores: pl.LazyFrame) -> dg.AssetCheckResult:
    """Warn unless the reward model prefers the preferred replies of held-out users under their own persona."""
    return reward_scores.reward_model_prefers_preferred(reward_model_scores).as_result(dg.AssetCheckSeverity.WARN)


table_checks = [checks.table_check(name, TABLES[name]) for name in ("preference_pairs", "reward_model_scores", "token_budget")]
conserved = pair_checks.conserved_check("preference_pairs")
decontaminated = pair_checks.decontaminated_check("preference_pairs", profiles.current().pairs.decontamination)
held_out = checks.no_held_out_user_in_training_check("preference_pairs")
differs = checks.chosen_differs_from_rejected_check("preference_pairs")
precedes = checks.personas_precede_use_check("preference_pairs")
manifest_checks = [
    checks.manifest_check("checkpoints", checks.step0_loss_is_ln2),
    checks.manifest_check("checkpoints", checks.nothing_lost),
    checks.manifest_check("checkpoints", checks.only_replies_carry_loss),
    checks.manifest_check("checkpoints", checks.chosen_likelihood_holds, is_blocking=False),
    checks.manifest_check("checkpoints", checks.no_memorisation, is_blocking=False),
    checks.manifest_check("reward_model", checks.nothing_lost, by_recipe=False),
    checks.manifest_check("reward_model", checks.no_memorisation, by_recipe=False, is_blocking=False),
]
forgotten = [checks.trained_on_nobody_forgotten_check(name) for name in ("checkpoints", "reward_model")]
