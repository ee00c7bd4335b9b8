"""Model artefacts: folders with a manifest, which tells of what they were made, or which model elsewhere they stand for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.engines.models import MANIFEST, ModelRef, digest_of, read_manifest

PAIRS = "pairs.parquet"
"""In the folder of an artefact that was trained on pairs: their ids (``pair_id``), with those that its start was trained on."""


def manifest(folder: Path) -> dict[str, Any] | None:
    """What an artefact's manifest says; ``None`` if nothing finished writing it."""
    return read_manifest(folder) if (folder / MANIFEST).is_file() else None


def made_of(folder: Path, inputs: str) -> dict[str, Any] | None:
    """The manifest of an artefact that was made of these ``inputs`` (their digest); ``None`` if it is not there, or of others."""
    found = manifest(folder)
    return found if found and found["inputs"] == inputs else None


def refer(out: Path, model: ModelRef, method: str) -> dict[str, Any]:
    """Make ``out`` stand for ``model`` and return the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    entry = {"name": model.name, "revision": model.revision, "path": model.path}
    told = {"model": entry, "inputs": digest_of("refer", entry), "method": method, "steps": []}
    partial = out / f".{MANIFEST}.{os.getpid()}.partial"
    partial.write_text(json.dumps(told, indent=1))
    partial.replace(out / MANIFEST)
    return told


def put_in_place(partial: Path, out: Path) -> None:
    """Make a folder that was written aside the artefact, instead of what may be there."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def trained_pairs(model: ModelRef | None) -> pl.DataFrame:
    """The pairs (``pair_id``) that a model of this run was trained on; none for any other model."""
    file = Path(model.path) / PAIRS if model and model.path else None
    return pl.read_parquet(file) if file and file.is_file() else pl.DataFrame(schema={"pair_id": pl.String()})


def joint_version(versions: Mapping[str, str]) -> str:
    """One version for several artefacts."""
    return digest_of("artefacts", dict(versions))
