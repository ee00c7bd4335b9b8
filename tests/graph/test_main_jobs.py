"""The two jobs end to end, on the miniature: tables, caching, repeatability, and a kill in the middle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.simulation.town.truth import preferences
from rlhi_dagster.training import artefacts
from rlhi_dagster.training.recipes import Recipe
from tests.graph.conftest import Run

pytestmark = pytest.mark.slow


def arms(run: Run) -> dict[str, Recipe]:
    """The recipes that a run trains."""
    return profiles.load(run.env["RLHI_PROFILE"]).arms


def test_every_table_is_there_as_declared(undisturbed) -> None:
    tables = {name: undisturbed.table(name) for name in TABLES if not name.startswith("benchmark_")}  # which the job `benchmarks` makes
    assert {name: frame.schema for name, frame in tables.items()} == {name: TABLES[name].schema for name in tables}
    # The town is its own judge, so there is none to be calibrated.
    assert {name for name, frame in tables.items() if frame.is_empty()} == {"judge_calibration"}


def test_no_row_of_the_source_is_lost(undisturbed) -> None:
    town = Path(undisturbed.env["RLHI_PROFILE"]).parent / "town"
    logs, clicks = (len(pl.read_parquet(town / f"{name}.parquet")) for name in ("wildchat", "wildchat_feedback"))
    assert len(undisturbed.table("conversations")) + len(undisturbed.table("quarantine")) == logs
    assert set(undisturbed.table("superseded")["cause"]) == {"explicit feedback"}
    assert len(undisturbed.table("superseded")) == clicks


def test_scores_have_the_columns_people_rely_on(undisturbed) -> None:
    scores = undisturbed.table("scores")
    assert scores.columns == ["recipe", "benchmark", "metric", "value", "n", "users", "ci_low", "ci_high", "remark", "judge"]
    manifests = {name: artefacts.manifest(undisturbed.lake.artefact_path("checkpoints", name)) or {} for name in arms(undisturbed)}
    assert set(scores["recipe"]) == {name for name, manifest in manifests.items() if manifest["method"] != artefacts.NO_DATA}


def test_the_truth_reaches_no_table(undisturbed) -> None:
    """Personas come from messages alone: what a user never asked for is in no line, though the truth has all four preferences."""
    folder = Path(undisturbed.env["RLHI_PROFILE"]).parent / "town" / "truth"
    known = preferences(folder / "preferences.parquet", "the-town-is-public")
    told = undisturbed.table("personas").select("user_id", "slot").unique()
    assert set(told["user_id"]) <= set(known)
    assert len(told) < 4 * len(known)


def test_recipes_train_on_equally_many_pairs_unless_they_say_otherwise(undisturbed) -> None:
    files = {name: Path(undisturbed.lake.root, "checkpoints", name, "manifest.json") for name in arms(undisturbed)}
    manifests = {name: json.loads(file.read_text()) for name, file in files.items()}
    pairs = {name: told["pairs"] + told["earlier_pairs"] for name, told in manifests.items() if "pairs" in told}
    (equal,) = {pairs[name] for name, arm in arms(undisturbed).items() if arm.sources and arm.pairs == "equal" and not arm.rounds}
    online = undisturbed.table("online_pairs").filter("is_kept", split="train")
    for name in (name for name, arm in arms(undisturbed).items() if arm.rounds):
        assert 0 < pairs[name] == len(online.filter(recipe=name)) <= equal
        assert set(online.filter(recipe=name)["round"]) == set(range(1, arms(undisturbed)[name].rounds + 1))


def test_the_report_needs_no_network(undisturbed) -> None:
    page = (Path(undisturbed.lake.root) / "report" / "index.html").read_text()
    assert "dpo_rewrites" in page
    assert 'src="http' not in page
    assert "@import" not in page


def test_a_second_run_calls_no_model_and_changes_nothing(undisturbed) -> None:
    before = undisturbed.fingerprints()
    segments = sorted(Path(undisturbed.lake.root).parent.glob("responses/**/segment-*.parquet"))
    trained = {file: file.stat().st_mtime_ns for file in Path(undisturbed.lake.root).glob("**/model.safetensors")}
    for job, partitions in (("preference_data", undisturbed.months()), ("training", undisturbed.recipes())):
        done = undisturbed.launch(job, partitions)
        assert done.returncode == 0, done.stdout[-2000:]
        # Long work reports with "... s left"; besides ingestion and the verification of answers, which call no model, only workers do.
        reports = [line for line in (done.stdout + done.stderr).splitlines() if " s left" in line]
        assert [line for line in reports if "conversations: " not in line and "verification: " not in line] == []
    assert undisturbed.fingerprints() == before
    assert sorted(Path(undisturbed.lake.root).parent.glob("responses/**/segment-*.parquet")) == segments
    assert {file: file.stat().st_mtime_ns for file in trained} == trained


def without(run: Run, recipe: str) -> None:
    """Take away all that a run made but trained models, vectors, and what other recipes than ``recipe`` came to."""
    root = Path(run.lake.root).parent
    for name, table in TABLES.items():
        by_recipe = table.partition_column == "recipe"
        for file in run.lake.artefact_path(name).glob(f"{recipe}.parquet" if by_recipe else "*.parquet"):
            file.unlink()
    for folder in ("responses/chat", "responses/reward", f"lake/checkpoints/{recipe}"):
        shutil.rmtree(root / folder)


def test_killed_runs_end_like_an_undisturbed_one(undisturbed: Run, tmp_path: Path) -> None:
    run, recipe = undisturbed.copied(tmp_path / "run"), "dpo_rewards"
    root = Path(run.lake.root).parent
    without(run, recipe)
    run.launch_and_kill("preference_data", run.months(), lambda: len(list(root.glob("responses/chat/*/segment-*.parquet"))) >= 4)
    survived = {file: file.read_bytes() for file in root.glob("responses/chat/*/segment-*.parquet")}
    assert run.launch("preference_data", run.months()).returncode == 0
    for file, content in survived.items():
        assert file.read_bytes() == content, "a finished chunk was written again"
    one = f"{recipe}...{recipe}"
    run.launch_and_kill("training", one, lambda: bool(list(root.glob("lake/checkpoints/.*.training/checkpoint-*"))))
    assert run.launch("training", one).returncode == 0
    assert run.fingerprints() == undisturbed.fingerprints()
