"""Model artefacts: folders with a manifest, which tells of what they were made, or which model elsewhere they stand for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base import seals
from rlhi_dagster.base.failures import DamagedError
from rlhi_dagster.engines.models import MANIFEST, ModelRef, digest_of, read_manifest, write_manifest

NO_DATA = "no data"
"""``method`` of an artefact that is not there because there was nothing to train it on."""
PAIRS = "pairs.parquet"
"""In the folder of an artefact that was trained on pairs: their ids (``pair_id``), with those that its start was trained on."""


def manifest(folder: Path) -> dict[str, Any] | None:
    """What an artefact's manifest says; ``None`` if nothing finished writing it."""
    return read_manifest(folder) if (folder / MANIFEST).is_file() else None


def made_of(folder: Path, inputs: str) -> dict[str, Any] | None:
    """The manifest of an artefact that was made of these ``inputs`` (their digest); ``None`` if it is not there, damaged, or of others."""
    try:
        found = manifest(folder)
    except DamagedError:  # it is made again
        return None
    return found if found and found["inputs"] == inputs else None


def refer(out: Path, model: ModelRef, method: str) -> dict[str, Any]:
    """Make ``out`` stand for ``model`` and return the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    entry = {"name": model.name, "revision": model.revision, "path": model.path}
    told = {"model": entry, "inputs": digest_of("refer", entry), "method": method, "steps": []}
    return write_manifest(out, told)


def leave_empty(out: Path, why: str) -> None:
    """Let ``out`` say why there is no model, instead of what may be there."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    told = {"method": NO_DATA, "why": why, "inputs": digest_of(NO_DATA, why), "steps": []}
    write_manifest(partial, told)
    put_in_place(partial, out)


def is_empty(folder: Path) -> bool:
    """Whether an artefact is not there for want of data."""
    return read_manifest(folder)["method"] == NO_DATA


def models(folders: Mapping[str, Path]) -> dict[str, ModelRef]:
    """The models of artefacts by name, without those that are not there for want of data."""
    return {name: ModelRef.from_manifest(folder) for name, folder in folders.items() if not is_empty(folder)}


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
    found = read_pairs(Path(model.path)) if model and model.path else None
    return pl.DataFrame(schema={"pair_id": pl.String()}) if found is None else found


def read_pairs(folder: Path) -> pl.DataFrame | None:
    """The pairs (``pair_id``) that an artefact was trained on; ``None`` if it does not say.

    Raises:
        DamagedError: The file is not as it was written.
    """
    file = folder / PAIRS
    try:
        return seals.read(file)
    except FileNotFoundError:
        return None
    except seals.BrokenFileError as error:
        raise DamagedError(f"{file} is damaged: {error}", folder) from error


def write_pairs(folder: Path, pairs: pl.DataFrame) -> None:
    """Write the pairs (``pair_id``) that an artefact was trained on; the file is replaced at once."""
    seals.write(folder / PAIRS, pairs)


def joint_version(versions: Mapping[str, str]) -> str:
    """One version for several artefacts."""
    return digest_of("artefacts", dict(versions))
