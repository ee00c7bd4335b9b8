"""Settings in code versions: a change of one makes stale what declares it and nothing else; and what is never made again because of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from rlhi_dagster.graph import declare, partitions
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
        partitions.add_months(made, partitions.months(), ["2023-04"])
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
    if isinstance(node.partitions_def, dg.DynamicPartitionsDefinition):
        return "2023-04"
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
OF_JUDGES = {"benchmark_ratings", "judge_calibration", "judgements", "report", "scores"}
OF_EVALUATION = {"eval_prompts", "judge_calibration", *(f"benchmark_{part}" for part in ("items", "ratings", "responses", "scores"))}
FASTER = {"kind": "transformers", "device": "auto", "dtype": "float32", "batch_size": 999, "chunk_size": 9}
"""An engine of the role's own that gives the same answers."""


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ({"candidates": {"min_margin": 5}}, {"online_candidates", "online_pairs", "online_policies", "report", "reward_pairs"}),
        ({"split": {"test": 0.1}}, {"users"}),
        ({"evaluation": {"users": "tuning"}}, OF_EVALUATION | {"report"}),
        ({"dpo": {"beta": 0.9}}, TRAINED | {"report"}),
        ({"kto": {"beta": 0.9}}, {"checkpoints", "token_budget"}),
        ({"sdpo": {"epochs": 9}}, {"checkpoints", "token_budget"}),
        ({"engine": {"chunk_size": 7, "usd_per_hour": 9}, "limits": {"max_usd": 1}}, NOTHING),
        ({"models": {"judge": {"hub": f"judges/one@{'1' * 40}"}}}, OF_JUDGES),
        ({"models": {"judge": {"builtin": "town", "sampling": {"max_new_tokens": 9}}}}, OF_JUDGES),
        ({"models": {"policy": {"folder": "data/sample/town-policy", "engine": FASTER}}}, NOTHING),
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
    assert stale(instance, graph, StaleCauseCategory.DATA) == {"conversations", "quarantine", "superseded", "explicit_feedback"}


def reading(file: Path, name: str, read: Callable[[], object]) -> list[Any]:
    """The definitions of the source ``wildchat``, a file, and of an artefact that is made of it by ``read``."""
    sample = profiles.load("sample")
    profile = sample.model_copy(update={"source": sample.source.model_copy(update={"location": str(file)})})

    @declare.asset("probe", "conversations", set(), deps=[conversations.wildchat])
    def single() -> dg.MaterializeResult[None]:
        """One artefact."""
        read()
        return dg.MaterializeResult()

    @declare.together(
        "probing",
        "month",
        [declare.Out(each, "conversations", set(), "One row.") for each in ("probe", "other")],
        deps=[conversations.wildchat],
    )
    def several() -> Iterator[dg.MaterializeResult[None]]:
        """Two artefacts."""
        read()
        yield dg.MaterializeResult(asset_key="probe")
        yield dg.MaterializeResult(asset_key="other")

    return built(profile, conversations.wildchat, {"single": single, "several": several}[name])


STEPS = {"single": (["probe"], None), "several": (["probe", "other"], "2023-04")}
"""What a step makes, and the partition to make."""


@pytest.mark.parametrize("step", STEPS)
def test_files_put_back_as_they_were_make_stale_what_was_made_of_those_in_between(
    step: str, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "logs.jsonl"
    made, (outs, month) = reading(file, step, lambda: None), STEPS[step]
    graph = dg.Definitions(assets=made).resolve_asset_graph()

    def observe(text: str) -> None:
        file.write_text(text)
        assert dg.materialize(made, selection=["wildchat"], instance=instance).success

    def run(text: str) -> None:
        file.write_text(text)
        assert dg.materialize(made, selection=outs, instance=instance, partition_key=month).success

    def is_stale() -> set[str]:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return {name for name in outs if resolver.get_stale_causes(dg.AssetKey(name), month)}

    observe("a")
    run("a")
    assert is_stale() == set()
    run("b")  # which nobody else observes
    assert is_stale() == set()
    observe("a")
    assert is_stale() == set(outs)
    run("a")
    assert is_stale() == set()


@pytest.mark.parametrize("step", STEPS)
def test_files_that_change_while_they_are_read_end_the_run(step: str, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    file = tmp_path / "logs.jsonl"
    file.write_text("a")
    made, (outs, month) = reading(file, step, lambda: file.write_text("b")), STEPS[step]
    with pytest.raises(dg.Failure, match="the files of wildchat changed while they were read: launch again"):
        dg.materialize(made, selection=outs, instance=instance, partition_key=month)
    assert not any(instance.get_latest_materialization_event(dg.AssetKey(name)) for name in outs)
