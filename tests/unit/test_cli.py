"""The Dagster instance that ``rlhi home`` makes, and what ``rlhi`` says where it or outputs cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from dagster import DagsterInstance

from rlhi_dagster import profiles
from rlhi_dagster.cli import main


def said(monkeypatch: pytest.MonkeyPatch, data: str, *arguments: str) -> str:
    monkeypatch.setenv("RLHI_DATA", data)
    monkeypatch.setattr(sys, "argv", ["rlhi", *arguments])
    with pytest.raises(SystemExit) as left:
        main.main()
    return str(left.value.code)


def test_the_instance_of_the_outputs_lets_one_run_at_a_time_hold_the_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    with DagsterInstance.from_config(str(main.home())) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert (pools.default_pool_limit, str(pools.pool_granularity)) == (1, "PoolGranularity.RUN")
        assert not instance.telemetry_enabled


def test_a_checkout_without_the_settings_of_its_instance_says_how_to_get_them_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(profiles, "ROOT", tmp_path)
    shipped = tmp_path / "data" / "dagster_home" / "dagster.yaml"
    expected = f"rlhi: {shipped}, the settings of the Dagster instance, was deleted: git restore {shipped}"
    assert said(monkeypatch, str(tmp_path / "outputs"), "home") == expected


@pytest.mark.parametrize(
    ("data", "path", "why"),
    [
        ("/dev/null", "/dev/null/dagster_home", "Not a directory"),
        ("/proc/nope", "/proc/nope", "No such file or directory"),
        ("/proc/nope/data", "/proc/nope", "No such file or directory"),
    ],
)
def test_a_folder_of_outputs_that_cannot_be_made_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, data: str, path: str, why: str
) -> None:
    for variable in ("RLHI_PROFILE", "RLHI_SOURCE"):
        monkeypatch.delenv(variable, raising=False)
    assert said(monkeypatch, data, "home") == f"rlhi: {path}: {why}; outputs go to {data}, which RLHI_DATA can change"


def test_another_path_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        raise PermissionError(13, "Permission denied", "/srv/logs/a.parquet")

    monkeypatch.setattr(main, "months", refused)
    assert said(monkeypatch, "data", "months") == "rlhi: /srv/logs/a.parquet: Permission denied"
