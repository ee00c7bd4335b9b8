"""Properties that the tables and checkpoints must have, as pure functions, and the asset checks made of them.

What belongs here: a property as a function of frames that returns a ``Finding`` with its numbers, and a factory that turns it into an
asset check named after the property. What does not: thresholds that a profile sets, and checks of one asset only (its module).

A check of a partitioned asset looks at the partitions of its run, or at every partition present when it runs on its own; its other
inputs are complete (``io_managers.TableIOManager``). Every property fails on what it cannot verify: unknown users, persona lines, turns
and missing manifests count against it.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import dagster as dg
import polars as pl

from rlhi_dagster.engines.models import MANIFEST
from rlhi_dagster.forgetting.marks import Mark, marks
from rlhi_dagster.lake import Lake
from rlhi_dagster.partitions import partitions_of_run
from rlhi_dagster.personas.versions import CORRECTION
from rlhi_dagster.tables import Table
from rlhi_dagster.training import gates

MALFORMED_LIMIT = 0.02


@dataclass(frozen=True, slots=True)
class Finding:
    """What a property function found.

    Attributes:
        passed: Whether the property holds.
        numbers: What was counted, under stable keys; reported either way.
    """

    passed: bool
    numbers: Mapping[str, Any]

    def as_result(self, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR) -> dg.AssetCheckResult:
        """The finding as Dagster wants it."""
        return dg.AssetCheckResult(passed=self.passed, metadata=dict(self.numbers), severity=severity)


def matches_table(frame: pl.LazyFrame, table: Table) -> Finding:
    """Columns and types are as declared, in every file; the key has neither nulls nor duplicates."""
    found = frame.collect_schema()
    wrong = [name for name, dtype in table.schema.items() if found.get(name) != dtype]
    extra = [name for name in found if name not in table.columns]
    if wrong or extra:
        return Finding(False, {"missing_or_mistyped": wrong, "undeclared": extra})
    key_nulls = pl.any_horizontal(pl.col(name).is_null() for name in table.unique).sum().cast(pl.Int64)
    try:
        # Counting the nulls of every column reads every file in full: one written with another schema cannot hide behind the first.
        frame.select(pl.all().null_count()).collect(engine="streaming")
        keys = frame.group_by(table.unique).len()
        rows, distinct = keys.select(pl.col("len").sum().cast(pl.Int64), pl.len().alias("keys")).collect(engine="streaming").row(0)
        nulls = frame.select(key_nulls).collect(engine="streaming").item()
    except (pl.exceptions.SchemaError, pl.exceptions.ColumnNotFoundError) as error:
        return Finding(False, {"unreadable": str(error).splitlines()[0]})
    return Finding(nulls == 0 and rows == distinct, {"rows": rows, "key_nulls": nulls, "duplicate_rows": rows - distinct})


def rows_are_conserved(counted: Mapping[str, int], accepted: pl.LazyFrame, quarantined: pl.LazyFrame) -> Finding:
    """Of each month, the source's rows are the accepted ones and the quarantined ones: none lost, none made up.

    Args:
        counted: Rows in the source by month.
        accepted: Accepted rows; column ``month``.
        quarantined: Rejected rows; column ``month``.
    """
    kept, rejected = _by_month(accepted), _by_month(quarantined)
    months = sorted({*counted, *kept, *rejected})
    off = [month for month in months if counted.get(month, 0) != kept.get(month, 0) + rejected.get(month, 0)]
    numbers = {"source_rows": sum(counted.values()), "accepted_rows": sum(kept.values()), "quarantined_rows": sum(rejected.values())}
    return Finding(not off, {**numbers, "months_off": off})


def personas_precede_use(rows: pl.LazyFrame, personas: pl.LazyFrame, turns: pl.LazyFrame) -> Finding:
    """Every persona line shown at a turn, and every message that supports it, is from before that turn.

    A line that is unknown, or that no known message supports, does not pass. A user's own correction needs no message: it is known from
    its ``valid_from`` on.

    Args:
        rows: Columns ``asked_at`` and ``persona_line_ids``.
        personas: Columns ``persona_line_id``, ``valid_from``, ``evidence`` and ``writer``.
        turns: Columns ``turn_id`` and ``asked_at``; all turns, for the evidence may lie in any month.
    """
    used = rows.select(pl.col("persona_line_ids").alias("persona_line_id"), pl.col("asked_at").alias("used_at"))
    uses = used.explode("persona_line_id", empty_as_null=True).drop_nulls("persona_line_id").unique()
    lines = personas.select("persona_line_id", "valid_from", "evidence", "writer")
    met = uses.join(lines, on="persona_line_id", how="left").collect(engine="streaming")
    said = turns.select(pl.col("turn_id").alias("evidence"), pl.col("asked_at").alias("said_at"))
    cited = met.lazy().explode("evidence", empty_as_null=True).join(said, on="evidence", how="left").collect(engine="streaming")
    is_own_word = (pl.col("writer") == CORRECTION) & pl.col("evidence").is_null()
    known = cited.filter(pl.col("valid_from").is_not_null() & ~is_own_word.fill_null(False))
    counts = {
        "unknown_lines": met["valid_from"].null_count(),
        "undated_uses": met["used_at"].null_count(),
        "late_lines": met.filter(pl.col("valid_from") >= pl.col("used_at")).height,
        "unknown_evidence": known.filter(pl.col("said_at").is_null()).height,
        "late_evidence": known.filter(pl.col("said_at") >= pl.col("used_at")).height,
    }
    return Finding(not any(counts.values()), {"uses": len(met), **counts})


def no_held_out_user_in_training(pairs: pl.LazyFrame, users: pl.LazyFrame) -> Finding:
    """No pair comes from a held-out user, or from a user whose split is unknown; pairs without a user are not concerned.

    Args:
        pairs: Column ``user_id``.
        users: Columns ``user_id`` and ``split``.
    """
    joined = pairs.select("user_id").drop_nulls().join(users.select("user_id", "split"), on="user_id", how="left")
    counts = dict(joined.group_by("split").len().collect(engine="streaming").iter_rows())
    held_out, training = counts.get("held_out", 0), counts.get("train", 0)
    rows = sum(counts.values())
    unknown = rows - held_out - training
    return Finding(held_out + unknown == 0, {"pairs_of_users": rows, "held_out_pairs": held_out, "unknown_user_pairs": unknown})


def chosen_differs_from_rejected(pairs: pl.LazyFrame) -> Finding:
    """In every kept pair, both replies are there and differ in more than white space.

    Args:
        pairs: Columns ``chosen``, ``rejected`` and ``is_kept``; a pair of which that is unknown counts as kept.
    """
    kept = pairs.filter(pl.col("is_kept").fill_null(True))
    chosen, rejected = (pl.col(name).str.replace_all(r"\s+", " ").str.strip_chars() for name in ("chosen", "rejected"))
    missing = (chosen.fill_null("") == "") | (rejected.fill_null("") == "")
    rows, same, empty = (
        kept.select(pl.len(), (~missing & (chosen == rejected)).sum().alias("same"), missing.sum().alias("empty"))
        .collect(engine="streaming")
        .row(0)
    )
    return Finding(same + empty == 0, {"kept_pairs": rows, "identical_pairs": same, "pairs_with_an_empty_side": empty})


def requests_are_accounted_for(pairs: pl.LazyFrame, candidates: pl.LazyFrame) -> Finding:
    """Every request with candidates has a row for each persona condition, kept or dropped, and no other request has one.

    Args:
        pairs: Columns ``turn_id`` and ``condition``.
        candidates: Column ``turn_id``.
    """
    conditions = pl.LazyFrame({"condition": ["own", "shuffled", "none"]})
    requests = candidates.select("turn_id").unique()
    missing = requests.join(conditions, how="cross").join(pairs, on=["turn_id", "condition"], how="anti")
    unknown = pairs.select("turn_id").unique().join(requests, on="turn_id", how="anti")
    count, lost, extra = (frame.select(pl.len()).collect(engine="streaming").item() for frame in (requests, missing, unknown))
    return Finding(lost + extra == 0, {"requests": count, "missing_pairs": lost, "unknown_requests": extra})


def rewrites_are_conserved(rewrites: pl.LazyFrame, pairs: pl.LazyFrame) -> Finding:
    """Every rewrite is one pair with the same text, and every pair is either kept or dropped with a reason.

    Args:
        rewrites: Columns ``rewrite_id`` and ``rewrite``.
        pairs: Columns ``pair_id``, ``chosen``, ``is_kept`` and ``drop_reasons``.
    """
    made = rewrites.select("rewrite_id", pl.col("rewrite").fill_null(""), pl.lit(True).alias("is_rewrite"))
    joined = made.join(pairs.with_columns(is_pair=pl.lit(True)), left_on="rewrite_id", right_on="pair_id", how="full", coalesce=True)
    both = pl.col("is_rewrite") & pl.col("is_pair")
    has_reason = pl.col("drop_reasons").list.len().fill_null(0) > 0
    numbers = joined.select(
        kept_pairs=pl.col("is_kept").sum(),
        dropped_pairs=(~pl.col("is_kept")).sum(),
        lost_rewrites=pl.col("is_pair").is_null().sum(),
        pairs_of_no_rewrite=pl.col("is_rewrite").is_null().sum(),
        changed_rewrites=(both & pl.col("rewrite").ne_missing(pl.col("chosen"))).sum(),
        repeated_pairs=pl.len() - pl.col("rewrite_id").n_unique(),
        undecided_pairs=(pl.col("is_pair") & pl.col("is_kept").eq_missing(has_reason)).sum(),
    )
    found = numbers.select(pl.all().cast(pl.Int64)).collect(engine="streaming").row(0, named=True)
    faults = ("lost_rewrites", "pairs_of_no_rewrite", "changed_rewrites", "repeated_pairs", "undecided_pairs")
    return Finding(not any(found[name] for name in faults), found)


def orders_are_balanced(judgements: pl.LazyFrame) -> Finding:
    """Every pair that a judge compared was judged exactly once in each order.

    Args:
        judgements: Columns ``recipe``, ``prompt_id``, ``opponent``, ``judge`` and ``order``.
    """
    compared = judgements.group_by("recipe", "prompt_id", "opponent", "judge")
    first, second = (pl.col("order").eq_missing(order).sum() for order in ("recipe_first", "opponent_first"))
    off = (pl.len() != 2) | (first != 1) | (second != 1)
    pairs, unbalanced = compared.agg(off.alias("off")).select(pl.len(), pl.col("off").sum()).collect(engine="streaming").row(0)
    return Finding(unbalanced == 0, {"judged_pairs": pairs, "unbalanced_pairs": unbalanced})


def step0_loss_is_ln2(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """Before its first update, a policy trained with DPO equals its reference, so that its loss is ln 2.

    Args:
        manifests: Recipe to the checkpoint's manifest; ``None`` where there is none. Those whose ``method`` is ``dpo`` are looked at:
            their ``step0_loss`` is the DPO term alone, without any SFT term.
    """
    missing = sorted(recipe for recipe, manifest in manifests.items() if manifest is None)
    known = {recipe: manifest for recipe, manifest in manifests.items() if manifest is not None}
    losses = {recipe: manifest.get("step0_loss") for recipe, manifest in known.items() if manifest.get("method") == "dpo"}
    off = sorted(recipe for recipe, loss in losses.items() if not _is_ln2(loss))
    found = {f"step0_loss/{recipe}": loss for recipe, loss in losses.items() if _is_finite(loss)}
    numbers = {"dpo_recipes": len(losses), "recipes_off": off, "recipes_without_manifest": missing, **found}
    return Finding(not off and not missing, numbers)


def chosen_likelihood_holds(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """In the snapshot that was kept, held-out preferred replies are not much less likely than at the start (likelihood displacement).

    Args:
        manifests: Recipe to the checkpoint's manifest; ``None`` where there is none. Those whose ``method`` is ``dpo`` are looked at. One
            that does not know its displacement, for want of held-out pairs, does not pass. The worst of all snapshots is reported, too.
    """
    return _within_bound(manifests, "displacement", ("dpo",))


def no_memorisation(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """In the snapshot that was kept, the loss on held-out users is not much above the loss in training.

    Args:
        manifests: As of `chosen_likelihood_holds`; of every method that trains on pairs.
    """
    return _within_bound(manifests, "memorisation", ("sft", "dpo", "reward"))


def nothing_lost(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """The pairs that were trained on are those that were drawn without those that are too long.

    Args:
        manifests: As of `no_memorisation`. Drawn pairs were counted by who drew them, trained ones by the trainer.
    """
    missing, known = _trained_on_pairs(manifests, ("sft", "dpo", "reward"))
    counts = {
        name: (each.get("data", {}).get("pairs"), each.get("trained_rows"), each.get("pairs_too_long")) for name, each in known.items()
    }
    known_counts = {name: counted for name, counted in counts.items() if None not in counted}
    lost = {name: drawn - trained - too_long for name, (drawn, trained, too_long) in known_counts.items()}
    off = sorted(name for name in counts if lost.get(name) != 0)
    numbers = {f"pairs_lost/{name}": pairs for name, pairs in lost.items()}
    return Finding(not off and not missing, {"trained": len(known), "off": off, "without_manifest": missing, **numbers})


def only_replies_carry_loss(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """What carries loss was compared with the replies in every row, in training and on held-out users.

    A row that breaks the rule stops its run, so what remains to be seen is whether all rows were looked at.

    Args:
        manifests: As of `chosen_likelihood_holds`; of the methods that train on replies.
    """
    missing, known = _trained_on_pairs(manifests, ("sft", "dpo"))
    masks = {name: each.get("masks", {}) for name, each in known.items()}
    wanted = {name: {"train": each.get("trained_rows"), "validation": each.get("validation_pairs") or None} for name, each in known.items()}
    seen = {name: {split: found.get(split, {}).get("rows") for split in ("train", "validation")} for name, found in masks.items()}
    off = sorted(name for name in known if seen[name] != wanted[name] or not seen[name]["train"])
    shares = {
        f"loss_share/{name}": each["train"]["loss_tokens"] / each["train"]["tokens"] for name, each in masks.items() if name not in off
    }
    return Finding(not off and not missing, {"trained": len(known), "off": off, "without_manifest": missing, **shares})


def malformed_share_is_low(judgements: pl.LazyFrame, limit: float = MALFORMED_LIMIT) -> Finding:
    """Of each recipe's replies, at most ``limit`` are broken text.

    A recipe without a reply does not pass.

    Args:
        judgements: Columns ``recipe``, ``prompt_id`` and ``is_malformed``.
        limit: Largest share, 0 to 1.
    """
    malformed = pl.col("is_malformed")
    replies = judgements.group_by("recipe", "prompt_id").agg(malformed.any(ignore_nulls=True), malformed.count().alias("told"))
    told = pl.col("told") > 0
    shares = replies.group_by("recipe").agg(malformed.filter(told).mean().alias("share"), told.sum().cast(pl.Int64).alias("n"))
    rows = shares.sort("recipe").collect(engine="streaming").rows()
    off = [recipe for recipe, share, _ in rows if share is None or share > limit]
    found = {f"malformed_share/{recipe}": share for recipe, share, _ in rows if share is not None}
    return Finding(not off, {"limit": limit, "n": sum(n for *_, n in rows), "recipes_off": off, **found})


def trained_on_nobody_forgotten(marked: Sequence[Mark]) -> Finding:
    """No artefact was trained on pairs of a user who was forgotten since.

    Args:
        marked: The marks of artefacts; one that does not say what it was trained on does not pass either.
    """
    gone = {f"pairs_gone/{mark.artefact}": mark.gone for mark in marked if mark.gone is not None}
    return Finding(not marked, {"artefacts_to_train_again": [mark.artefact for mark in marked], **gone})


def table_check(asset: dg.AssetsDefinition | str, table: Table) -> dg.AssetChecksDefinition:
    """Block downstream assets unless the stored columns match ``table`` and its key is unique."""

    @dg.asset_check(asset=asset, name="matches_table", blocking=True, description=_first_line(matches_table))
    def check(frame: pl.LazyFrame) -> dg.AssetCheckResult:
        return matches_table(frame, table).as_result()

    return check


def conservation_check(
    accepted: dg.AssetsDefinition | str,
    quarantined: str,
    resource: str,
    count_rows: Callable[[Any, Sequence[str] | None], Mapping[str, int]],
) -> dg.AssetChecksDefinition:
    """Block unless every row of the source is either accepted or quarantined, month by month.

    Args:
        accepted: The asset of accepted rows.
        quarantined: Key of the asset of rejected rows.
        resource: Key of the resource that knows the source.
        count_rows: Given that resource and the months of the run (``None``: all), counts the source's rows by month, independently of
            the code that accepts and rejects them.
    """

    @dg.asset_check(
        asset=accepted,
        name="rows_are_conserved",
        blocking=True,
        description=_first_line(rows_are_conserved),
        additional_ins={"quarantined": dg.AssetIn(quarantined)},
        required_resource_keys={resource},
    )
    def check(context: dg.AssetCheckExecutionContext, frame: pl.LazyFrame, quarantined: pl.LazyFrame) -> dg.AssetCheckResult:
        months = _partitions(context)
        rejected = quarantined if months is None else quarantined.filter(pl.col("month").is_in(months))
        counted = count_rows(getattr(context.resources, resource), months)
        return rows_are_conserved(counted, frame, rejected).as_result()

    return check


def personas_precede_use_check(
    asset: dg.AssetsDefinition | str, personas: str = "personas", turns: str = "turns"
) -> dg.AssetChecksDefinition:
    """Block unless every persona line shown in ``asset`` was known before the turn that it was shown at."""

    @dg.asset_check(
        asset=asset,
        name="personas_precede_use",
        blocking=True,
        description=_first_line(personas_precede_use),
        additional_ins={"personas": dg.AssetIn(personas), "turns": dg.AssetIn(turns)},
    )
    def check(frame: pl.LazyFrame, personas: pl.LazyFrame, turns: pl.LazyFrame) -> dg.AssetCheckResult:
        return personas_precede_use(frame, personas, turns).as_result()

    return check


def no_held_out_user_in_training_check(asset: dg.AssetsDefinition | str, users: str = "users") -> dg.AssetChecksDefinition:
    """Block unless all users of the pairs in ``asset`` are training users."""

    @dg.asset_check(
        asset=asset,
        name="no_held_out_user_in_training",
        blocking=True,
        description=_first_line(no_held_out_user_in_training),
        additional_ins={"users": dg.AssetIn(users)},
    )
    def check(frame: pl.LazyFrame, users: pl.LazyFrame) -> dg.AssetCheckResult:
        return no_held_out_user_in_training(frame, users).as_result()

    return check


def chosen_differs_from_rejected_check(asset: dg.AssetsDefinition | str) -> dg.AssetChecksDefinition:
    """Block unless the two sides of every kept pair in ``asset`` differ."""

    @dg.asset_check(asset=asset, name="chosen_differs_from_rejected", blocking=True, description=_first_line(chosen_differs_from_rejected))
    def check(frame: pl.LazyFrame) -> dg.AssetCheckResult:
        return chosen_differs_from_rejected(frame).as_result()

    return check


def requests_are_accounted_for_check(asset: dg.AssetsDefinition | str, candidates: str = "candidates") -> dg.AssetChecksDefinition:
    """Block unless every request of ``candidates`` is in ``asset`` under every persona condition."""

    @dg.asset_check(
        asset=asset,
        name="requests_are_accounted_for",
        blocking=True,
        description=_first_line(requests_are_accounted_for),
        additional_ins={"candidates": dg.AssetIn(candidates)},
    )
    def check(context: dg.AssetCheckExecutionContext, frame: pl.LazyFrame, candidates: pl.LazyFrame) -> dg.AssetCheckResult:
        months = _partitions(context)
        sampled = candidates if months is None else candidates.filter(pl.col("month").is_in(months))
        return requests_are_accounted_for(frame, sampled).as_result()

    return check


def rewrites_are_conserved_check(asset: dg.AssetsDefinition | str, rewrites: str = "rewrites") -> dg.AssetChecksDefinition:
    """Block unless every rewrite of the run's months is a pair in ``asset``, kept or dropped with a reason."""

    @dg.asset_check(
        asset=asset,
        name="rewrites_are_conserved",
        blocking=True,
        description=_first_line(rewrites_are_conserved),
        additional_ins={"rewrites": dg.AssetIn(rewrites)},
    )
    def check(context: dg.AssetCheckExecutionContext, frame: pl.LazyFrame, rewrites: pl.LazyFrame) -> dg.AssetCheckResult:
        months = _partitions(context)
        made = rewrites if months is None else rewrites.filter(pl.col("month").is_in(months))
        return rewrites_are_conserved(made, frame).as_result()

    return check


def orders_are_balanced_check(asset: dg.AssetsDefinition | str) -> dg.AssetChecksDefinition:
    """Block unless every judged pair in ``asset`` was judged in both orders."""

    @dg.asset_check(asset=asset, name="orders_are_balanced", blocking=True, description=_first_line(orders_are_balanced))
    def check(frame: pl.LazyFrame) -> dg.AssetCheckResult:
        return orders_are_balanced(frame).as_result()

    return check


def manifest_check(
    asset: dg.AssetsDefinition | str,
    holds: Callable[[Mapping[str, Mapping[str, Any] | None]], Finding],
    *,
    by_recipe: bool = True,
    found: Callable[[Lake, Sequence[str] | None], Mapping[str, Mapping[str, Any] | None]] | None = None,
    is_blocking: bool = True,
) -> dg.AssetChecksDefinition:
    """Block, or warn, unless ``holds`` does for the manifests of ``asset``, which it reads from the resource ``lake``.

    Args:
        asset: The artefact.
        holds: Property of manifests; the check has its name.
        by_recipe: Whether the artefact has a folder for each recipe of the run; without, its manifest goes by the asset's name.
        found: Manifests of the partitions of a run, of all for ``None``, where they lie otherwise.
        is_blocking: Whether the check blocks; else it warns.
    """
    severity = dg.AssetCheckSeverity.ERROR if is_blocking else dg.AssetCheckSeverity.WARN

    @dg.asset_check(asset=asset, name=holds.__name__, blocking=is_blocking, description=_first_line(holds))
    def check(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        (checked,) = context.selected_asset_check_keys
        name = checked.asset_key.path[-1]
        if found:
            manifests = found(lake, _partitions(context))
        else:
            manifests = _manifests(lake, name, _partitions(context)) if by_recipe else {name: _manifest(lake.artefact_path(name))}
        return holds(manifests).as_result(severity)

    return check


def trained_on_nobody_forgotten_check(asset: dg.AssetsDefinition | str) -> dg.AssetChecksDefinition:
    """Warn while ``asset``, or a partition of it, carries the mark of a forgotten user; reads it from the resource ``lake``."""

    @dg.asset_check(asset=asset, name="trained_on_nobody_forgotten", description=_first_line(trained_on_nobody_forgotten))
    def check(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        (checked,) = context.selected_asset_check_keys
        name = checked.asset_key.path[-1]
        # Of all partitions, whichever the run is about: a mark stays until its checkpoint is trained again.
        marked = [mark for mark in marks(lake) if mark.artefact.split("/")[0] == name]
        return trained_on_nobody_forgotten(marked).as_result(dg.AssetCheckSeverity.WARN)

    return check


def malformed_share_is_low_check(asset: dg.AssetsDefinition | str, limit: float = MALFORMED_LIMIT) -> dg.AssetChecksDefinition:
    """Warn when more than ``limit`` of a recipe's replies in ``asset`` are broken text."""

    @dg.asset_check(asset=asset, name="malformed_share_is_low", description=_first_line(malformed_share_is_low))
    def check(frame: pl.LazyFrame) -> dg.AssetCheckResult:
        return malformed_share_is_low(frame, limit).as_result(dg.AssetCheckSeverity.WARN)

    return check


def _partitions(context: dg.AssetCheckExecutionContext) -> list[str] | None:
    """Partitions of the checked asset that the run is about; ``None`` for all."""
    (checked,) = context.selected_asset_check_keys
    return partitions_of_run(context.run.tags, context.job_def.asset_layer.get(checked.asset_key).partitions_def)


def _by_month(frame: pl.LazyFrame) -> dict[str, int]:
    return dict(frame.group_by("month").len().collect(engine="streaming").iter_rows())


def _is_finite(loss: object) -> TypeGuard[float]:
    return isinstance(loss, int | float) and math.isfinite(loss)


def _is_ln2(loss: object) -> bool:
    return _is_finite(loss) and gates.is_ln2(loss)


def _manifests(lake: Lake, asset: str, recipes: Iterable[str] | None) -> dict[str, Mapping[str, Any] | None]:
    """Manifests by recipe: of the recipes given, or of every checkpoint that is there."""
    if recipes is None:
        recipes = sorted(path.name for path in lake.artefact_path(asset).glob("*") if path.is_dir())
    return {recipe: _manifest(lake.artefact_path(asset, recipe)) for recipe in recipes}


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    file = folder / MANIFEST
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _trained_on_pairs(
    manifests: Mapping[str, Mapping[str, Any] | None], methods: Sequence[str]
) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """Names without a manifest, and the manifests of some methods by name."""
    known = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    return sorted(set(manifests) - set(known)), {name: each for name, each in known.items() if each.get("method") in methods}


def _within_bound(manifests: Mapping[str, Mapping[str, Any] | None], measure: str, methods: Sequence[str]) -> Finding:
    """Whether what the gates measured of the snapshots that were kept is known and at most the settings' ``max_<measure>``."""
    missing, known = _trained_on_pairs(manifests, methods)
    found = {name: each.get("validation", {}).get(measure) for name, each in known.items()}
    off = sorted(name for name, value in found.items() if not _is_finite(value) or value > known[name]["settings"][f"max_{measure}"])
    numbers = {f"{measure}/{name}": value for name, value in found.items() if _is_finite(value)}
    seen = {
        name: [point[f"eval_{measure}"] for point in each.get("evaluations", []) if f"eval_{measure}" in point]
        for name, each in known.items()
    }
    worst = {f"worst_{measure}/{name}": max(values) for name, values in seen.items() if values}
    passed_over = {f"passed_over/{name}": len(each.get("chosen", {}).get("passed_over", [])) for name, each in known.items()}
    told = {"trained": len(known), "off": off, "without_manifest": missing, **numbers, **worst, **passed_over}
    return Finding(not off and not missing, told)


def _first_line(function: Callable[..., Finding]) -> str:
    return (function.__doc__ or "").strip().split("\n", 1)[0]
