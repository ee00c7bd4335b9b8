"""Low-rank adapters: trained, resumed after a kill, merged; the artefact holds plain weights that answer as the model with adapters did."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings, LoraSettings, TrainingSettings
from rlhi_dagster.workers.weights import merged
from tests import forked
from tests.unpaired import unpaired

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
SETTINGS = DPOSettings(
    learning_rate=3e-2,
    batch_size=4,
    micro_batch_size=2,
    warmup_steps=1,
    max_length=96,
    bf16=False,
    gradient_checkpointing=False,
    lora=LoraSettings(rank=4, alpha=8),
    save_steps=2,
    logging_steps=1,
    seed=5,
)
# Runs a list of jobs in one process; at the last one's step `dies_at` the process dies.
TRAIN = """
import importlib, json, os, signal, sys
from rlhi_dagster.workers import train_loop

note = train_loop.Watch.on_step_end
jobs, dies_at = json.loads(sys.argv[1])

def on_step_end(self, args, state, control, **kwargs):
    if state.global_step == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    note(self, args, state, control, **kwargs)

train_loop.Watch.on_step_end = on_step_end
for job in map(train_loop.TrainingJob.from_dict, jobs):
    importlib.import_module(f"rlhi_dagster.workers.train_{job.method}").train(job, lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> Path:
    """A folder with a tiny model and pairs to train it on."""
    folder = tmp_path_factory.mktemp("start")
    save_tiny_llama(folder / "model", TEXTS, max_position_embeddings=128, initializer_range=0.2)
    rows = [
        {
            "pair_id": f"p{number}",
            "prompt": [{"role": "user", "content": f"{TEXTS[number % 3]} {number}"}],
            "chosen": f"Sure. {TEXTS[(number + 1) % 3]}",
            "rejected": f"No {number}.",
        }
        for number in range(20)
    ]
    pl.DataFrame(rows[:16], schema=TRAINING_ROWS).write_parquet(folder / "train.parquet")
    pl.DataFrame(rows[16:], schema=TRAINING_ROWS).write_parquet(folder / "validation.parquet")
    return folder


def job(start: Path, out: Path, method: str, **changed: Any) -> dict[str, Any]:
    model = ModelRef("tiny", weights_digest(start / "model"), str(start / "model"))
    settings = SETTINGS.model_copy(update=changed).model_dump(include=None if method == "dpo" else set(TrainingSettings.model_fields))
    train, validation = (unpaired(file) if method == "kto" else file for file in (start / "train.parquet", start / "validation.parquet"))
    paths = {"train": str(train), "validation": str(validation), "store": str(out.parent / "store")}
    facts = {"name": "tiny", "method": method, "model": model.to_dict(), "settings": settings, "inputs": "v1", "extra": {}, "origin": {}}
    return facts | paths | {"out": str(out)}


def run(*jobs: dict[str, Any], dies_at: int | None = None) -> str:
    done = forked.run(TRAIN, json.dumps([jobs, dies_at]))
    assert done.returncode == (0 if dies_at is None else -signal.SIGKILL), done.stderr[-4000:]
    return done.stdout


def load(folder: Path, method: str) -> PreTrainedModel:
    kind = AutoModelForSequenceClassification if method == "reward" else AutoModelForCausalLM
    return kind.from_pretrained(folder).eval()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "reward"])
def test_a_killed_run_with_adapters_ends_as_an_undisturbed_one_in_plain_weights(start: Path, tmp_path: Path, method: str) -> None:
    whole, broken = (job(start, tmp_path / name / "tiny", method) for name in ("whole", "broken"))
    run(broken, dies_at=3)
    kept = {file.name for file in (tmp_path / "broken/.tiny.training/checkpoint-2").iterdir()}
    assert "adapter_model.safetensors" in kept
    assert "model.safetensors" not in kept, "snapshots hold adapters only"
    assert "resuming from checkpoint-2" in run(whole, broken)
    found, expected = (load_file(Path(each["out"]) / "model.safetensors") for each in (broken, whole))
    before = load_file(start / "model/model.safetensors")
    assert (
        found.keys()
        == expected.keys()
        == (before.keys() if method != "reward" else (before.keys() - {"lm_head.weight"}) | {"score.weight"})
    )
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)
    trained = {name for name in before.keys() & found.keys() if not torch.equal(before[name], found[name])}
    assert trained == {name for name in before if "_proj" in name}, "every linear layer but the head, and nothing else"
    assert not list((tmp_path / "whole/tiny").glob("adapter*"))
    load(tmp_path / "whole/tiny", method)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_weights_answer_as_the_model_with_adapters(start: Path, dtype: torch.dtype) -> None:
    base = AutoModelForCausalLM.from_pretrained(start / "model", dtype=dtype)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(1)
    model = get_peft_model(base, config).eval()
    ids = torch.arange(5, 45)[None]
    plain = AutoModelForCausalLM.from_pretrained(start / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        untrained = plain(ids).logits
        plain.load_state_dict(merged(model.state_dict(), model.peft_config["default"]))
        with_adapters = model.float()(ids).logits
        torch.testing.assert_close(plain(ids).logits, with_adapters, rtol=0, atol=1e-5)
    assert (with_adapters - untrained).abs().max() > 0.1, "the adapters do something"


def test_a_base_in_bfloat16_is_merged_in_float32(start: Path, tmp_path: Path) -> None:
    given = job(start, tmp_path / "tiny", "dpo", bf16=True, learning_rate=1e-4, gradient_checkpointing=True)
    run(given)
    found = load_file(tmp_path / "tiny/model.safetensors")
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    before = load_file(start / "model/model.safetensors")
    changed = (found["model.layers.0.mlp.up_proj.weight"] - before["model.layers.0.mlp.up_proj.weight"].bfloat16().float()).abs()
    assert 0 < changed.median() < 1e-4, "smaller than what bfloat16 tells apart"
    assert load(tmp_path / "tiny", "dpo").dtype == torch.float32
    assert json.loads((tmp_path / "tiny/manifest.json").read_text())["step0_loss"] == pytest.approx(0.6931, abs=1e-3)
