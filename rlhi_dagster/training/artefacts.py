"""Model artefacts that are references: a folder whose manifest names a model elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.engines.models import MANIFEST, ModelRef, digest_of

PAIRS = "pairs.parquet"
"""In the folder of an artefact that was trained on pairs: their ids (``pair_id``), with those that its start was trained on."""


def refer(out: Path, model: ModelRef, method: str) -> dict[str, Any]:
    """Make ``out`` stand for ``model`` and return the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    entry = {"name": model.name, "revision": model.revision, "path": model.path}
    manifest = {"model": entry, "inputs": digest_of("refer", entry), "method": method, "steps": []}
    partial = out / f".{MANIFEST}.{os.getpid()}.partial"
    partial.write_text(json.dumps(manifest, indent=1))
    partial.replace(out / MANIFEST)
    return manifest


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
