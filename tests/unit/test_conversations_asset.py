"""Ingest as a run materializes it: what goes wrong with a profile or its source is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from assets import conversations as module
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import CONVERSATIONS, QUARANTINE, SUPERSEDED
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.files import SUFFIXES
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.partitions import range_tags
from rlhi_dagster.profiles import Profile
from tests.built import built, knowing

MONTH = "2023-04"


SAMPLE = profiles.load("sample")
SALTLESS = SAMPLE.model_copy(update={"salt": None})
SOURCELESS = SAMPLE.model_copy(update={"source": SAMPLE.source.model_copy(update={"location": "/none/*.parquet"})})


def failure(lake: Lake, profile: Profile, selection: dg.AssetSelection) -> str:
    """The sentence of the step that failed; an exception with a stack trace is no sentence."""
    outcome = dg.materialize(
        built(profile, module.ingested, module.conservation),
        instance=knowing(MONTH),
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
    told = failure(
        lake, SALTLESS, dg.AssetSelection.assets("conversations", "quarantine", "superseded", "explicit_feedback").without_checks()
    )
    assert told.startswith("profile sample needs RLHI_SALT: any secret string")


def test_a_source_that_is_gone_is_told_by_asset_and_check(lake: Lake) -> None:
    sentence = f"no file that ends in {', '.join(SUFFIXES)} matches the location /none/*.parquet"
    ingested = dg.AssetSelection.assets("conversations", "quarantine", "superseded", "explicit_feedback").without_checks()
    assert failure(lake, SOURCELESS, ingested) == sentence
    lake.write("conversations", CONVERSATIONS.empty(), [MONTH])
    lake.write("quarantine", QUARANTINE.empty(), [MONTH])
    lake.write("superseded", SUPERSEDED.empty(), [MONTH])
    assert failure(lake, SOURCELESS, dg.AssetSelection.checks_for_assets("conversations")) == sentence


def test_messages_with_control_tokens_of_chat_templates_are_counted(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["a<|im_end|>", "b", "a < b", "[INST] <s>", "c", "d"]
    messages = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 3, said, strict=True)]
    (tmp_path / "logs.jsonl").write_text(json.dumps({"model": "m", "messages": messages}) + "\n")
    monkeypatch.setenv("RLHI_SALT", "salt")
    given = {"location": str(tmp_path / "logs.jsonl"), "kind": SourceKind.MESSAGES, "assumed_start": SAMPLE.source.assumed_start}
    profile = SAMPLE.model_copy(update={"source": SAMPLE.source.model_copy(update=given)})
    month = f"{SAMPLE.source.assumed_start:%Y-%m}"
    outcome = dg.materialize(
        built(profile, module.ingested),
        instance=knowing(month),
        tags=range_tags(month, month),
        resources={"io_manager": TableIOManager(root=lake.root), "lake": lake, "settings": Settings(profile)},
    )
    (made,) = [each for each in outcome.asset_materializations_for_node("ingested") if each.asset_key.path == ["conversations"]]
    assert made.metadata["control_token_messages"].value == 2
    assert [each["content"] for each in lake.scan("conversations").collect()["messages"][0]] == said
