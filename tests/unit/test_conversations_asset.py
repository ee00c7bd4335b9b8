"""Ingest as a run materializes it: what goes wrong with a profile or its source is one sentence."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets import conversations as module
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import CONVERSATIONS, QUARANTINE
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.partitions import range_tags
from rlhi_dagster.profiles import Profile
from tests.built import built

MONTH = "2023-04"


SAMPLE = profiles.load("sample")
SALTLESS = SAMPLE.model_copy(update={"salt": None})
SOURCELESS = SAMPLE.model_copy(update={"source": SAMPLE.source.model_copy(update={"location": "/none/*.parquet"})})


def failure(lake: Lake, profile: Profile, selection: dg.AssetSelection) -> str:
    """The sentence of the step that failed; an exception with a stack trace is no sentence."""
    outcome = dg.materialize(
        built(profile, module.ingested, module.conservation),
        selection=selection,
        tags=range_tags(MONTH, MONTH),
        resources={"io_manager": TableIOManager(root=lake.root), "lake": lake, "settings": Settings(profile)},
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
    told = failure(lake, SALTLESS, dg.AssetSelection.assets("conversations", "quarantine").without_checks())
    assert told.startswith("profile sample needs RLHI_SALT: any secret string")


def test_a_source_that_is_gone_is_told_by_asset_and_check(lake: Lake) -> None:
    sentence = "no file that ends in .parquet, .jsonl, .jsonl.gz, .jsonl.zst matches the location /none/*.parquet"
    ingested = dg.AssetSelection.assets("conversations", "quarantine").without_checks()
    assert failure(lake, SOURCELESS, ingested) == sentence
    lake.write("conversations", CONVERSATIONS.empty(), [MONTH])
    lake.write("quarantine", QUARANTINE.empty(), [MONTH])
    assert failure(lake, SOURCELESS, dg.AssetSelection.checks_for_assets("conversations")) == sentence
