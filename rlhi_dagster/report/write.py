"""Filling the report from the lake and writing it; what the page looks like is not said here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import polars as pl

from rlhi_dagster.base.aside import put
from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.failures import NotMadeError
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import JUDGEMENTS
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.evaluation.scores import comparisons
from rlhi_dagster.profiles import Profile
from rlhi_dagster.report.data import ReportData
from rlhi_dagster.report.page import render
from rlhi_dagster.training import artefacts, recipes

SIMULATED = (
    "Users, their preferences, their messages and the logged replies are simulated: a town in which every user has a hidden "
    "preference for answer length, format, tone and language, and asks for it when a reply lacks it. The judge named town knows "
    "these preferences; no other step does. Everything else is computed for real: labels, personas, regenerated replies, rewrites, "
    "candidates, the reward model, training and every interval, with a policy of under two million parameters. The "
    "numbers say whether the method and this code work on users that behave as described; they say nothing about people or about "
    "large models."
)
VILLAGE = (
    "Users, their preferences and their messages are simulated: a village in which every user has hidden preferences for what replies look "
    "like, which code can check, and complains when a reply misses one, plainly or not. The logged replies were written by the language "
    "model that is the policy here. The judge named village knows the preferences; no other step does. Everything else is computed for "
    "real, with a small language model that people know. The numbers say what the method does for such users, not for people."
)
_TABLES = [
    "scores",
    "benchmark_scores",
    "judgements",
    "judge_quality",
    "eval_prompts",
    "responses",
    "reattempt_rates",
    "contextual_diversity",
    "feedback_labels",
    "unmet_wishes",
    "rewrites",
    "rewrite_pairs",
    "reward_pairs",
    "explicit_pairs",
    "candidate_rewards",
    "preference_pairs",
]
NUMBERS_VERSION = 1
"""Of the layout of the JSON file; it goes up when a field is renamed, or means something else."""
NUMBERS = ("scores", "judge_quality", "benchmark_scores", "reattempt_rates", "contextual_diversity")
"""Tables that are in the JSON file as they are."""
_LOGS = ["conversations", "users", "quarantine", "turns"]
"""Tables of which only counts or a few rows are shown."""


def write_report(profile: Profile, lake: Lake) -> tuple[Path, pl.DataFrame]:
    """Write ``report/index.html``, and its numbers as JSON beside it, from whatever tables are there; return page and comparisons."""
    frames: dict[str, pl.DataFrame] = {}
    logs: dict[str, pl.LazyFrame] = {}
    for name in (*_TABLES, *_LOGS):
        try:
            scanned = lake.scan(name)
        except NotMadeError:
            continue  # the section says what is missing
        if name in _LOGS:
            logs[name] = scanned
        else:
            frames[name] = scanned.collect()
    arms = profile.arms
    versions = {name: fingerprint(frame)[:12] for name, frame in frames.items() if name in {"preference_pairs", "eval_prompts"}}
    data = ReportData(
        headline={
            "Profile": profile.name,
            "Source": f"{profile.source.name} ({'simulated' if profile.truth else 'logs'})",
            "Seed": str(profile.seed),
            **{f"Data version of {name}": version for name, version in versions.items()},
        },
        simulated=_simulated(profile),
        deviations=[*profile.deviations(), *recipes.deviations(arms, profile.max_pairs)],
        recipes=arms,
        checkpoints=checkpoint_manifests(lake, profile),
        min_users=profile.unmet_wishes.min_users,
        show_samples=profile.truth is not None,
        **cast("dict[str, Any]", frames | logs),
    )
    folder = lake.artefact_path("report")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "index.html"
    put(file, render(data))
    compared = comparisons(frames.get("judgements", JUDGEMENTS.empty()), recipes.comparisons(arms))
    _write_numbers(folder / "report.json", data, frames, compared)
    return file, compared


def _write_numbers(file: Path, data: ReportData, frames: Mapping[str, pl.DataFrame], compared: pl.DataFrame) -> None:
    """Write what other programs read of the report: no text of conversations is in it."""
    numbers = {
        "version": NUMBERS_VERSION,
        "headline": dict(data.headline),
        "deviations": list(data.deviations),
        "recipes": {
            name: {"role": recipe.role.value, "family": recipe.family, "model": _model(data.checkpoints.get(name, {}))}
            for name, recipe in data.recipes.items()
        },
        "comparisons": compared.to_dicts(),
        **{name: frames[name].to_dicts() for name in NUMBERS if name in frames},
    }
    put(file, json.dumps(numbers, indent=1, allow_nan=False) + "\n")


def _model(manifest: Mapping[str, Any]) -> str | None:
    """Which weights a checkpoint has; ``None`` where there is none."""
    model = manifest.get("model")
    return model and ModelRef(model["name"], model["revision"]).identity


def checkpoint_manifests(lake: Lake, profile: Profile) -> dict[str, dict[str, object]]:
    """Manifests of the checkpoints that are there, by recipe."""
    found = {name: artefacts.manifest(lake.artefact_path("checkpoints", name)) for name in profile.arms}
    return {name: manifest for name, manifest in found.items() if manifest}


def _simulated(profile: Profile) -> str:
    """What is made up in a simulated source; nothing of a real one."""
    if not profile.truth:
        return ""
    return VILLAGE if "village" in {player.program for player in profile.players("judge")} else SIMULATED
