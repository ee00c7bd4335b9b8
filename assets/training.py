"""From preference pairs to checkpoints: the starting policy, the reward model, the union of pairs, and a checkpoint per recipe."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata, profiles
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.preferences import union
from rlhi_dagster.resources import Settings, TrainingRun, Workers
from rlhi_dagster.tables import TABLES
from rlhi_dagster.training import artefacts, pair_sets, recipes
from rlhi_dagster.training.curves import curves

GROUP = "training"
_SHOWN = ("pairs", "validation_pairs", "pairs_too_long", "dialogues", "parameters", "seconds")


@declare.artefact("policy", GROUP, {"huggingface", "pytorch"}, pool="model")
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
        manifest = workers.train(context, "train_policy", [run])["town-policy"]
    return _trained(manifest, out)


@declare.artefact("reward_model", GROUP, {"huggingface", "pytorch"}, deps=["policy"], pool="model")
def reward_model(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, rewrite_pairs: pl.LazyFrame
) -> dg.MaterializeResult[None]:
    """One artefact: the reward model, a pinned Hub revision or one trained here.

    The one trained here is a persona-conditioned Bradley-Terry model on the kept rewrite pairs of opening requests; it starts
    from the policy.
    """
    profile, out = settings.profile, lake.artefact_path("reward_model")
    if profile.reward.hub_model:
        return _trained(
            artefacts.refer(out, artefacts.hub_model(profile.reward.hub_model, profile.reward.hub_revision), method="none"), out
        )
    assert profile.reward.training
    pairs, validation = pair_sets.reward_model_sets(
        rewrite_pairs.collect(), profile.validation_fraction, profile.reward.max_pairs, profile.seed, profile.reward.persona_placement
    )
    if pairs.is_empty():
        raise dg.Failure("no kept rewrite pair to train the reward model on: see the drop reasons of rewrite_pairs", allow_retries=False)
    start = ModelRef.from_manifest(lake.artefact_path("policy"))
    run = TrainingRun("reward-model", "reward", start, pairs, validation, profile.reward.training, out, {})
    return _trained(workers.train(context, "train_preferences", [run])["reward-model"], out)


@declare.table("preference_pairs", GROUP, set())
def preference_pairs(
    settings: Settings, rewrite_pairs: pl.LazyFrame, reward_pairs: pl.LazyFrame, reasoning_pairs: pl.LazyFrame, eval_prompts: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a preference pair ready for training, with its provenance: deduplicated, decontaminated, split by user."""
    pairs, counts = union.preference_pairs(
        rewrite_pairs.collect(),
        reward_pairs.collect(),
        reasoning_pairs.collect(),
        eval_prompts.collect(),
        settings.profile.validation_fraction,
    )
    by_source = dict(pairs.group_by("source").len().sort("source").iter_rows())
    return metadata.result(
        "preference_pairs",
        pairs,
        train_pairs=int((pairs["split"] == "train").sum()),
        fates=metadata.bars(counts),
        pairs_by_source=metadata.bars(by_source),
    )


@declare.artefact("checkpoints", GROUP, {"huggingface", "pytorch"}, by_recipe=True, deps=["policy"], pool="model")
def checkpoints(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, preference_pairs: pl.LazyFrame
) -> dg.MaterializeResult[None]:
    """One artefact a recipe: a trained policy with its manifest, curves and gates; all recipes use equally many pairs."""
    profile, pairs = settings.profile, preference_pairs.collect()
    everything = {name: recipes.load(name) for name in recipes.names()}
    count = pair_sets.equal_count(pairs, everything, profile.max_pairs)
    validation_count = round(count * profile.validation_fraction)
    start = ModelRef.from_manifest(lake.artefact_path("policy"))
    runs = []
    for name in context.partition_keys:
        recipe, out = everything[name], lake.artefact_path("checkpoints", name)
        if recipe.method == "none":
            artefacts.refer(out, start, method="none")
            continue
        rows = pair_sets.pair_set(pairs, recipe, "train", count, profile.seed)
        if len(rows) < count or not count:
            raise dg.Failure(f"recipe {name}: {len(rows)} training pairs of source {recipe.source}, {count} needed", allow_retries=False)
        trained = profile.training_of(recipe).model_copy(update=recipe.settings)
        validation = pair_sets.pair_set(pairs, recipe, "validation", validation_count, profile.seed)
        runs.append(TrainingRun(name, recipe.method, start, rows, validation, trained, out, {"persona": recipe.persona}))
    manifests = workers.train(context, "train_preferences", runs)
    for name, manifest in manifests.items():
        context.add_asset_metadata({"step0_loss": manifest.get("step0_loss"), "seconds": manifest["seconds"]}, partition_key=name)
    versions = {name: _manifest(lake.artefact_path("checkpoints", name))["model"]["revision"] for name in context.partition_keys}
    version = dg.DataVersion(artefacts.joint_version(versions))
    return dg.MaterializeResult(
        data_version=version, metadata={"pairs_per_recipe": count, **({"curves": metadata.plot(curves(manifests))} if manifests else {})}
    )


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def _trained(manifest: dict[str, Any], out: Path) -> dg.MaterializeResult[None]:
    shown: dict[str, Any] = {name: manifest[name] for name in _SHOWN if name in manifest}
    validation = {f"validation/{name}": value for name, value in manifest.get("validation", {}).items()}
    drawn: dict[str, Any] = {"curves": metadata.plot(curves({out.name: manifest}))} if manifest.get("steps") else {}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest["model"]["revision"]),
        metadata={"path": dg.MetadataValue.path(out), "model": manifest["model"]["name"], **shown, **validation, **drawn},
    )


table_checks = [checks.table_check("preference_pairs", TABLES["preference_pairs"])]
held_out = checks.no_held_out_user_in_training_check("preference_pairs")
differs = checks.chosen_differs_from_rejected_check("preference_pairs")
precedes = checks.personas_precede_use_check("preference_pairs")
step0 = checks.step0_loss_is_ln2_check("checkpoints")
