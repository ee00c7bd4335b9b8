"""Kills: a training run and a generation run that die by SIGKILL end as undisturbed ones do."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings
from tests import forked
from tests.unpaired import told, unpaired

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
SAMPLING = Sampling(0.6, 0.9, 12, 7)
SETTINGS = DPOSettings(
    learning_rate=3e-3,
    batch_size=4,
    micro_batch_size=2,
    warmup_steps=1,
    max_length=96,
    sft_weight=0.5,
    bf16=False,
    gradient_checkpointing=False,
    save_steps=2,
    logging_steps=1,
    seed=5,
)

TRAIN = """
import importlib, json, os, signal, sys
from rlhi_dagster.workers import train_loop

job, dies_at = train_loop.TrainingJob.from_dict(json.loads(sys.argv[1])), int(sys.argv[2])
note = train_loop.Watch.on_step_end

def on_step_end(self, args, state, control, **kwargs):
    print("step", state.global_step, flush=True)
    if state.global_step == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    note(self, args, state, control, **kwargs)

train_loop.Watch.on_step_end = on_step_end
importlib.import_module(f"rlhi_dagster.workers.train_{job.method}").train(job, lambda line: print(line, flush=True))
"""
GENERATE = """
import json, os, signal, sys
from pathlib import Path
from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.ask import fulfil
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.engines.transformers import TransformersChatEngine

given, dies_in = json.loads(sys.argv[1]), int(sys.argv[2])
model, sampling, chunks = ModelRef(**given["model"]), Sampling(**given["sampling"]), 0
loaded = TransformersChatEngine(model, TransformersSettings(device="cpu", dtype="float32", batch_size=4, chunk_size=3))
work = loaded._chunk

def counted(calls, sampling):
    global chunks
    if chunks == dies_in:
        os.kill(os.getpid(), signal.SIGKILL)
    chunks += 1
    print(json.dumps([key for key, _ in calls]), flush=True)
    return work(calls, sampling)

loaded._chunk = counted
requests = [ChatRequest(messages, index) for messages, index in given["requests"]]
store = ResponseStore(Path(given["store"]), "chat", model.identity)
keyed = {request.key(model, sampling, "e"): request for request in requests}
fulfil(keyed, store, lambda calls: loaded.answer(calls, sampling), lambda request: "", chunk_size=3)
"""


@dataclass(frozen=True)
class Setup:
    """A tiny model and the pairs to train it on; the last pair is too long."""

    model: ModelRef
    train: Path
    validation: Path

    def job(self, out: Path, method: str = "dpo") -> dict[str, Any]:
        settings = SETTINGS.model_dump(include=None if method == "dpo" else set(TrainingSettings.model_fields))
        made = {"kto": unpaired, "sdpo": told}.get(method, lambda file: file)
        train, validation = made(self.train), made(self.validation)
        paths = {"train": str(train), "validation": str(validation), "out": str(out)}
        return {
            "name": "tiny",
            "method": method,
            "model": self.model.to_dict(),
            "settings": settings,
            "inputs": "v1",
            **paths,
            "store": str(out.parent.with_suffix(".store")),
            "extra": {},
        }


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> Setup:
    folder = tmp_path_factory.mktemp("setup")
    save_tiny_llama(folder / "model", TEXTS, max_position_embeddings=128, initializer_range=0.2)
    rows = [
        {
            "pair_id": f"p{number}",
            "prompt": [{"role": "user", "content": f"{TEXTS[number % 3]} {number}"}],
            "chosen": f"Sure. {TEXTS[(number + 1) % 3]}",
            "rejected": f"No {number}.",
        }
        for number in range(28)
    ]
    long = rows[0] | {"pair_id": "long", "rejected": "tulips " * 200}
    pl.DataFrame([*rows[:24], long], schema=TRAINING_ROWS).write_parquet(folder / "train.parquet")
    pl.DataFrame(rows[24:], schema=TRAINING_ROWS).write_parquet(folder / "validation.parquet")
    model = ModelRef("tiny", weights_digest(folder / "model"), str(folder / "model"))
    return Setup(model, folder / "train.parquet", folder / "validation.parquet")


def start(program: str, given: dict[str, Any], dies: int = -1) -> CompletedProcess[str]:
    return forked.run(program, json.dumps(given), str(dies))


def steps_of(done: CompletedProcess[str]) -> list[int]:
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("step ")]


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())  # type: ignore[no-any-return]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def undisturbed(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "tiny"
    done = start(TRAIN, setup.job(out))
    assert done.returncode == 0, done.stderr
    assert steps_of(done) == [1, 2, 3, 4, 5, 6]
    return out


def test_training_starts_from_equal_policies_and_changes_the_weights(setup: Setup, undisturbed: Path) -> None:
    found = manifest(undisturbed)
    assert found["step0_loss"] == pytest.approx(math.log(2), abs=1e-3)
    before, after = weights(Path(str(setup.model.path))), weights(undisturbed)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert found["model"]["revision"] == weights_digest(undisturbed) != setup.model.revision
    assert [step["step"] for step in found["steps"]] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(step["loss"]) for step in found["steps"])
    assert found["steps"][-1]["rewards/margins"] > 0


def test_a_pair_that_is_too_long_is_left_out_and_counted(undisturbed: Path) -> None:
    found = manifest(undisturbed)
    assert (found["pairs"], found["pairs_too_long"], found["validation_pairs"]) == (24, 1, 4)


def test_only_the_finished_artefact_stays(undisturbed: Path) -> None:
    assert [entry.name for entry in undisturbed.parent.iterdir()] == ["tiny"]
    assert not list(undisturbed.glob("*.bin")) + list(undisturbed.glob("*.pt"))


def test_a_killed_train_loop_resumes_to_the_same_weights(setup: Setup, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    killed = start(TRAIN, setup.job(out), 5)
    assert (killed.returncode, steps_of(killed)) == (-signal.SIGKILL, [1, 2, 3, 4, 5])
    assert not out.exists()
    again = start(TRAIN, setup.job(out))
    assert again.returncode == 0, again.stderr
    assert "resuming from checkpoint-4" in again.stdout
    assert steps_of(again) == [5, 6]
    assert_same_weights(out, undisturbed)
    assert [step["step"] for step in manifest(out)["steps"]] == [1, 2, 3, 4, 5, 6]
    assert manifest(out)["step0_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.slow
def test_a_half_written_snapshot_and_one_of_other_inputs_are_not_resumed(setup: Setup, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    killed = start(TRAIN, setup.job(out), 5)
    assert killed.returncode == -signal.SIGKILL
    work = tmp_path / ".tiny.training"
    (work / "checkpoint-4" / "trainer_state.json").unlink()
    done = start(TRAIN, setup.job(out), 1)
    assert "resuming" not in done.stdout
    assert steps_of(done) == [1]
    (work / "inputs").write_text("v0")
    (work / "checkpoint-2").mkdir()
    (work / "checkpoint-2" / "trainer_state.json").write_text("{}")
    last = start(TRAIN, setup.job(out))
    assert last.returncode == 0, last.stderr
    assert steps_of(last) == [1, 2, 3, 4, 5, 6]
    assert_same_weights(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "kto", "sdpo", "reward"])
def test_the_other_methods_resume_too(setup: Setup, tmp_path: Path, method: str) -> None:
    whole, broken = tmp_path / "whole/tiny", tmp_path / "broken/tiny"
    assert (done := start(TRAIN, setup.job(whole, method))).returncode == 0, done.stderr
    assert start(TRAIN, setup.job(broken, method), 3).returncode == -signal.SIGKILL
    assert (again := start(TRAIN, setup.job(broken, method))).returncode == 0, again.stderr
    assert steps_of(again) == [3, 4, 5, 6]
    assert_same_weights(whole, broken)


def test_nothing_that_fits_is_an_error_that_says_so(setup: Setup, tmp_path: Path) -> None:
    job = setup.job(tmp_path / "tiny")
    job["settings"]["max_length"] = 16
    done = start(TRAIN, job)
    assert done.returncode == 1
    assert "tiny: no pair to train on (25 are longer than max_length 16 tokens)" in done.stderr


def test_a_killed_generation_run_asks_only_for_the_rest(setup: Setup, tmp_path: Path) -> None:
    requests = [([{"role": "user", "content": TEXTS[number % 3] * (1 + number % 2)}], number) for number in range(14)]
    keys = [ChatRequest(messages, index).key(setup.model, SAMPLING, "e") for messages, index in requests]

    def run(name: str, dies: int = -1) -> tuple[int, list[list[str]]]:
        sampling = {"temperature": 0.6, "top_p": 0.9, "max_new_tokens": 12, "seed": 7}
        given = {"model": setup.model.to_dict(), "sampling": sampling, "requests": requests, "store": str(tmp_path / name)}
        done = start(GENERATE, given, dies)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]

    def stored(name: str) -> list[ChatAnswer]:
        return read_chat(keys, ResponseStore(tmp_path / name, "chat", setup.model.identity))

    code, whole = run("undisturbed")
    assert (code, [len(chunk) for chunk in whole]) == (0, [3, 3, 3, 3, 2])
    killed_code, before = run("killed", 2)
    assert (killed_code, before) == (-signal.SIGKILL, whole[:2])
    again_code, after = run("killed")
    assert (again_code, after) == (0, whole[2:])
    assert stored("killed") == stored("undisturbed")
    assert run("killed") == (0, [])
