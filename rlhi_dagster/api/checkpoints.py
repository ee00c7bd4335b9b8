"""Public benchmarks for a checkpoint that this project need not have made, without a run of its graph.

What belongs here: which assets are made where, for ``evaluate`` and ``rlhi evaluate``. What does not: how benchmarks are asked, judged and
scored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import polars as pl
import yaml

from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import BENCHMARK_RESPONSES
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.sources import folder_ref
from rlhi_dagster.evaluation import OF_A_RUN, Benchmark
from rlhi_dagster.graph.model_calls import ARTEFACTS
from rlhi_dagster.graph.partitions import range_tags
from rlhi_dagster.profiles import Profile, files
from rlhi_dagster.training.artefacts import refer
from rlhi_dagster.training.recipes import BASE

_QUIETER = {"loggers": {"console": {"config": {"log_level": "INFO"}}}}


class Evaluated(NamedTuple):
    """What came out: rows of ``tables.BENCHMARK_SCORES``, the model's identity, and where replies, ratings and grades lie."""

    scores: pl.DataFrame
    model: str
    outputs: str


def evaluated(folder: Path, benchmarks: Mapping[str, str]) -> Evaluated:
    """Evaluate a checkpoint.

    Args:
        folder: With safetensors, config, tokenizer and chat template.
        benchmarks: Where the files of each lie; an empty place is the profile's, and none at all means all that the profile names.

    Raises:
        ValueError: A benchmark is unknown, or nobody said where its files lie.
    """
    model = folder_ref(folder.expanduser().absolute())
    chosen = _chosen(profiles.current(), folder, _locations(profiles.current(), benchmarks))
    name, lake = _name(folder), Lake(root=str(chosen.root / "lake"))
    refer(lake.artefact_path("checkpoints", name), model, "none")
    for artefact in ARTEFACTS.values():  # which may judge
        if (made_here := Lake(root=str(profiles.current().root / "lake")).artefact_path(artefact)).is_dir():
            refer(lake.artefact_path(artefact), ModelRef.from_manifest(made_here), "none")
    lake.write("benchmark_responses", BENCHMARK_RESPONSES.empty(), [BASE])  # nothing is compared with a base here
    made = [dg.AssetKey(f"benchmark_{part}") for part in ("items", "responses", "ratings", "grades", "scores")]
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.build(chosen).resolve_job_def("benchmarks")
        try:
            job.execute_in_process(_QUIETER, instance=instance, asset_selection=made, tags=range_tags(name, name))
        except dg.Failure as failure:
            raise ValueError(failure.description) from failure
    return Evaluated(lake.scan("benchmark_scores", [name]).collect(), model.identity, lake.root)


def _locations(profile: Profile, wanted: Mapping[str, str]) -> Mapping[Benchmark, str]:
    known, found = profile.evaluation.benchmarks, {}
    for name, location in (wanted or {each.value: "" for each in known}).items():
        if name not in list(Benchmark) or name in OF_A_RUN:
            raise ValueError(f"{name} is no benchmark; rlhi evaluate --help lists them")
        if not location and name not in known:
            raise ValueError(f"where are the files of {name}? Say --benchmarks {name}=FOLDER, or evaluation.benchmarks in the profile")
        found[Benchmark(name)] = str(Path(location).expanduser().absolute()) if location else known[Benchmark(name)]
    if not found:
        raise ValueError(f"which benchmarks? Say --benchmarks NAME=FOLDER, or evaluation.benchmarks in the profile {profile.name}")
    return found


def _name(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "_", folder.absolute().name.lower()).strip("_") or "checkpoint"


def _chosen(profile: Profile, folder: Path, benchmarks: Mapping[Benchmark, str]) -> Profile:
    """The profile with these benchmarks alone, the checkpoint as its recipe, and outputs of its own."""
    root = profile.root / "evaluations" / files.slug(str(folder.expanduser().absolute()))
    recipes = root / "recipes"
    recipes.mkdir(parents=True, exist_ok=True)
    told = {"description": f"The checkpoint {folder}.", "role": "baseline", "method": "none"}
    (recipes / f"{_name(folder)}.yaml").write_text(yaml.safe_dump(told))
    evaluation = profile.evaluation.model_copy(update={"benchmarks": dict(benchmarks)})
    return profile.model_copy(update={"evaluation": evaluation, "recipes": str(recipes)}).placed(root, profile.origins)
