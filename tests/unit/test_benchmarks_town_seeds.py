"""A seed of ``benchmarks/town_seeds.py`` is trained again exactly when something that its result follows from has changed."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.definitions import defs
from rlhi_dagster.graph import jobs
from rlhi_dagster.graph.declare import Place

SCRIPT = profiles.ROOT / "benchmarks" / "town_seeds.py"


@pytest.fixture(scope="module")
def town_seeds() -> ModuleType:
    spec = importlib.util.spec_from_file_location("town_seeds", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A checkout and a finished run in ``tmp_path``, and the seeds launched on it."""
    checkout = tmp_path / "checkout"
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RLHI_PROFILE", str(tmp_path / "mine.yaml"))
    data = profiles.data_root()
    for folder in ("rlhi_dagster/profiles", "assets"):
        (checkout / folder).mkdir(parents=True)
    (checkout / "rlhi_dagster" / "code.py").write_text("")
    (tmp_path / "mine.yaml").write_text("{sft: {epochs: 1}, dpo: {}, dpo_on_rewards: {}, sdpo: {}}")
    (checkout / "data").symlink_to(profiles.ROOT / "data")
    lake = Lake(root=str(data / "lake"))
    for name in ("preference_pairs", "users", "thumb_examples", "follow_up_examples"):
        lake.write(name, TABLES[name].empty())
    for name in ("personas", "turns"):
        column = TABLES[name].partition_column
        lake.write(name, TABLES[name].empty(), ["2023-04"] if column else None)
    for name in ("policy", "reward_model", "checkpoints"):
        folder = lake.artefact_path(name)
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"model": {"name": name, "revision": "1", "path": None}}))
    (data / "responses").mkdir()
    monkeypatch.setattr(profiles, "ROOT", checkout)
    found: list[str] = []

    def run(command: list[Any], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        if command[1] == "launch":
            root = profiles.data_root(env) / "lake"
            assert (root / "preference_pairs").is_dir()
            assert not (root / "checkpoints").exists(), "what the job makes is not copied"
            (root / "checkpoints").mkdir()
            found.append(Path(env["RLHI_PROFILE"]).stem)
        return subprocess.CompletedProcess(command, 0, stdout="home\n")

    monkeypatch.setattr(subprocess, "run", run)
    return found


def changed(what: str, checkout: Path, lake: Lake) -> None:
    """Change one thing a result follows from, or one that it does not."""
    if what == "code":
        (checkout / "rlhi_dagster" / "code.py").write_text("changed = True")
    elif what == "profile":
        (checkout.parent / "mine.yaml").write_text("{sft: {epochs: 2}, dpo: {}, dpo_on_rewards: {}, sdpo: {}}")
    elif what == "preference_pairs":
        lake.write(what, pl.DataFrame([dict.fromkeys(TABLES[what].columns)], schema=TABLES[what].schema))
    elif what == "policy":
        (lake.artefact_path(what) / "manifest.json").write_text(json.dumps({"model": {"name": what, "revision": "2", "path": None}}))
    else:
        (checkout / "rlhi_dagster" / "profiles" / "paper.yaml").write_text("{}")


@pytest.mark.parametrize("what", ["code", "profile", "preference_pairs", "policy", "another profile"])
def test_a_seed_is_trained_again_where_its_inputs_changed(
    town_seeds: ModuleType, launches: list[str], tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, out = Lake(root=str(profiles.data_root() / "lake")), tmp_path / "out"
    out.mkdir()
    for seed in (0, 0, 1):
        town_seeds.trained(seed, out, ["base", "sft"])
    assert (launches, capsys.readouterr().err) == (["seed-0", "seed-1"], "")
    changed(what, tmp_path / "checkout", lake)
    copied = town_seeds.trained(0, out, ["base", "sft"])
    again = what != "another profile"
    assert launches[2:] == ["seed-0"] * again
    assert capsys.readouterr().err == (f"seed 0 is trained again: {what} changed since\n" if again else "")
    assert copied.scan("preference_pairs").collect().equals(lake.scan("preference_pairs").collect())


def test_a_run_that_does_not_say_what_it_was_made_from_is_made_again(
    town_seeds: ModuleType, launches: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = profiles.data_root({"RLHI_DATA": str(tmp_path), "RLHI_PROFILE": str(tmp_path / "seed-0.yaml")})
    (root / "lake").mkdir(parents=True)
    (root / "finished").touch()
    town_seeds.trained(0, tmp_path, ["base"])
    assert launches == ["seed-0"]
    assert "nothing says" in capsys.readouterr().err


def test_the_inputs_are_what_the_job_reads_and_does_not_make(town_seeds: ModuleType) -> None:
    graph = defs().resolve_asset_graph()
    made = jobs.training(Place(profiles.load("sample"))).selection.resolve(graph)
    read = {parent for key in made if key.path != ["report"] for parent in graph.get(key).parent_keys} - made
    assert {key.to_user_string() for key in read} == {*town_seeds.TABLES, *town_seeds.MODELS}
