"""``rlhi refresh``: what is launched, in which order, and what is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rlhi_dagster.cli import main, refresh_command
from rlhi_dagster.graph.staleness import Stale

MONTHS, RECIPES = ("2023-04", "2023-09"), ("base", "dpo_rewrites")


@pytest.fixture
def dg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ``dg``, which notes what it is told and ends with the code in the file ``code``; it returns the folder."""
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "somebody-elses"))
    (tmp_path / "code").write_text("0")
    (tmp_path / "dg").write_text(f'#!/bin/sh\necho "$DAGSTER_HOME $*" >> {tmp_path}/told\nexit $(cat {tmp_path}/code)\n')
    (tmp_path / "dg").chmod(0o755)
    monkeypatch.setattr(refresh_command.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(refresh_command.ranges, "months", lambda home, say: list(MONTHS))
    monkeypatch.setattr(refresh_command.ranges, "recipes", lambda: list(RECIPES))
    return tmp_path


def refresh(monkeypatch: pytest.MonkeyPatch, found: dict[str, list[Stale]], *arguments: str) -> list[str]:
    """Run the command where these assets of each job are stale; return what is said."""

    def stale(loaded: object, job: str, keys: dict[str, Sequence[str]], *_: object) -> list[Stale]:
        assert keys == {"month": list(MONTHS), "recipe": list(RECIPES)}
        return found.get(job, [])

    said: list[str] = []
    monkeypatch.setattr(refresh_command, "stale", stale)
    refresh_command.run(main.parser("refresh").parse_args(["refresh", *arguments]), said.append)
    return said


def launched(folder: Path) -> list[str]:
    file = folder / "told"
    return file.read_text().splitlines() if file.exists() else []


def test_only_what_is_stale_is_launched_over_its_whole_range(dg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refresh(monkeypatch, {"training": [Stale("scores", "not made yet (base)")]})
    assert said == ["preference_data: everything is up to date", "training: not up to date: scores (not made yet (base))"]
    assert launched(dg) == [f"{dg / 'data' / 'dagster_home'} launch --job training --partition-range base...dpo_rewrites"]


def test_both_jobs_are_launched_one_after_the_other(dg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [Stale(f"asset_{number}", "not made yet") for number in range(7)]
    said = refresh(monkeypatch, {"preference_data": missing, "training": missing[:1]})
    assert said[0].endswith("asset_4 (not made yet), 2 more")
    assert [line.split(" launch --job ")[1] for line in launched(dg)] == [
        "preference_data --partition-range 2023-04...2023-09",
        "training --partition-range base...dpo_rewrites",
    ]


def test_a_dry_run_launches_nothing(dg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refresh(monkeypatch, {"training": [Stale("scores", "not made yet")]}, "training", "--dry-run")
    assert (said, launched(dg)) == (["training: not up to date: scores (not made yet)"], [])


def test_after_a_job_that_failed_nothing_else_is_launched(dg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dg / "code").write_text("1")
    missing = [Stale("users", "not made yet")]
    with pytest.raises(refresh_command.LaunchFailedError, match=r"^preference_data failed; .*`rlhi refresh preference_data` goes on"):
        refresh(monkeypatch, {"preference_data": missing, "training": missing})
    assert len(launched(dg)) == 1
