"""What the targets of the Makefile launch, with stand-ins for `rlhi` and `dg`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster import cli, declare, profiles
from rlhi_dagster.training import recipes

STAND_IN = """#!/bin/sh
[ "$(basename $0) $1" = "rlhi home" ] && { echo /nowhere; exit; }
case "$1" in months) echo 2023-04...2023-09;; recipes) echo a...z;; *) echo "$(basename $0) $*";; esac
"""


def make(folder: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target; ``variables`` are the environment's."""
    for name in ("rlhi", "dg"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    (folder / "installed").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RLHI_", "DAGSTER_", "MAKE"))}
    command = ["make", target, f"BIN={folder}", f"INSTALLED={folder / 'installed'}"]
    return subprocess.run(command, cwd=profiles.ROOT, env=env | variables, capture_output=True, text=True, check=False)


def test_demo_launches_all_months_then_all_recipes(tmp_path: Path) -> None:
    done = make(tmp_path, "demo")
    assert done.stdout.splitlines() == [
        "dg launch --job preference_data --partition-range 2023-04...2023-09",
        "dg launch --job training --partition-range a...z",
        "rlhi summary",
    ], done.stderr


def test_recipes_are_all_there_are() -> None:
    first, last = cli.recipes().split("...")
    assert declare.Place(profiles.load("sample")).recipes.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)) == recipes.names()


def test_no_file_spells_out_the_range_of_all_recipes() -> None:
    files = [profiles.ROOT / "Makefile", profiles.ROOT / "README.md", *(profiles.ROOT / "docs").glob("*.md")]
    assert [file.name for file in files if f"{recipes.names()[0]}..." in file.read_text()] == []


@pytest.mark.parametrize("variables", [{}, {"RLHI_PROFILE": "sample"}])
def test_data_of_the_sample_profile_needs_a_source(tmp_path: Path, variables: dict[str, str]) -> None:
    done = make(tmp_path, "data", **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: make data RLHI_SOURCE=" in done.stderr


@pytest.mark.parametrize("variables", [{"RLHI_SOURCE": "logs.parquet"}, {"RLHI_PROFILE": "laptop"}, {"RLHI_PROFILE": "mine.yaml"}])
def test_data_of_a_source_or_of_another_profile_is_launched(tmp_path: Path, variables: dict[str, str]) -> None:
    done = make(tmp_path, "data", **variables)
    assert done.stdout.splitlines() == ["dg launch --job preference_data --partition-range 2023-04...2023-09", "rlhi summary"], done.stderr
