"""What the graph computes is what was recorded: every table, every call's key, the inputs of every training run."""

from __future__ import annotations

import json

import pytest

from tests.snapshot import FOLDER, PROFILES, printed


@pytest.mark.parametrize("profile", PROFILES)
def test_everything_is_computed_as_it_was_recorded(profile: str) -> None:
    """After a change that is meant to change results, record anew with ``python -m tests.snapshot`` and say so in the commit."""
    recorded, found = json.loads((FOLDER / f"{profile}.json").read_text()), printed(profile)
    assert {name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name)} == set()
