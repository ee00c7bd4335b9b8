"""What ``rlhi`` says where outputs cannot be."""

from __future__ import annotations

import sys

import pytest

from rlhi_dagster import cli


def said(monkeypatch: pytest.MonkeyPatch, data: str, *arguments: str) -> str:
    monkeypatch.setenv("RLHI_DATA", data)
    monkeypatch.setattr(sys, "argv", ["rlhi", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return str(left.value.code)


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

    monkeypatch.setattr(cli, "months", refused)
    assert said(monkeypatch, "data", "months") == "rlhi: /srv/logs/a.parquet: Permission denied"
