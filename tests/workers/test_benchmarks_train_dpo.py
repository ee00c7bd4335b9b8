"""What ``benchmarks/train_dpo.py`` trains is what its output says."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rlhi_dagster import profiles
from rlhi_dagster.training.flops import ModelShape, training_flops
from rlhi_dagster.training.settings import LoraSettings


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_train_dpo", profiles.ROOT / "benchmarks" / "train_dpo.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def tiny(shape: str) -> argparse.Namespace:
    return argparse.Namespace(shape=shape, layers=1, width=128, pairs=2, batch=2, micro=2, shared=20, side=8, spread=0.0, seed=0, rounds=1)


@pytest.mark.parametrize("kind", ["plain TRL", "all"])
def test_the_8b_shape_trains_adapters_on_bfloat16_as_the_product_does(benchmark: ModuleType, tmp_path: Path, kind: str) -> None:
    given = tiny("8b")
    made = benchmark.trainer(kind, given, benchmark.pairs(given), tmp_path / "out", tmp_path / "store")
    weights = dict(made.model.named_parameters())
    trained = {name for name, weight in weights.items() if weight.requires_grad}
    assert trained == {name for name in weights if "lora_" in name}
    assert {weights[name].dtype for name in trained} == {torch.float32}
    assert {weight.dtype for name, weight in weights.items() if name not in trained} == {torch.bfloat16}
    config = made.model.peft_config["default"]
    assert (config.r, config.lora_alpha) == (LoraSettings().rank, LoraSettings().alpha)
    assert (made.args.bf16, made.args.gradient_checkpointing) == (True, True)
    made.train()


def test_the_small_shape_trains_all_weights_in_float32(benchmark: ModuleType, tmp_path: Path) -> None:
    given = tiny("small")
    made = benchmark.trainer("all", given, benchmark.pairs(given), tmp_path / "out", tmp_path / "store")
    assert {(weight.dtype, weight.requires_grad) for weight in made.model.parameters()} == {(torch.float32, True)}
    assert (made.args.bf16, made.args.gradient_checkpointing) == (False, False)


def test_weights_beside_adapters_cost_no_gradient(benchmark: ModuleType) -> None:
    shape = ModelShape(body=100, head=10, attention=3)
    whole, adapted = (benchmark.flops(shape, (7, 28), 2, has_adapters=adapters) for adapters in (False, True))
    assert whole == training_flops(shape, 7, 2, 28)
    assert adapted == 4 * (100 * 7 + 10 * 2) + 12 * 3 * 28
