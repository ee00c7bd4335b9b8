"""Ingest as a run materializes it: what goes wrong with a profile or its source is one sentence."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets import conversations as module
from rlhi_dagster import profiles
from rlhi_dagster.io_managers import TableIOManager
from rlhi_dagster.lake import Lake
from rlhi_dagster.partitions import range_tags
from rlhi_dagster.profiles import Profile
from rlhi_dagster.settings import Settings
from rlhi_dagster.tables import CONVERSATIONS, QUARANTINE

MONTH = "2023-04"


class Saltless(Settings):
    @property
    def profile(self) -> Profile:
        return profiles.load("sample").model_copy(update={"salt": None})


class Sourceless(Settings):
    @property
    def profile(self) -> Profile:
        sample = profiles.load("sample")
        return sample.model_copy(update={"source": sample.source.model_copy(update={"location": "/none/*.parquet"})})


def failure(lake: Lake, settings: Settings, selection: dg.AssetSelection) -> str:
    """The sentence of the step that failed; an exception with a stack trace is no sentence."""
    outcome = dg.materialize(
        [module.ingested, module.conservation],
        selection=selection,
        tags=range_tags(MONTH, MONTH),
        resources={"io_manager": TableIOManager(root=lake.root), "lake": lake, "settings": settings},
        raise_on_error=False,
    )
    [event] = [event for event in outcome.all_events if event.event_type_value == "STEP_FAILURE" and event.step_failure_data]
    assert event.step_failure_data.user_failure_data, event.step_failure_data.error
    return event.step_failure_data.user_failure_data.description or ""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path))


def test_a_profile_without_a_salt_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHI_SALT", raising=False)
    told = failure(lake, Saltless(), dg.AssetSelection.assets("conversations", "quarantine").without_checks())
    assert told.startswith("profile sample needs RLHI_SALT: any secret string")


def test_a_source_that_is_gone_is_told_by_asset_and_check(lake: Lake) -> None:
    sentence = "no file that ends in .parquet, .jsonl, .jsonl.gz, .jsonl.zst matches the location /none/*.parquet"
    ingested = dg.AssetSelection.assets("conversations", "quarantine").without_checks()
    assert failure(lake, Sourceless(), ingested) == sentence
    lake.write("conversations", CONVERSATIONS.empty(), [MONTH])
    lake.write("quarantine", QUARANTINE.empty(), [MONTH])
    assert failure(lake, Sourceless(), dg.AssetSelection.checks_for_assets("conversations")) == sentence
