"""What is written is its owner's: whoever writes it, and from the first file on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from rlhi_dagster import definitions
from rlhi_dagster.base import private
from tests.lakes import world


@pytest.fixture(autouse=True)
def _open_to_all() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(root: Path) -> list[str]:
    return [str(path) for path in [root, *root.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_outputs_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    assert open_to_others(world(tmp_path / "before").written().root)
    private.only_owner()
    made = world(tmp_path / "after").written()
    made.lake.export_duckdb(made.root / "all.duckdb")
    assert len(list(made.root.rglob("*"))) > 50
    assert open_to_others(made.root) == []


def test_the_command_and_the_code_location_say_so_first(
    rlhi: Callable[..., CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rlhi(tmp_path / "data", "home").returncode == 0
    assert open_to_others(tmp_path / "data") == []
    os.umask(0o022)
    monkeypatch.setattr(definitions, "build", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        definitions.defs()
    assert os.umask(0o022) == 0o077


def test_a_stricter_mask_stays() -> None:
    os.umask(0o177)
    private.only_owner()
    assert os.umask(0o022) == 0o177
