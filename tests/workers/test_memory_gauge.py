"""The memory forecast against what training a mid-sized random Llama takes on the CPU, and runs that would not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings
from rlhi_dagster.workers.memory_gauge import shape_of
from rlhi_dagster.workers.train_policy import build_tokenizer
from tests import forked

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "learning_rate": 1e-4,
    "batch_size": 4,
    "micro_batch_size": 4,
    "warmup_steps": 0,
    "max_length": 640,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
}
TRAIN = """
import importlib, json, sys
from rlhi_dagster.workers import train_pairs
from rlhi_dagster.workers.job import TrainingJob

job, available = json.loads(sys.argv[1])
if available is not None:
    class Small(train_pairs.Gauge):
        def __init__(self):
            super().__init__()
            self.available = available
    train_pairs.Gauge = Small
job = TrainingJob.from_dict(job)
importlib.import_module(f"rlhi_dagster.workers.train_{job.method}").train(job, lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 17 million parameters and pairs of some 600 tokens a side."""
    folder = tmp_path_factory.mktemp("start")
    words = [f"{first}{second}" for first in "bcdfghklmnprstvz" for second in "aeiou"]
    tokenizer = build_tokenizer([" ".join(words)], 400)
    shape = LlamaConfig(
        vocab_size=4000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=6,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=1024,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(shape).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    text = " ".join(words)[:500]
    rows = [
        {"pair_id": f"p{n}", "prompt": [{"role": "user", "content": text[n:]}], "chosen": f"Yes {text}", "rejected": f"No {text}"}
        for n in range(8)
    ]
    pl.DataFrame(rows, schema=TRAINING_ROWS).write_parquet(folder / "train.parquet")
    return folder


def train(start: Path, out: Path, method: str, available: float | None = None, **changed: Any) -> subprocess.CompletedProcess[str]:
    settings = (DPOSettings if method == "dpo" else TrainingSettings)(**{**SETTINGS, **changed}).model_dump()
    job = {
        "name": "tiny",
        "method": method,
        "model": ModelRef("tiny", "r1", str(start / "model")).to_dict(),
        "train": str(start / "train.parquet"),
        "validation": None,
        "settings": settings,
        "out": str(out),
        "inputs": "v1",
        "store": str(out.parent / "store"),
        "extra": {},
        "origin": {},
    }
    if available is not None:
        return forked.run(TRAIN, json.dumps([job, available]))
    command = [sys.executable, "-c", TRAIN, json.dumps([job, available])]
    # Without this, malloc keeps freed tensors of up to 32 MiB, and resident memory is not what is in use: mallopt(3).
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_shape_comes_from_the_configuration_alone(start: Path, tmp_path: Path) -> None:
    for file in (start / "model").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    model = ModelRef("tiny", "r1", str(tmp_path))
    shape = shape_of(model)
    assert shape.parameters == sum(weights.numel() for weights in LlamaForCausalLM.from_pretrained(start / "model").parameters())
    assert (shape.layers, shape.width, shape.key_width, shape.feed_forward_width, shape.vocabulary) == (8, 384, 384, 1024, 4000)
    assert shape.adapted == 8 * (4 * (384 + 384) + 3 * (384 + 1024))
    assert shape_of(model, has_head=False).parameters == shape.parameters - 4000 * 384


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("dpo", {}),
        ("dpo", {"gradient_checkpointing": True}),
        ("dpo", {"lora": {"rank": 16}, "bf16": True}),
    ],
)
def test_the_forecast_is_near_what_training_takes(start: Path, tmp_path: Path, method: str, changed: dict[str, Any]) -> None:
    done = train(start, tmp_path / "tiny", method, **changed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "memory forecast" in done.stdout
    held = json.loads((tmp_path / "tiny/manifest.json").read_text())["memory"]
    factor = held["measured_gib"] / sum(held["forecast_gib"].values())
    assert 0.8 < factor < 1.4, held


def test_what_does_not_fit_ends_before_weights_are_loaded(start: Path, tmp_path: Path) -> None:
    done = train(start, tmp_path / "tiny", "dpo", available=0.5)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "MemoryForecastError: tiny: training needs" in told
    assert "this one has 0.50 GiB: set gradient_checkpointing: true" in told
    assert "Loading weights" not in done.stderr
    assert not list(tmp_path.glob(".tiny*"))
