"""``rlhi evaluate``: a checkpoint of any origin on public benchmarks, with scripted models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.graph import pipes
from tests.snapshot import Engine, Workers

POLICY = profiles.ROOT / "data" / "sample" / "town-policy"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    problems = [{"id": str(n), "question": f"What is {n}+1?", "answer": str(n + 1)} for n in range(12)]
    (folder / "aime24.test.jsonl").write_text("\n".join(map(json.dumps, problems)))
    dialogues = [{"question_id": n, "category": "c", "turns": [f"q{n} first", f"q{n} then"]} for n in range(6)]
    (folder / "question.jsonl").write_text("\n".join(map(json.dumps, dialogues)))
    return folder


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "run", Workers(Engine(["Answer: 3"])).run)


def test_a_folder_is_scored_on_several_benchmarks(
    files: Path, tmp_path: Path, rlhi: Callable[..., CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch, scripted: None
) -> None:
    checkpoint = shutil.copytree(POLICY, tmp_path / "My Checkpoint")
    mine = tmp_path / "mine.yaml"
    judge = {"folder": str(POLICY)}
    mine.write_text(yaml.safe_dump({"extends": "sample", "name": "mine", "models": {"judge": judge}, "evaluation": {"samples": 3}}))
    monkeypatch.setenv("RLHI_PROFILE", str(mine))
    done = rlhi(tmp_path / "data", "evaluate", str(checkpoint), "--benchmarks", f"aime_24={files}", f"mt_bench={files}")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:6]] == [
        ["aime_24", "accuracy"],
        ["aime_24", "accuracy_of_answered"],
        ["mt_bench", "rating"],
        ["mt_bench/turn_1", "rating"],
        ["mt_bench/turn_2", "rating"],
    ]
    (root,) = (tmp_path / "data").rglob("evaluations/*/lake")
    lake = Lake(root=str(root))
    replies = lake.scan("benchmark_responses").collect()
    assert replies.group_by("benchmark").len().sort("benchmark").rows() == [("aime_24", 36), ("mt_bench", 12)]
    assert set(lake.scan("benchmark_scores").collect()["recipe"]) == {"my_checkpoint"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "which benchmarks? Say --benchmarks NAME=FOLDER"),
        (("--benchmarks", "aime_24"), "where are the files of aime_24?"),
        (("--benchmarks", "aime_25=x"), "aime_25 is no benchmark"),
        (("--benchmarks", "aime_24=nowhere"), "nowhere: none of aime24.test.jsonl is there"),
    ],
)
def test_what_is_lacking_is_told(
    arguments: tuple[str, ...], told: str, tmp_path: Path, rlhi: Callable[..., CompletedProcess[str]], scripted: None
) -> None:
    done = rlhi(tmp_path / "data", "evaluate", str(POLICY), *arguments)
    assert done.returncode == 1
    assert told in done.stderr


def test_a_model_has_to_judge(files: Path, tmp_path: Path, rlhi: Callable[..., CompletedProcess[str]], scripted: None) -> None:
    done = rlhi(tmp_path / "data", "evaluate", str(POLICY), "--benchmarks", f"mt_bench={files}")
    assert done.returncode == 1
    assert "mt_bench: a model has to judge; name one as models.judge" in done.stderr
