"""The recipes of the profile in use trained with several seeds on the same pairs, and their table with intervals.

What belongs here: runs of the job ``training`` that differ in nothing but the seed of data order, and means with intervals over users and
seeds. What does not: thresholds; the results are recorded in ``docs/results/town.md``. Run after ``RLHI_PROFILE=town make demo``, which
makes the preference data of all recipes: ``RLHI_PROFILE=town python benchmarks/town_seeds.py --out FOLDER``; a seed is run again where
profile, preference data, models or code are not those that its last run was made from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.intervals import estimate_over_seeds
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.models import ModelRef, digest_of
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.scores import item_values
from rlhi_dagster.graph import jobs
from rlhi_dagster.graph.declare import Place
from rlhi_dagster.profiles import files
from rlhi_dagster.training import recipes
from rlhi_dagster.training.recipes import BASE

TRAININGS = ("sft", "dpo", "dpo_on_rewards", "sdpo")
TABLES, MODELS = ("personas", "preference_pairs", "thumb_examples", "follow_up_examples", "turns", "users"), ("policy", "reward_model")
"""What the job ``training`` reads and does not make; its report shows further tables where they are there."""
SOURCES = ("rlhi_dagster", "assets")


def made_from(profile: Path, lake: Lake) -> dict[str, str]:
    """Digests of all that determines a run's result: its profile, the tables and models in ``lake``, and the package's source."""
    sources = sorted(
        file
        for folder in SOURCES
        for file in (profiles.ROOT / folder).rglob("*")
        if file.is_file() and not {"__pycache__", "profiles"} & set(file.parent.parts[len(profiles.ROOT.parts) :])
    )
    code = [(str(file.relative_to(profiles.ROOT)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in sources]
    return {
        "profile": digest_of(profile.read_text()),
        "code": digest_of(*code),
        **{name: fingerprint(lake.scan(name).collect()) for name in TABLES},
        **{name: ModelRef.from_manifest(lake.artefact_path(name)).identity for name in MODELS},
    }


def prepare(root: Path, source: Path, wanted: dict[str, str]) -> str | None:
    """Put a copy of ``source`` without anything that the job makes under ``root``, unless one made from the same is there.

    Returns:
        Why what was there is gone; ``None`` if it stays, or nothing was there.
    """
    marker = root / "made_from.json"
    before = json.loads(marker.read_text()) if marker.is_file() else {}
    differ = sorted(name for name in wanted.keys() | before.keys() if wanted.get(name) != before.get(name))
    if not differ:
        return None
    had_run = (root / "lake").exists()
    for file in (marker, root / "finished"):
        file.unlink(missing_ok=True)
    for name in ("lake", "responses"):
        shutil.rmtree(root / name, ignore_errors=True)
    made = [key.to_user_string() for key in jobs.training(Place(profiles.load("sample"))).selection.selected_keys]
    shutil.copytree(source / "lake", root / "lake", copy_function=os.link, ignore=shutil.ignore_patterns(*made))
    shutil.copytree(source / "responses", root / "responses", copy_function=os.link)
    marker.write_text(json.dumps(wanted, indent=1))
    if not had_run:
        return None
    return f"{', '.join(differ)} changed since" if before else "nothing says what the run there was made from"


def in_use() -> dict[str, Any]:
    """The settings of the environment's profile, as one file would spell them."""
    return files.read(os.environ.get("RLHI_PROFILE", "sample"))[1]


def trained(seed: int, out: Path, names: list[str]) -> Lake:
    """The lake of a finished run with this seed, made if it is not there: a copy of the run in use, and what was trained on its pairs."""
    profile, source = out / f"seed-{seed}.yaml", profiles.data_root()
    settings = in_use() | {"extends": None}
    profile.write_text(yaml.safe_dump(settings | {name: settings[name] | {"seed": seed} for name in TRAININGS}, sort_keys=False))
    environment = os.environ | {"RLHI_DATA": str(out), "RLHI_PROFILE": str(profile)}
    root = profiles.data_root(environment)
    if why := prepare(root, source, made_from(profile, Lake(root=str(source / "lake")))):
        print(f"seed {seed} is trained again: {why}", file=sys.stderr)
    done = root / "finished"
    if not done.is_file():
        programs = Path(sys.executable).parent
        home = subprocess.check_output([programs / "rlhi", "home"], env=environment, text=True).strip()
        command = [programs / "dg", "launch", "--job", "training", "--partition-range", f"{min(names)}...{max(names)}"]
        subprocess.run(command, env=environment | {"DAGSTER_HOME": home}, check=True, cwd=profiles.ROOT)
        done.touch()
    return Lake(root=str(root / "lake"))


def told(rows: pl.DataFrame, column: str, form: str, *, is_share: bool) -> tuple[str, str, str]:
    """A mean over users and seeds with its interval, the means of the seeds, and which parts of the variance are of users and of seeds."""
    found = estimate_over_seeds(rows[column], rows["cluster"], rows["seed"].cast(pl.String), is_share=is_share)
    mean, parts = found.mean, (found.users, found.seeds, found.interaction)
    assert mean.value is not None
    interval = "" if mean.ci_low is None else f" [{mean.ci_low:{form}}, {mean.ci_high:{form}}]"
    shares = ", ".join(f"{part / sum(parts):.0%}" for part in parts) if sum(parts) else "–"
    return f"{mean.value:{form}}{interval}", ", ".join(f"{value:{form}}" for value in found.by_seed), shares


def paired(items: pl.DataFrame, left: str, right: str, metric: str) -> pl.DataFrame:
    """Differences of two recipes by seed and request."""
    sides = (items.filter(recipe=name).select("prompt_id", "cluster", "seed", metric) for name in (left, right))
    both = next(sides).join(next(sides), on=["prompt_id", "cluster", "seed"], suffix="_other").sort("seed", "prompt_id")
    return both.with_columns(difference=pl.col(metric) - pl.col(f"{metric}_other"))


def main() -> None:
    """Run what is missing and print the tables in Markdown."""
    parser = argparse.ArgumentParser(description="The sample's recipes over several training seeds.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds, two at least (default 0 1 2)")
    given = parser.parse_args()
    out, arms = given.out.absolute(), profiles.current().arms
    out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in given.seeds:
        found = item_values(trained(seed, out, list(arms)).scan("judgements").filter(benchmark=Benchmark.USER_EVAL.value).collect())
        runs.append(found.with_columns(seed=pl.lit(seed)))
    items, metric, malformed = pl.concat(runs), Metric.ALL_PREFERENCES_MET.value, Metric.MALFORMED.value
    worst = items.group_by("recipe", "seed").agg(pl.col(malformed).mean()).group_by("recipe").agg(pl.col(malformed).max())
    users, requests = items["cluster"].n_unique(), items["prompt_id"].n_unique()
    print(f"{requests} requests of {users} users, {len(given.seeds)} training seeds; intervals over users and seeds\n")
    print("| recipe | all preferences met | by seed | minus `base` | variance of that: users, seeds, both | malformed, worst seed |")
    print("|---|---|---|---|---|---|")
    for name in arms:
        value, by_seed, _ = told(items.filter(recipe=name).sort("seed", "prompt_id"), metric, ".3f", is_share=True)
        gain, _, shares = ("–",) * 3 if name == BASE else told(paired(items, name, BASE, metric), "difference", "+.3f", is_share=False)
        print(f"| `{name}` | {value} | {by_seed} | {gain} | {shares} | {worst.filter(recipe=name)[malformed][0]:.3f} |")
    print("\n| | difference | by seed | variance: users, seeds, both |\n|---|---|---|---|")
    for left, right, _ in recipes.comparisons(arms):
        if right != BASE:
            cells = told(paired(items, left, right, metric), "difference", "+.3f", is_share=False)
            print(f"| `{left}` − `{right}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
