"""The code location: what it holds, how it is declared, and that loading it stays light."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap

from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.lineage import PASSED
from rlhi_dagster.base.tables import CONVERSATIONS, TABLES
from rlhi_dagster.graph import declare

ROOT = Path(__file__).parents[1]
EXTERNAL = {"prm800k", "wildchat"}
ARTEFACTS = {"checkpoints", "feedback_classifier", "online_policies", "policy", "report", "reward_model"}
UNCHECKED = {"feedback_classifier", "policy", "report"}
"""Artefacts of which nothing can be said that their making does not already ensure."""
BY_GROUP = {
    "conversations": {"conversations", "quarantine", "superseded", "explicit_feedback", "turns", "users", "wildchat"},
    "policy": {"policy"},
    "held_out": {"eval_prompts"},
    "feedback": {"contextual_diversity", "feedback_classifier", "feedback_labels", "reattempt_rates", "unmet_wishes"},
    "reconstruction": {"wildllamachat"},
    "personas": {"personas"},
    "preferences": {
        *(
            "candidate_rewards",
            "explicit_pairs",
            "preference_pairs",
            "reward_pairs",
            "rewrite_pairs",
            "thumb_examples",
            "follow_up_examples",
        ),
    },
    "generation": {"candidates", "rewrites"},
    "reward": {"reward_model", "reward_model_scores"},
    "reasoning": {"prm800k", "reasoning_errors", "reasoning_pairs"},
    "online": {"online_candidates", "online_pairs", "online_policies"},
    "training": {"checkpoints", "token_budget"},
    "benchmarks": {f"benchmark_{part}" for part in ("grades", "items", "ratings", "responses", "scores")},
    "evaluation": {"judge_calibration", "judge_quality", "judgements", "report", "responses", "scores"},
}
ASSETS = sorted(name for names in BY_GROUP.values() for name in names)
MADE_HERE = sorted(set(ASSETS) - EXTERNAL)
BY_MONTH = {
    *("candidate_rewards", "candidates", "conversations", "feedback_labels", "quarantine", "superseded", "explicit_feedback"),
    *("explicit_pairs", "reward_pairs", "rewrite_pairs", "rewrites", "turns", "wildllamachat"),
}
BY_RECIPE = {
    *("benchmark_grades", "benchmark_ratings", "benchmark_responses", "benchmark_scores"),
    *("checkpoints", "judgements", "online_candidates", "online_pairs", "online_policies", "responses", "scores"),
}


@pytest.fixture(scope="module")
def loaded() -> dg.Definitions:
    return definitions.defs()  # type: ignore[operator, return-value]


def node(loaded: dg.Definitions, name: str) -> Any:
    return loaded.resolve_asset_graph().get(dg.AssetKey(name))


def test_the_graph_has_the_designs_assets_in_its_groups(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    found: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        found.setdefault(str(graph.get(key).group_name), set()).add(key.to_user_string())
    assert found == BY_GROUP


def test_no_group_feeds_one_that_it_rests_on(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    order: TopologicalSorter[str | None] = TopologicalSorter()
    for key in graph.get_all_asset_keys():
        for parent in graph.get(key).parent_keys:
            if graph.get(parent).group_name != graph.get(key).group_name:
                order.add(graph.get(key).group_name, graph.get(parent).group_name)
    assert set(order.static_order()) == set(BY_GROUP)


RUN_BY_THEMSELVES = {"abandoned_runs", "source_months"}
"""They launch nothing."""


def test_every_job_schedule_and_sensor_says_what_it_does_and_what_launches_runs_is_off(loaded: dg.Definitions) -> None:
    repository = loaded.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    assert {job.name for job in jobs} == {"benchmarks", "forecast", "logs", "observe_sources", "preference_data", "training"}
    for each in (*jobs, *repository.schedule_defs, *repository.sensor_defs):
        assert len(each.description or "") > 20, each.name
    on = {
        each.name
        for each in (*repository.schedule_defs, *repository.sensor_defs)
        if each.default_status in (dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING)
    }
    assert on == RUN_BY_THEMSELVES
    assert {each.name for each in repository.schedule_defs} == {"daily_logs", "daily_observation", "weekly_preference_data"}
    assert {each.name for each in repository.sensor_defs} == {"cheap_assets", "enough_new_pairs", "new_log_files"} | RUN_BY_THEMSELVES


def test_what_runs_by_itself_needs_no_model(loaded: dg.Definitions) -> None:
    cheap = {name for name in MADE_HERE if node(loaded, name).automation_condition}
    assert cheap == {"eval_prompts", "explicit_pairs", "reattempt_rates", "reward_pairs", "turns", "users"}
    assert not any(node(loaded, name).pools for name in cheap)


def test_only_tables_of_real_logs_can_be_overdue() -> None:
    sample = profiles.load("sample")
    real, town = (definitions.build(each).resolve_asset_graph() for each in (sample.model_copy(update={"truth": None}), sample))
    assert {key for key in town.get_all_asset_keys() if town.get(key).freshness_policy} == set()
    overdue = {key.to_user_string() for key in real.get_all_asset_keys() if real.get(key).freshness_policy}
    assert overdue == set(MADE_HERE) - BY_RECIPE


def test_only_the_sources_are_external(loaded: dg.Definitions) -> None:
    assert {name for name in ASSETS if node(loaded, name).is_external} == EXTERNAL


@pytest.mark.parametrize("name", ASSETS)
def test_every_asset_is_described_owned_and_of_a_kind(loaded: dg.Definitions, name: str) -> None:
    asset = node(loaded, name)
    assert len(asset.description or "") > 20
    assert asset.owners
    assert asset.kinds


@pytest.mark.parametrize("name", MADE_HERE)
def test_every_asset_made_here_tells_what_can_be_expected_to_fail(loaded: dg.Definitions, name: str) -> None:
    body = loaded.get_assets_def(name).op.compute_fn.decorated_fn  # type: ignore[union-attr]
    assert body.__code__.co_filename == declare.__file__


@pytest.mark.parametrize("name", MADE_HERE)
def test_every_asset_made_here_has_a_version_and_runs_a_range_at_once(loaded: dg.Definitions, name: str) -> None:
    asset = node(loaded, name)
    assert asset.code_version
    assert asset.backfill_policy == dg.BackfillPolicy.single_run()


@pytest.mark.parametrize("name", ASSETS)
def test_every_asset_leads_to_its_page_in_the_documents(loaded: dg.Definitions, name: str) -> None:
    page = ROOT / node(loaded, name).metadata["documents"].value
    assert page.suffix == ".md"
    assert page.is_file()


@pytest.mark.parametrize("name", MADE_HERE)
def test_every_asset_leads_to_its_body_and_to_where_it_lies(loaded: dg.Definitions, name: str) -> None:
    metadata = node(loaded, name).metadata
    (reference,) = metadata["dagster/code_references"].code_references
    line = Path(reference.file_path).read_text().splitlines()[reference.line_number - 1]
    assert Path(reference.file_path).parent == ROOT / "assets"
    assert line.startswith(("@declare.", "def "))
    assert metadata["dagster/uri"] == (profiles.data_root() / "lake" / name).absolute().as_uri()
    assert metadata.get("dagster/table_name") == (None if name in ARTEFACTS else name)


@pytest.mark.parametrize("name", MADE_HERE)
def test_every_asset_made_here_has_a_check_or_is_said_to_have_none(loaded: dg.Definitions, name: str) -> None:
    checks = [key for key in loaded.resolve_asset_graph().asset_check_keys if key.asset_key == dg.AssetKey(name)]
    assert bool(checks) == (name not in UNCHECKED)


@pytest.mark.parametrize("name", MADE_HERE)
def test_every_table_shows_its_columns(loaded: dg.Definitions, name: str) -> None:
    shown = node(loaded, name).metadata.get("dagster/column_schema")
    if name in ARTEFACTS:
        assert (name in TABLES, shown) == (False, None)
        return
    columns = (shown.value if hasattr(shown, "value") else shown).columns
    assert [column.name for column in columns] == list(TABLES[name].columns)
    assert all(column.description for column in columns)


@pytest.mark.parametrize("name", sorted(PASSED))
def test_columns_that_are_passed_on_are_those_of_tables_that_the_asset_is_made_from(loaded: dg.Definitions, name: str) -> None:
    lineage = node(loaded, name).metadata["dagster/column_lineage"].deps_by_column
    assert lineage.keys() <= TABLES[name].columns.keys()
    for each in (dep for deps in lineage.values() for dep in deps):
        assert each.asset_key in node(loaded, name).parent_keys
        assert each.column_name in TABLES[each.asset_key.to_user_string()].columns


def test_a_sources_kinds_follow_from_where_it_lies() -> None:
    def kinds(location: str) -> set[str]:
        logs = declare.Source("logs", "conversations", "One row is a conversation.", lambda _: location, lambda _: [])
        (spec,) = logs.build(declare.Place(profiles.load("sample"))).specs
        return set(spec.kinds)

    assert kinds("data/sample/wildchat.parquet") == {"file", "parquet"}
    assert kinds("logs/*.jsonl.gz") == {"file", "json"}
    assert kinds("logs/") == {"file"}
    assert kinds("hf://datasets/allenai/WildChat-1M/data/*.parquet") == {"huggingface", "parquet"}


def test_every_declared_table_is_an_asset() -> None:
    assert set(TABLES) == set(MADE_HERE) - ARTEFACTS


@pytest.mark.parametrize("name", MADE_HERE)
def test_partitions_follow_the_design(loaded: dg.Definitions, name: str) -> None:
    partitions = node(loaded, name).partitions_def
    kind = {dg.DynamicPartitionsDefinition: "month", dg.StaticPartitionsDefinition: "recipe", type(None): None}[type(partitions)]
    assert kind == ("month" if name in BY_MONTH else "recipe" if name in BY_RECIPE else None)


def test_the_jobs_resolve_and_together_make_everything(loaded: dg.Definitions) -> None:
    made: set[str] = set()
    for name in ("preference_data", "training", "benchmarks"):
        made |= {key.to_user_string() for key in loaded.resolve_job_def(name).asset_layer.selected_asset_keys}
    assert made == set(MADE_HERE)


def test_dependencies_are_assets_of_the_graph(loaded: dg.Definitions) -> None:
    for name in MADE_HERE:
        assert {key.to_user_string() for key in node(loaded, name).parent_keys} <= set(ASSETS)
    roots = {name for name in ASSETS if not node(loaded, name).parent_keys}
    assert roots == EXTERNAL | {"benchmark_items", "policy"}


def drawn() -> set[tuple[str, str]]:
    """Arrows of the diagram in the documents."""
    block = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "concepts" / "graph.md").read_text(), re.DOTALL)
    assert block
    found = set()
    for line in block[1].splitlines():
        groups = [[re.split(r"\W", name.strip())[0] for name in group.split("&")] for group in line.split("-->")]
        found |= {edge for left, right in pairwise(groups) for edge in product(left, right)}
    return found


def test_the_documents_draw_the_graph(loaded: dg.Definitions) -> None:
    also_read = (
        "benchmark_scores",
        "judgements",
        "responses",
        "checkpoints",
        "reattempt_rates",
        "contextual_diversity",
        "preference_pairs",
    )
    left_out = {(name, "report") for name in also_read}
    edges = {(parent.to_user_string(), name) for name in ASSETS for parent in node(loaded, name).parent_keys}
    assert drawn() | left_out == edges
    assert not drawn() & left_out


@pytest.mark.parametrize("name", MADE_HERE)
def test_the_documents_name_the_checks_of_each_asset_and_say_which_warn(loaded: dg.Definitions, name: str) -> None:
    text = (ROOT / "docs" / "reference" / "assets.md").read_text()
    (row,) = re.findall(rf"^\|[^|]*\| `{name}` .*\|([^|]*)\|$", text, re.MULTILINE)
    graph = loaded.resolve_asset_graph()
    checks = [graph.get(key) for key in graph.asset_check_keys if key.asset_key == dg.AssetKey(name) and key.name != "matches_table"]
    told = {check: not warns for check, warns in re.findall(r"`(\w+)`( \(warns\))?", row) if "(counted by" not in row}
    assert told == {check.key.name: check.blocking for check in checks}
    explained = set(re.findall(r"^\| `(\w+)` \| [^|]*\|$", text, re.MULTILINE))
    assert told.keys() <= explained


@pytest.mark.parametrize("name", ["preference_data", "training"])
def test_the_launchpad_offers_no_folder_and_no_setting_to_edit(loaded: dg.Definitions, name: str) -> None:
    snapshot = loaded.resolve_job_def(name).get_job_snapshot()
    root = snapshot.config_schema_snapshot.get_config_snap(str(snapshot.mode_def_snaps[0].root_config_key))
    offered = yaml.safe_load(default_values_yaml_from_type_snap(snapshot.config_schema_snapshot, root)) or {}
    assert not any(offered.get("resources", {}).values())


def test_a_run_can_limit_what_asks_models_for_a_table_and_nothing_else(loaded: dg.Definitions) -> None:
    def dials(name: str) -> set[str]:
        schema = loaded.get_assets_def(name).op.config_schema.config_type
        return set(getattr(schema, "fields", None) or ())

    training_alone = {"checkpoints", "feedback_classifier", "policy", "reward_model"}
    assert {name for name in MADE_HERE if dials(name)} == {name for name in MADE_HERE if node(loaded, name).pools} - training_alone
    assert dials("candidates") == {"limit"}


def test_everything_resolves(loaded: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(loaded)


def side_by_side(tmp_path: Path) -> list[tuple[profiles.Profile, dg.Definitions]]:
    """Two profiles in one process: the sample, and one that extends it, under a prefix."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: sample\nsplit: {tuning: 0.1, test: 0.8}\nfirst_month: '2023-05'\n")
    made = [profiles.load(name, environment={"RLHI_DATA": str(tmp_path)}) for name in ("sample", str(mine))]
    return [(profile, definitions.build(profile, prefix)) for profile, prefix in zip(made, ((), "mine"), strict=True)]


def test_two_profiles_in_one_process_differ_by_the_prefix_of_their_keys(tmp_path: Path) -> None:
    graphs = []
    for _, built in side_by_side(tmp_path):
        dg.Definitions.validate_loadable(built)
        graphs.append(built.resolve_asset_graph())
    plain, mine = graphs
    assert {key.with_prefix("mine") for key in plain.get_all_asset_keys()} == mine.get_all_asset_keys()
    for key in plain.get_all_asset_keys():
        mirrored = mine.get(key.with_prefix("mine"))
        assert {parent.with_prefix("mine") for parent in plain.get(key).parent_keys} == mirrored.parent_keys
    checks = [{(key.asset_key.path[-1], key.name) for key in graph.asset_check_keys} for graph in graphs]
    assert checks[0] == checks[1]
    names = [graph.get(dg.AssetKey(path)).partitions_def.name for graph, path in ((plain, ["turns"]), (mine, ["mine", "turns"]))]
    assert names == ["months", "mine/months"]


def test_two_profiles_are_one_code_location(tmp_path: Path) -> None:
    merged = dg.Definitions.merge(*(built for _, built in side_by_side(tmp_path)))
    dg.Definitions.validate_loadable(merged)
    repository = merged.get_repository_def()
    names = [each.name for each in (*repository.get_all_jobs(), *repository.schedule_defs, *repository.sensor_defs)]
    plain = {name for name in names if not name.startswith(("mine__", "__"))}
    assert {f"mine__{name}" for name in plain} == {name for name in names if name.startswith("mine__")}
    groups = {str(merged.resolve_asset_graph().get(key).group_name) for key in merged.resolve_asset_graph().get_all_asset_keys()}
    assert groups == {*BY_GROUP, *(f"mine__{name}" for name in BY_GROUP)}
    selected = [merged.resolve_job_def(f"{prefix}preference_data").asset_layer.selected_asset_keys for prefix in ("", "mine__")]
    assert {key.with_prefix("mine") for key in selected[0]} == selected[1]


def test_two_profiles_in_one_process_write_under_roots_of_their_own(tmp_path: Path) -> None:
    shares, roots = [], []
    for profile, built in side_by_side(tmp_path):
        lake = Lake(root=str(profile.root / "lake"))
        rows = [
            dict.fromkeys(CONVERSATIONS.columns) | {"conversation_id": f"c{n}", "user_id": f"u{n}", "month": "2023-05"} for n in range(200)
        ]
        lake.write("conversations", pl.DataFrame(rows, schema=CONVERSATIONS.schema, orient="row"), ["2023-05"])
        (key,) = [key for key in built.resolve_asset_graph().get_all_asset_keys() if key.path[-1] == "users"]
        job = built.resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(asset_selection=[key])
        assert done.success
        assert [check.passed for check in done.get_asset_check_evaluations()] == [True, True]
        shares.append(len(lake.scan("users").filter(pl.col("split") != "train").collect()) / 200)
        roots.append(profile.root)
    assert shares[0] < 0.5 < 0.8 < shares[1], "each with its own settings"
    assert roots[0] == tmp_path
    assert roots[1].parent == tmp_path / "profiles"


def test_the_jobs_of_a_prefixed_profile_make_everything(tmp_path: Path) -> None:
    (_, plain), (_, mine) = side_by_side(tmp_path)
    for name in ("preference_data", "training"):
        jobs = plain.resolve_job_def(name), mine.resolve_job_def(f"mine__{name}")
        selected = [job.asset_layer.selected_asset_keys for job in jobs]
        assert {key.with_prefix("mine") for key in selected[0]} == selected[1]


def test_loading_the_code_location_loads_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "trl", "vllm", "sentence_transformers", "sklearn", "scipy", "pandas", "matplotlib")
    program = f"import sys, rlhi_dagster.definitions as d; d.defs(); print(sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_assets_is_this_repositorys_package() -> None:
    assert Path(str(definitions.assets.__file__)).resolve() == (ROOT / "assets/__init__.py").resolve()


def test_workspace_and_pyproject_name_the_same_location() -> None:
    (workspace,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    module = workspace["python_module"]
    assert module["module_name"] == project["code_location_target_module"] == definitions.__name__
    assert module["location_name"] == project["code_location_name"] == definitions.LOCATION
