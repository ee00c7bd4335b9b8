"""The command that errors tell people to run: it names every asset that goes together, and the partitions."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster import definitions
from rlhi_dagster.base import launching
from rlhi_dagster.base.lake import Lake

DG = 'DAGSTER_HOME="$(rlhi home)" dg launch --assets'
ROUNDS = "online_candidates,online_pairs,online_policies"


@pytest.mark.parametrize(
    ("asset", "partitions", "expected"),
    [
        ("users", [], "users"),
        ("policy", [], "policy"),
        ("turns", ["2023-05"], "turns --partition 2023-05"),
        ("turns", [], 'turns --partition-range "$(rlhi months)"'),
        ("quarantine", ["2023-06", "2023-04"], "conversations,quarantine,superseded,explicit_feedback --partition-range 2023-04...2023-06"),
        ("online_pairs", ["base"], f"{ROUNDS} --partition base"),
        ("checkpoints", [], 'checkpoints --partition-range "$(rlhi recipes)"'),
    ],
)
def test_the_command_names_assets_and_partitions(asset: str, partitions: list[str], expected: str) -> None:
    assert launching.command(asset, partitions) == f"{DG} {expected}"


@pytest.mark.parametrize(
    ("asset", "partition", "expected"),
    [
        ("reward_model", None, "reward_model"),
        ("checkpoints", "base", "checkpoints --partition base"),
        ("online_policies", "dpo_rewards_online-round-1", f"{ROUNDS} --partition dpo_rewards_online"),
    ],
)
def test_the_command_of_an_artefact_is_that_of_its_asset(tmp_path: Path, asset: str, partition: str | None, expected: str) -> None:
    assert launching.command_of_artefact(Lake(root=str(tmp_path)).artefact_path(asset, partition)) == f"{DG} {expected}"


@pytest.fixture(scope="module")
def loaded() -> dg.Definitions:
    return definitions.defs()  # type: ignore[operator, return-value]


def test_dagster_can_select_what_the_command_names(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        name = key.to_user_string()
        chosen = launching.command(name).partition("--assets ")[2].split()
        assert {*chosen[0].split(",")} == {each.to_user_string() for each in graph.get(key).execution_set_asset_keys}, name
        assert ("--partition-range" in chosen) == (graph.get(key).partitions_def is not None), name
