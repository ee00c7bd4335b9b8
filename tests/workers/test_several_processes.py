"""Training in several processes on the CPU, started as Dagster starts it: the same curve and weights as one, snapshots, stopping."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param
from safetensors.torch import load_file

from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings
from rlhi_dagster.workers import train_reward, train_sft
from rlhi_dagster.workers.job import TrainingJob
from tests.unpaired import unpaired

ROOT = Path(__file__).parents[2]
TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
SETTINGS = DPOSettings(
    learning_rate=1e-3,
    batch_size=8,
    micro_batch_size=2,
    warmup_steps=1,
    max_length=96,
    bf16=False,
    gradient_checkpointing=False,
    save_steps=5,
    logging_steps=1,
    max_displacement=100,
    max_memorisation=100,
    epochs=10,
    seed=5,
)
# Of each rank, at the first forward pass of each moment: which weights it holds whole, and what its block is.
WATCH = """
import json, os, sys

if "RANK" in os.environ:
    from torch.distributed.tensor import DTensor
    from torch.nn.modules.module import register_module_forward_pre_hook

    moments = {"compute_ref_log_probs", "_loss_before_training", "_draw", "_log_probabilities", "training_step"}
    found = {}

    def note(model, given):
        if not hasattr(model, "lm_head"):
            return
        frame, names = sys._getframe(), set()
        while frame:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        weights = dict(model.named_parameters())
        halves = {name for name, held in weights.items() if isinstance(held, DTensor) and 2 * held.to_local().numel() == held.numel()}
        is_frozen = not any(weight.requires_grad for weight in weights.values())
        for moment in [f"{name} of the start" if is_frozen else name for name in names & moments]:
            if moment not in found:
                found[moment] = [sorted(weights.keys() - halves), type(model.model.layers[0]).__name__]
                with open(os.path.join(os.path.dirname(__file__), f"rank{os.environ['RANK']}.json"), "w") as file:
                    json.dump(found, file)

    register_module_forward_pre_hook(note)
"""


@dataclass(frozen=True)
class Setup:
    """A tiny model and the pairs to train it on."""

    model: ModelRef
    train: Path
    validation: Path

    def job(self, out: Path, method: str = "dpo", **changed: Any) -> dict[str, Any]:
        settings = SETTINGS.model_dump() | changed
        if method != "dpo":
            settings = {name: value for name, value in settings.items() if name in TrainingSettings.model_fields}
        validation = self.validation.with_stem("validation-dpo") if method == "dpo" else self.validation
        train, validation = (unpaired(file) if method == "kto" else file for file in (self.train, validation))
        paths = {"train": str(train), "validation": str(validation), "out": str(out), "store": str(out.parent / "store")}
        job = {
            "name": "tiny",
            "method": method,
            "model": self.model.to_dict(),
            "settings": settings,
            "inputs": "v1",
            "extra": {} if method == "reward" else {"reply_tokens": 4},
        }
        return job | paths | {"origin": {}}


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> Setup:
    folder = tmp_path_factory.mktemp("setup")
    save_tiny_llama(folder / "model", TEXTS, max_position_embeddings=128, initializer_range=0.2)
    rows = [
        {
            "pair_id": f"p{number}",
            "prompt": [{"role": "user", "content": f"{TEXTS[number % 3]} {number}"}],
            "chosen": f"Sure. {TEXTS[(number + 1) % 3]}" * (1 + number % 2),
            "rejected": f"No {number}.",
        }
        for number in range(29)
    ]
    pl.DataFrame(rows[:24], schema=TRAINING_ROWS).write_parquet(folder / "train.parquet")
    pl.DataFrame(rows[24:28], schema=TRAINING_ROWS).write_parquet(folder / "validation.parquet")
    # Of DPO, a number that fills no batch: each pair has to count once.
    pl.DataFrame(rows[24:], schema=TRAINING_ROWS).write_parquet(folder / "validation-dpo.parquet")
    model = ModelRef("tiny", weights_digest(folder / "model"), str(folder / "model"))
    return Setup(model, folder / "train.parquet", folder / "validation.parquet")


def start(job: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    """Start the worker of a job as Dagster does, in a session of its own; its messages come to lie in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"asset_keys": ["checkpoints"], "run_id": "r", "job_name": None, "retry_number": 0, "extras": {"jobs": [job], "later": []}}
    (folder / "context.json").write_text(json.dumps(given))
    pipes = {
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"path": str(folder / "context.json")}),
        DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": str(folder / "messages")}),
    }
    command = [sys.executable, "-m", "rlhi_dagster.workers.launch", f"train_{job['method']}"]
    environment = {**os.environ, **pipes, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a job to its end; its manifest."""
    process = start(job, folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-4000:]
    return json.loads((Path(job["out"]) / "manifest.json").read_text())  # type: ignore[no-any-return]


def messages(folder: Path) -> list[dict[str, Any]]:
    file = folder / "messages"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def logged(folder: Path) -> list[str]:
    return [message["params"]["message"] for message in messages(folder) if message["method"] == "log"]


def curve(manifest: dict[str, Any], kind: str = "steps", what: str = "loss") -> list[float]:
    return [point[what] for point in manifest[kind]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, two: Path, atol: float) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def alone(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    run(setup.job(folder / "tiny"), folder / "pipes")
    return folder


def snapshots(job: dict[str, Any]) -> list[Path]:
    """Whole snapshots of a job that is not finished."""
    return [file.parent for file in Path(job["out"]).parent.glob(".tiny.training/checkpoint-*/trainer_state.json")]


def interrupt(job: dict[str, Any], folder: Path, number: signal.Signals) -> str:
    """Start a job, send its first process a signal as soon as there is a snapshot, wait until all its processes are gone; their output."""
    process = start(job, folder)
    while not snapshots(job):
        assert process.poll() is None, process.communicate()[0][-4000:]
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    deadline = time.monotonic() + 60
    while left := running(folder):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)
    assert not Path(job["out"]).exists()
    return output


def running(folder: Path) -> list[str]:
    """Processes of a job, found by what they were handed."""
    mark, found = encode_param({"path": str(folder / "context.json")}).encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() and not (process / "stat").read_text().rpartition(")")[2].startswith(" Z"):
                found.append(process.name)
        except OSError:
            continue
    return found


def assert_alike(found: Path, expected: Path, steps: int = 30) -> None:
    """Two artefacts have the same curves, the same chosen snapshot and the same weights, to rounding."""
    one, two = (json.loads((folder / "manifest.json").read_text()) for folder in (found, expected))
    assert len(curve(two)) == steps
    assert curve(two)[-1] < curve(two)[0] - 0.05, "training moves the loss"
    assert curve(one) == pytest.approx(curve(two), abs=1e-4)
    for held_out in ("eval_preference_loss", "eval_logps/chosen") if two["method"] == "dpo" else ("eval_loss",):
        assert curve(one, "evaluations", held_out) == pytest.approx(curve(two, "evaluations", held_out), abs=1e-4, rel=1e-5)
    assert (one["chosen"]["step"], one["effective_batch"]) == (two["chosen"]["step"], 8)
    if two["method"] == "dpo":
        assert one["step0_loss"] == pytest.approx(two["step0_loss"], abs=1e-4)
    if two["method"] != "reward":
        assert curve(one, "evaluations", "eval_kl") == pytest.approx(curve(two, "evaluations", "eval_kl"), abs=1e-3)
        assert curve(two, "evaluations", "eval_kl")[-1] > 0.1
    assert_same_weights(found, expected, 1e-4)


@pytest.mark.slow
def test_two_processes_train_as_one_does(setup: Setup, alone: Path, tmp_path: Path) -> None:
    two = run(setup.job(tmp_path / "tiny", processes=2), tmp_path / "pipes")
    assert two["world_size"] == 2
    assert_alike(tmp_path / "tiny", alone / "tiny")
    methods = [message["method"] for message in messages(tmp_path / "pipes")]
    assert (methods.count("opened"), methods.count("closed")) == (1, 1), "one process talks to Dagster"


@pytest.mark.slow
def test_told_to_stop_it_writes_a_snapshot_and_goes_on_from_there(setup: Setup, alone: Path, tmp_path: Path) -> None:
    job = setup.job(tmp_path / "tiny")
    interrupt(job, tmp_path / "stopped", signal.SIGINT)
    (told,) = [line for line in logged(tmp_path / "stopped") if "finishing the step in hand" in line]
    assert told.startswith("SIGINT")
    (kept,) = {int(folder.name.partition("-")[2]) for folder in snapshots(job)} - {5, 10, 15, 20, 25}
    run(job, tmp_path / "again")
    assert f"training tiny: resuming from checkpoint-{kept}" in logged(tmp_path / "again")
    assert_alike(tmp_path / "tiny", alone / "tiny")


@pytest.mark.slow
def test_shards_outlive_a_kill_of_what_started_them(setup: Setup, alone: Path, tmp_path: Path) -> None:
    job = setup.job(tmp_path / "tiny", processes=2, sharding="fsdp2", gradient_checkpointing=True)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/sitecustomize.py").write_text(WATCH)
    interrupt(job, tmp_path / "killed", signal.SIGKILL)
    moments = ["compute_ref_log_probs", "_loss_before_training", "_draw", "_log_probabilities", "training_step"]
    blocks = dict.fromkeys(moments, "FSDPCheckpointWrapper") | {"_log_probabilities of the start": "FSDPLlamaDecoderLayer"}
    for number in range(2):
        held = json.loads((tmp_path / f"killed/rank{number}.json").read_text())
        assert {moment: block for moment, (_, block) in held.items()} == blocks
        for moment, (whole, _) in held.items():
            assert set(whole) <= {"lm_head.weight", "model.norm.weight"}, f"{moment}: of shares, but for what follows the blocks"
    assert all((folder / "pytorch_model_fsdp_0").is_dir() and not list(folder.glob("*.safetensors")) for folder in snapshots(job)), "shards"
    run(job, tmp_path / "again")
    assert any("resuming from" in line for line in logged(tmp_path / "again"))
    assert_alike(tmp_path / "tiny", alone / "tiny")


@pytest.mark.slow
def test_shards_with_adapters_and_a_shared_prefix_train_as_one_process_does(setup: Setup, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lora": {"rank": 1, "alpha": 2}, "shared_prefix": True, "learning_rate": 1e-2}
    run(setup.job(tmp_path / "whole/tiny", **settings), tmp_path / "whole/pipes")
    job = setup.job(tmp_path / "shared/tiny", processes=2, sharding="fsdp2", **settings)
    output = interrupt(job, tmp_path / "shared/stopped", signal.SIGTERM)
    assert "stopped: tiny is kept at step" in output
    run(job, tmp_path / "shared/again")
    assert_alike(tmp_path / "shared/tiny", tmp_path / "whole/tiny")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "reward"])
def test_shards_train_as_one_process_does_whatever_the_method(setup: Setup, tmp_path: Path, method: str) -> None:
    settings: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-2}
    run(setup.job(tmp_path / "shared/tiny", method, processes=2, sharding="fsdp2", **settings), tmp_path / "shared/pipes")
    whole = TrainingJob.from_dict(setup.job(tmp_path / "whole/tiny", method, **settings))
    {"sft": train_sft, "reward": train_reward}[method].train(whole, lambda line: None)
    assert_alike(tmp_path / "shared/tiny", tmp_path / "whole/tiny", steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicate", "fsdp2"])
def test_several_processes_train_on_thumbs(setup: Setup, tmp_path: Path, sharding: str) -> None:
    found = run(setup.job(tmp_path / "tiny", "kto", processes=2, sharding=sharding, epochs=2), tmp_path / "pipes")
    assert (found["world_size"], found["trained_rows"], found["thumbs"]["up"]) == (2, 24, 12)
    assert found["step0_loss"] == pytest.approx(0.5, abs=1e-4)
    assert found["validation"]["rewards/margins"] > 0


@pytest.mark.slow
def test_shards_in_bfloat16_tell_log_probabilities_apart(setup: Setup, alone: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lora": {"rank": 1, "alpha": 8}, "bf16": True, "epochs": 1}
    run(setup.job(tmp_path / "tiny", processes=2, sharding="fsdp2", **settings), tmp_path / "pipes")
    found, exact = (
        pl.concat(map(pl.read_parquet, sorted((folder / "store").rglob("*.parquet"))))["chosen_logp"].sort() for folder in (tmp_path, alone)
    )
    assert exact.min() < -128, "where neighbours in bfloat16 are 1 apart"
    assert (found - exact).abs().max() < 0.2
