"""Dagster's own command line on the project, as its users run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DG = Path(sys.executable).parent / "dg"
OWN = '''import dagster as dg
import polars as pl


@dg.asset
def pairs_by_source(preference_pairs: pl.LazyFrame) -> dg.MaterializeResult:
    """Kept pairs by source."""
    kept = preference_pairs.filter("is_kept").group_by("source").len().collect()
    return dg.MaterializeResult(metadata=dict(kept.iter_rows()))
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project's files, without what runs have written."""
    copy = tmp_path / "checkout"
    for name in ("assets", "rlhi_dagster"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    shutil.copytree(ROOT / "data" / "sample", copy / "data" / "sample")
    return copy


def dg_in(checkout: Path, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": str(checkout), "DAGSTER_HOME": str(checkout), "RLHI_DATA": str(checkout / "out")}
    done = subprocess.run([DG, *arguments], cwd=checkout, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_an_asset_of_ones_own_is_scaffolded_checked_and_listed_beside_the_projects(checkout: Path) -> None:
    dg_in(checkout, "scaffold", "defs", "dagster.asset", "mine/pairs_by_source.py")
    file = checkout / "rlhi_dagster" / "defs" / "mine" / "pairs_by_source.py"
    assert "@dg.asset" in file.read_text()
    file.write_text(OWN)
    dg_in(checkout, "check", "defs")
    listed = json.loads(dg_in(checkout, "list", "defs", "--json"))
    names = {each["asset_key"] for each in listed["assets"]}
    assert len(names) == 47
    assert {"pairs_by_source", "preference_pairs", "report"} <= names
    assert {each["name"] for each in listed["jobs"]} >= {"preference_data", "training"}


@pytest.mark.slow
def test_a_second_pipeline_is_scaffolded_as_a_component_and_stands_beside_the_first(checkout: Path) -> None:
    assert "rlhi_dagster.Pipeline" in dg_in(checkout, "list", "components")
    dg_in(checkout, "scaffold", "defs", "rlhi_dagster.Pipeline", "mine", "--profile", "town")
    folder = checkout / "rlhi_dagster" / "defs" / "mine"
    assert "extends: town" in (folder / "profile.yaml").read_text()
    dg_in(checkout, "check", "yaml")
    listed = json.loads(dg_in(checkout, "list", "defs", "--json"))
    names = {each["asset_key"] for each in listed["assets"]}
    assert {f"mine/{name}" for name in names if not name.startswith("mine/")} == {name for name in names if name.startswith("mine/")}
    assert {each["name"] for each in listed["jobs"]} >= {"preference_data", "mine__preference_data"}
