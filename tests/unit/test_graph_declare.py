"""Settings in code versions: a change of one makes stale what declares it and nothing else; and what is never made again because of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleCauseCategory
from dagster._core.loader import LoadingContextForTest

from assets import conversations
from rlhi_dagster import definitions, profiles
from rlhi_dagster.graph.resources import TrainingRun
from rlhi_dagster.training.settings import TrainingSettings
from tests.built import built

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "rlhi_dagster" / "profiles" / "sample.yaml"


@pytest.fixture(scope="module")
def graph() -> dg.AssetGraph:
    return graph_of(profiles.load("sample"))


def graph_of(profile: profiles.Profile) -> dg.AssetGraph:
    return definitions.build(profile).resolve_asset_graph()


def current(graph: dg.AssetGraph) -> dict[str, str | None]:
    return {key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def made_with(instance: dg.DagsterInstance, graph: dg.AssetGraph, codes: Mapping[str, str | None], source: str = "INITIAL") -> None:
    """Record one materialization of every asset as a run of that code reports it; ``source`` is the data version of ``wildchat``."""
    known = {"wildchat": source, "prm800k": "INITIAL"}
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        if node.is_materializable:
            parents = [each.to_user_string() for each in node.parent_keys]
            inputs = {f"dagster/input_data_version/{each}": known.get(each, "made") for each in parents}
            pointers = {f"dagster/input_event_pointer/{each}": "NULL" for each in parents}
            tags = {"dagster/code_version": str(codes[key.to_user_string()]), "dagster/data_version": "made", **inputs, **pointers}
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition(node), tags=tags))


def partition(node: Any) -> str | None:
    return node.partitions_def.get_first_partition_key() if node.partitions_def else None


def stale(instance: dg.DagsterInstance, graph: dg.AssetGraph, category: StaleCauseCategory) -> set[str]:
    """Assets that Dagster holds for stale, and of that only cause."""
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    causes = {key: resolver.get_stale_causes(key, partition(graph.get(key))) for key in graph.get_all_asset_keys()}
    assert {cause.category for found in causes.values() for cause in found} <= {category}
    return {key.to_user_string() for key, found in causes.items() if found}


def test_nothing_is_stale_after_a_run_with_the_same_settings(instance: dg.DagsterInstance, graph: dg.AssetGraph) -> None:
    made_with(instance, graph, current(graph))
    assert stale(instance, graph, StaleCauseCategory.CODE) == set()


TRAINED = {"checkpoints", "online_candidates", "online_pairs", "online_policies", "token_budget"}
NOTHING: set[str] = set()
FASTER = {"kind": "transformers", "device": "auto", "dtype": "float32", "batch_size": 999, "chunk_size": 9}
"""An engine of the role's own that gives the same answers."""


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ({"candidates": {"min_margin": 5}}, {"online_candidates", "online_pairs", "online_policies", "report", "reward_pairs"}),
        ({"held_out_fraction": 0.1}, {"users"}),
        ({"dpo": {"beta": 0.9}}, TRAINED | {"report"}),
        ({"engine": {"chunk_size": 7, "usd_per_hour": 9}, "limits": {"max_usd": 1}}, NOTHING),
        ({"models": {"judge": {"hub": f"judges/one@{'1' * 40}"}}}, {"judgements", "report"}),
        ({"models": {"judge": {"builtin": "town", "sampling": {"max_new_tokens": 9}}}}, {"judgements", "report"}),
        ({"models": {"policy": {"builtin": "town", "engine": FASTER}}}, NOTHING),
    ],
)
def test_a_changed_setting_makes_stale_what_reads_it_and_nothing_else(
    changes: dict[str, Any], affected: set[str], instance: dg.DagsterInstance, graph: dg.AssetGraph, tmp_path: Path
) -> None:
    settings = yaml.safe_load(SAMPLE.read_text())
    for section, given in changes.items():
        settings[section] = settings.get(section, {}) | given if isinstance(given, dict) else given
    before = tmp_path / "before.yaml"
    before.write_text(yaml.safe_dump(settings))
    made_with(instance, graph, current(graph_of(profiles.load(str(before)))))
    assert stale(instance, graph, StaleCauseCategory.CODE) == affected


def test_an_artefact_is_not_trained_again_because_of_a_code_version(tmp_path: Path) -> None:
    rows, settings = pl.DataFrame({"prompt": ["a"]}), TrainingSettings()
    runs = [TrainingRun("a", "sft", None, rows, None, settings, tmp_path, {}, {"code_version": version}) for version in ("1-aa", "1-bb")]
    assert runs[0].inputs == runs[1].inputs


def test_an_observation_makes_stale_what_was_made_of_other_files(
    instance: dg.DagsterInstance, graph: dg.AssetGraph, tmp_path: Path
) -> None:
    file = tmp_path / "logs.jsonl"
    sample = profiles.load("sample")
    profile = sample.model_copy(update={"source": sample.source.model_copy(update={"location": str(file)})})
    job = dg.Definitions(assets=built(profile, conversations.wildchat)).resolve_implicit_global_asset_job_def()

    def observed(text: str) -> str:
        file.write_text(text)
        assert job.execute_in_process(instance=instance).success
        record = instance.get_latest_data_version_record(dg.AssetKey("wildchat"), is_source=True)
        assert record
        return str((record.event_log_entry.tags or {})["dagster/data_version"])

    first = observed("{}")
    made_with(instance, graph, current(graph), first)
    assert stale(instance, graph, StaleCauseCategory.DATA) == set()
    assert observed("{}") == first
    assert stale(instance, graph, StaleCauseCategory.DATA) == set()
    assert observed("{} ") != first
    assert stale(instance, graph, StaleCauseCategory.DATA) == {"conversations", "quarantine"}
