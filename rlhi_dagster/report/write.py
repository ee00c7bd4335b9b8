"""Filling the report from the lake and writing it; what the page looks like is not said here."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.models import MANIFEST
from rlhi_dagster.evaluation.scores import comparisons
from rlhi_dagster.profiles import Profile
from rlhi_dagster.report.data import ReportData
from rlhi_dagster.report.page import render
from rlhi_dagster.training import recipes

SIMULATED = (
    "Users, their preferences, their messages and the logged replies are simulated: a town in which every user has a hidden "
    "preference for answer length, format, tone and language, and asks for it when a reply lacks it. The judge named town knows "
    "these preferences; no other step does. Everything else is computed for real: labels, personas, regenerated replies, rewrites, "
    "candidates, the reward model, training and every interval, with a policy of under two million parameters trained here. The "
    "numbers say whether the method and this code work on users that behave as described; they say nothing about people or about "
    "large models."
)
_TABLES = [
    "scores",
    "judgements",
    "eval_prompts",
    "responses",
    "reattempt_rates",
    "contextual_diversity",
    "feedback_labels",
    "rewrites",
    "rewrite_pairs",
    "reward_pairs",
    "candidate_rewards",
    "preference_pairs",
]
_LOGS = ["conversations", "users", "quarantine"]
"""Tables of which only counts are shown."""


def write_report(profile: Profile, lake: Lake) -> tuple[Path, pl.DataFrame]:
    """Write ``report/index.html`` of the lake from whatever tables are there; return the file and the comparisons in it."""
    frames: dict[str, pl.DataFrame] = {}
    logs: dict[str, pl.LazyFrame] = {}
    for name in (*_TABLES, *_LOGS):
        try:
            scanned = lake.scan(name)
        except ValueError:
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
        simulated=SIMULATED if profile.truth else "",
        deviations=[*profile.deviations(), *recipes.deviations(arms, profile.max_pairs)],
        recipes=arms,
        checkpoints=checkpoint_manifests(lake, profile),
        show_samples=profile.truth is not None,
        **frames,
        **logs,
    )
    folder = lake.artefact_path("report")
    folder.mkdir(parents=True, exist_ok=True)
    file, partial = folder / "index.html", folder / ".index.html.partial"
    partial.write_text(render(data), encoding="utf-8")
    partial.replace(file)
    return file, comparisons(frames["judgements"], recipes.comparisons(arms))


def checkpoint_manifests(lake: Lake, profile: Profile) -> dict[str, dict[str, object]]:
    """Manifests of the checkpoints that are there, by recipe."""
    files = {name: lake.artefact_path("checkpoints", name) / MANIFEST for name in profile.arms}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
