"""What the graph computes is what was recorded: every table, every call's key, the inputs of every training run; and what it reads."""

from __future__ import annotations

import json

import polars as pl
import pytest

from rlhi_dagster import definitions
from rlhi_dagster.base.lineage import PASSED, Passed
from rlhi_dagster.graph import declare
from tests.passed import told
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


def test_columns_that_are_said_to_be_passed_on_have_the_values_of_the_earlier_table() -> None:
    """Each is compared on at least one of the runs, by rows that have something there."""
    runs = [printed(profile)["passed"] for profile in PROFILES]
    assert {name: run[name] for run in runs for name in run if run[name][1]} == {}
    assert {name for name in runs[0] if not any(run[name][0] for run in runs)} == set()
    assert {name.partition(":")[0] for name in runs[0]} == set(PASSED)


def test_a_column_that_is_not_passed_on_is_seen() -> None:
    tables = {"turns": pl.DataFrame({"turn_id": ["a", "b"], "reply": ["one", None]}), "logs": pl.DataFrame({"id": ["c"]})}
    rows = pl.DataFrame({"turn_id": ["a", "b", "c", None], "original": ["one", "", "three", None]})
    entry = Passed("turns", {"turn_id": "turn_id", "original": "reply"})
    assert told(rows, [entry], tables) == (3, 1)
    assert told(rows, [entry, Passed("logs", {"turn_id": "id"})], tables) == (3, 0)
    swapped = rows.with_columns(original=pl.col("original").reverse())
    assert told(swapped, [entry], tables) == (4, 4), "values that are there, but of other rows"
