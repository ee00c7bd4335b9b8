"""What the graph computes is what was recorded: every table, every call's key, the inputs of every training run; and what it reads."""

from __future__ import annotations

import json

import pytest

from rlhi_dagster import definitions
from rlhi_dagster.graph import declare
from tests.snapshot import FOLDER, PROFILES, printed

ONLY_OF_OTHER_PROFILES = {"feedback_classifier": {"truth", "salt", "seed"}, "online_rounds": {"dpo"}}
"""Read where a profile names labels to train a classifier from, and where it has no ``dpo_on_rewards``."""


PART_OF_OTHERS = {"recipes_shown"}
"""Read with ``recipes``. Prompts are left out too: which of them are read depends on what models reply."""


@pytest.mark.parametrize("profile", PROFILES)
def test_everything_is_computed_as_it_was_recorded(profile: str) -> None:
    """After a change that is meant to change results, record anew with ``python -m tests.snapshot`` and say so in the commit."""
    recorded, found = json.loads((FOLDER / f"{profile}.json").read_text()), printed(profile)["digests"]
    assert {name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name)} == set()


def test_every_setting_that_a_step_declares_is_read_by_it() -> None:
    """The other way round, a step that reads what it does not declare fails."""
    runs = [printed(profile)["read"] for profile in PROFILES]
    unread = {}
    for step in definitions.declarations():
        if isinstance(step, declare.Step):
            read = {path for run in runs for path in run.get(step.name, ())}
            settings = {each for each in step.reads if each not in PART_OF_OTHERS and not each.startswith("prompts.")}
            unread[step.name] = {each for each in settings if not any(f"{path}.".startswith(f"{each}.") for path in read)}
    assert {name: left for name, left in unread.items() if left} == ONLY_OF_OTHER_PROFILES
