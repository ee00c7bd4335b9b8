"""Properties of the manifests of what was trained.

What belongs here: a property as a function of manifests, and where an artefact's manifests lie. What does not: the limits (``gates.py`` and
the settings that a manifest carries).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.training import artefacts, gates


def step0_loss_is_ln2(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """Before its first update, a policy trained with DPO equals its reference, so that its loss is ln 2.

    Args:
        manifests: Recipe to the checkpoint's manifest; ``None`` where there is none. Those whose ``method`` is ``dpo`` are looked at:
            their ``step0_loss`` is the DPO term alone, without any SFT term.
    """
    return _starts_at(manifests, "dpo", gates.is_ln2)


def step0_loss_is_half(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """Before its first update, a policy trained with KTO equals its reference, so that its loss is half an example's weight.

    Args:
        manifests: As of `step0_loss_is_ln2`. Those whose ``method`` is ``kto`` are looked at.
    """
    return _starts_at(manifests, "kto", gates.is_half)


def chosen_likelihood_holds(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """In the snapshot that was kept, held-out preferred replies are not much less likely than at the start (likelihood displacement).

    Args:
        manifests: Recipe to the checkpoint's manifest; ``None`` where there is none. Those whose ``method`` is ``dpo`` or ``kto`` are
            looked at. One that does not know its displacement, for want of held-out rows, does not pass. The worst of all snapshots is
            reported, too.
    """
    return _within_bound(manifests, "displacement", ("dpo", "kto"))


def no_memorisation(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """In the snapshot that was kept, the loss on held-out users is not much above the loss in training.

    Args:
        manifests: As of `chosen_likelihood_holds`; of every method that trains on pairs.
    """
    return _within_bound(manifests, "memorisation", ("sft", "dpo", "kto", "sdpo", "reward"))


def nothing_lost(manifests: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """The pairs that were trained on are those that were drawn without those that are too long.

    Args:
        manifests: As of `no_memorisation`. Drawn pairs were counted by who drew them, trained ones by the trainer.
    """
    missing, known = _trained_on_pairs(manifests, ("sft", "dpo", "kto", "sdpo", "reward"))
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
    missing, known = _trained_on_pairs(manifests, ("sft", "dpo", "kto", "sdpo"))
    masks = {name: each.get("masks", {}) for name, each in known.items()}
    wanted = {name: {"train": each.get("trained_rows"), "validation": each.get("validation_pairs") or None} for name, each in known.items()}
    seen = {name: {split: found.get(split, {}).get("rows") for split in ("train", "validation")} for name, found in masks.items()}
    off = sorted(name for name in known if seen[name] != wanted[name] or not seen[name]["train"])
    shares = {
        f"loss_share/{name}": each["train"]["loss_tokens"] / each["train"]["tokens"] for name, each in masks.items() if name not in off
    }
    return Finding(not off and not missing, {"trained": len(known), "off": off, "without_manifest": missing, **shares})


def manifests(lake: Lake, asset: str, recipes: Iterable[str] | None) -> dict[str, Mapping[str, Any] | None]:
    """Manifests by recipe: of the recipes given, or of every one that is there; ``None`` where there is none."""
    if recipes is None:
        recipes = sorted(path.name for path in lake.artefact_path(asset).glob("[!.]*") if path.is_dir())
    return {recipe: artefacts.manifest(lake.artefact_path(asset, recipe)) for recipe in recipes}


def _is_finite(loss: object) -> TypeGuard[float]:
    return isinstance(loss, int | float) and math.isfinite(loss)


def _starts_at(manifests: Mapping[str, Mapping[str, Any] | None], method: str, is_right: Callable[[float], bool]) -> Finding:
    missing, known = _trained_on_pairs(manifests, (method,))
    losses = {recipe: manifest.get("step0_loss") for recipe, manifest in known.items()}
    off = sorted(recipe for recipe, loss in losses.items() if not (_is_finite(loss) and is_right(loss)))
    found = {f"step0_loss/{recipe}": loss for recipe, loss in losses.items() if _is_finite(loss)}
    numbers = {f"{method}_recipes": len(losses), "recipes_off": off, "recipes_without_manifest": missing, **found}
    return Finding(not off and not missing, numbers)


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
