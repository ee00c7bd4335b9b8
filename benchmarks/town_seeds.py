"""The sample's recipes trained with several seeds on the same pairs, and their table with intervals.

What belongs here: runs of the job ``training`` that differ in nothing but the seed of data order, and means over seeds with intervals
over users. What does not: thresholds; the results are recorded in ``docs/sample.md``. Run after ``make demo``:
``python benchmarks/town_seeds.py --out FOLDER``; a seed is run again where profile, preference data, models or code are not those that its
last run was made from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import polars as pl
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.models import ModelRef, digest_of
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.scores import item_values
from rlhi_dagster.graph import jobs
from rlhi_dagster.graph.declare import Place
from rlhi_dagster.training import recipes
from rlhi_dagster.training.recipes import BASE

TRAININGS = ("sft", "dpo", "dpo_on_rewards")
TABLES, MODELS = ("personas", "preference_pairs", "turns", "users"), ("policy", "reward_model")
"""What the job ``training`` reads and does not make."""
SOURCES = ("rlhi_dagster", "assets")


def made_from(profile: Path, lake: Lake) -> dict[str, str]:
    """Digests of all that determines a run's result: its profile, the tables and models in ``lake``, and the package's source."""
    files = sorted(
        file
        for folder in SOURCES
        for file in (profiles.ROOT / folder).rglob("*")
        if file.is_file() and not {"__pycache__", "profiles"} & set(file.parent.parts[len(profiles.ROOT.parts) :])
    )
    code = [(str(file.relative_to(profiles.ROOT)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
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


def trained(seed: int, out: Path, names: list[str]) -> Lake:
    """The lake of a finished run with this seed, made if it is not there: a copy of the run in use, and what was trained on its pairs."""
    profile, source = out / f"seed-{seed}.yaml", profiles.data_root()
    settings = yaml.safe_load((profiles.ROOT / "rlhi_dagster" / "profiles" / "sample.yaml").read_text())
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


def told(values: pl.Series, users: pl.Series, form: str, *, is_share: bool) -> str:
    """A mean with its interval over users."""
    found = estimate(values, users, is_share=is_share)
    assert found.value is not None
    return f"{found.value:{form}} [{found.ci_low:{form}}, {found.ci_high:{form}}]"


def main() -> None:
    """Run what is missing and print the tables in Markdown."""
    parser = argparse.ArgumentParser(description="The sample's recipes over several training seeds.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default 0 1 2)")
    given = parser.parse_args()
    out, names = given.out.absolute(), recipes.names()
    out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in given.seeds:
        found = item_values(trained(seed, out, names).scan("judgements").filter(benchmark=Benchmark.USER_EVAL.value).collect())
        runs.append(found.with_columns(seed=pl.lit(seed)))
    metric, malformed = Metric.ALL_PREFERENCES_MET.value, Metric.MALFORMED.value
    items = pl.concat(runs)
    by_seed = items.group_by("recipe", "seed").agg(pl.col(metric).mean(), pl.col(malformed).mean())
    means = (
        items.group_by("recipe", "prompt_id", "cluster").agg(pl.col(metric).mean(), pl.col(malformed).mean()).sort("recipe", "prompt_id")
    )
    base = means.filter(recipe="base").select("prompt_id", before=metric)
    users, requests = means["cluster"].n_unique(), means["prompt_id"].n_unique()
    print(
        f"{requests} requests of {users} held-out users, {len(given.seeds)} training seeds; intervals over users of the means over seeds\n"
    )
    print("| recipe | all preferences met | by seed | minus `base` | malformed, worst seed |\n|---|---|---|---|---|")
    for name in names:
        rows = means.filter(recipe=name).join(base, on="prompt_id")
        seeds = by_seed.filter(recipe=name).sort("seed")
        gain = "–" if name == "base" else told(rows[metric] - rows["before"], rows["cluster"], "+.3f", is_share=False)
        shown = ", ".join(f"{value:.3f}" for value in seeds[metric])
        print(
            f"| `{name}` | {told(rows[metric], rows['cluster'], '.3f', is_share=True)} | {shown} | {gain} | {seeds[malformed].max():.3f} |"
        )
    print("\n| | difference | by seed |\n|---|---|---|")
    for left, right in recipes.comparisons(recipes.load_all()):
        if right == BASE:
            continue
        both = means.filter(recipe=left).join(means.filter(recipe=right), on="prompt_id", suffix="_other")
        seeds = {name: by_seed.filter(recipe=name).sort("seed")[metric] for name in (left, right)}
        shown = ", ".join(f"{one - other:+.3f}" for one, other in zip(seeds[left], seeds[right], strict=True))
        print(
            f"| `{left}` − `{right}` | {told(both[metric] - both[f'{metric}_other'], both['cluster'], '+.3f', is_share=False)} | {shown} |"
        )
    spread = [abs(one - other) for name in names for one, other in pairwise(sorted(by_seed.filter(recipe=name)[metric]))]
    print(f"\nlargest difference between neighbouring seeds of a recipe: {max(spread):.3f}")


if __name__ == "__main__":
    main()
