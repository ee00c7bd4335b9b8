"""The job ``preference_data`` over the same dialogues in every layout: the same pairs and personas come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.engines.models import read_manifest
from rlhi_dagster.graph import pipes
from rlhi_dagster.graph.partitions import range_tags
from rlhi_dagster.training.artefacts import NO_DATA
from tests.built import knowing
from tests.in_layouts import WITHOUT_TIMES_OF_MESSAGES, WITHOUT_USERS, Dialogue, dialogues, write
from tests.snapshot import Engine, Workers, profile

pytestmark = pytest.mark.slow

SAID = dialogues(users=12)
REPLIES = sorted({exchange.answered for each in SAID for exchange in each.exchanges})
MONTH = "2023-04"
CONTENT = {
    "rewrite_pairs": ("strategy", "prompt", "chosen", "rejected", "is_kept", "drop_reasons", "persona"),
    "reward_pairs": ("condition", "prompt", "chosen", "rejected", "is_kept", "drop_reasons", "persona"),
    "preference_pairs": ("source", "split", "is_kept", "prompt", "chosen", "rejected"),
    "personas": ("slot", "line", "quotes"),
}
"""What tables say without ids."""
TIMES = ("slot", "line", "valid_from", "valid_until")
"""When lines of personas held, which the messages' times tell."""

Rows = list[str]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile with what the job needs beside logs."""
    folder = tmp_path_factory.mktemp("town")
    file = folder / "town.yaml"
    file.write_text(yaml.safe_dump(profile(folder, "town")))
    return file


def ran(town: Path, kind: SourceKind, folder: Path, said: Sequence[Dialogue] = SAID) -> Lake:
    """Run the job over dialogues in a layout, as ``RLHI_SOURCE`` makes a profile read any logs; no blocking check may fail."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("RLHI_DATA", str(folder / "data"))
        changed.setenv("RLHI_SALT", "9f2d41c07be8653a90d7e1f4b62c8a53")
        changed.setattr(pipes, "run", Workers(Engine(REPLIES)).run)
        chosen = profiles.load(str(town), str(write(kind, folder / "logs", said)))
        assert chosen.source.kind is kind
        job = definitions.build(chosen).resolve_job_def("preference_data")
        with knowing(MONTH) as instance:  # a log of events on the disk takes three times as long as all the rest
            done = job.execute_in_process(instance=instance, tags=range_tags(MONTH, MONTH))
    checks = [each for each in done.get_asset_check_evaluations() if each.severity is dg.AssetCheckSeverity.ERROR]
    assert len(checks) > 30
    assert [each.check_name for each in checks if not each.passed] == []
    return Lake(root=str(chosen.root / "lake"))


def rows(lake: Lake, table: str, columns: Sequence[str]) -> Rows:
    return sorted(map(repr, lake.scan(table).select(columns).collect().rows()))


def labels(lake: Lake) -> Rows:
    """What users said to which reply, and as what it counts."""
    labelled = lake.scan("turns").join(lake.scan("feedback_labels").select("turn_id", "label"), on="turn_id", validate="1:1")
    return sorted(map(repr, labelled.select("prompt", "turn", "label").collect().rows()))


@pytest.fixture(scope="module")
def plain(town: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return ran(town, SourceKind.MESSAGES, tmp_path_factory.mktemp("plain"))


def test_the_plain_layout_gives_something_to_compare_with(plain: Lake) -> None:
    assert len(labels(plain)) == 2 * len(SAID)
    assert {name for name, columns in CONTENT.items() if len(rows(plain, name, columns)) < 10} == set()
    assert plain.scan("rewrite_pairs").select("is_kept").collect().to_series().n_unique() == 2


def test_logs_of_single_turns_come_to_an_end_that_says_what_cannot_be_made(town: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(town.read_text())
    settings["candidates"]["with_persona_only"] = False  # without follow-ups nothing is known of users
    (tmp_path / "single.yaml").write_text(yaml.safe_dump(settings))
    lake = ran(tmp_path / "single.yaml", SourceKind.MESSAGES, tmp_path, [replace(each, exchanges=each.exchanges[:1]) for each in SAID])
    told = read_manifest(lake.artefact_path("reward_model"))
    assert told["method"] == NO_DATA
    assert "of these logs there is none" in told["why"]
    assert lake.scan("turns").select(pl.len()).collect().item() == len(SAID)
    candidates, rewards = lake.scan("candidates").collect(), lake.scan("candidate_rewards").collect()
    assert len(candidates) > 0
    assert len(rewards) > 0
    assert set(rewards["error"]) == {f"no_reward_model: {told['why']}"}
    for name in ("rewrites", "rewrite_pairs"):
        assert lake.scan(name).select(pl.len()).collect().item() == 0
    assert not lake.scan("reward_pairs").select(pl.col("is_kept").any()).collect().item()
    kept = lake.scan("preference_pairs").filter("is_kept").collect()
    assert set(kept["source"]) <= {"reasoning"}


@pytest.mark.parametrize("kind", [kind for kind in SourceKind if kind is not SourceKind.MESSAGES])
def test_the_same_pairs_and_personas_come_out(kind: SourceKind, plain: Lake, town: Path, tmp_path: Path) -> None:
    lake = ran(town, kind, tmp_path)
    assert labels(lake) == labels(plain)
    if kind in WITHOUT_USERS:  # other people are trained on, and nobody comes back to be known
        assert set(rows(lake, "rewrite_pairs", ["persona"])) == {"('',)"}
        return
    for name, columns in CONTENT.items():
        assert rows(lake, name, columns) == rows(plain, name, columns)
    if kind not in WITHOUT_TIMES_OF_MESSAGES:
        assert rows(lake, "personas", TIMES) == rows(plain, "personas", TIMES)
