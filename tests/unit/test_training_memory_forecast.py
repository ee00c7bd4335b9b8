"""The memory forecast by hand, and what it advises."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import yaml

from rlhi_dagster.training import memory_forecast
from rlhi_dagster.training.memory_forecast import GIB, Load, MemoryForecastError, Shape
from rlhi_dagster.training.settings import DPOSettings, LoraSettings, TrainingSettings

LLAMA_8B = Shape(
    parameters=8_030_261_248,
    layers=32,
    width=4096,
    key_width=1024,
    feed_forward_width=14_336,
    vocabulary=128_256,
    adapted=32 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336)),
)
PAIRS = Load(sequences=2, longest=2048, keeps_start=False)
BARE = Load(sequences=1, longest=0, keeps_start=False)


def settings(kind: type[TrainingSettings] = DPOSettings, **changed: Any) -> TrainingSettings:
    return kind(**({"batch_size": 48, "micro_batch_size": 4} | changed))


def held(shape: Shape, chosen: TrainingSettings, load: Load = BARE, processes: int = 1) -> dict[str, float]:
    return {name: value * GIB for name, value in asdict(memory_forecast.forecast(shape, chosen, load, processes)).items()}


def test_weights_gradients_and_moments_by_hand() -> None:
    n = LLAMA_8B.parameters
    full = held(LLAMA_8B, settings(bf16=False))
    assert (full["weights"], full["gradients"], full["optimiser"]) == pytest.approx((4 * n, 4 * n, 8 * n))
    assert held(LLAMA_8B, settings())["weights"] == pytest.approx(6 * n), "autocast keeps a copy in bfloat16"
    assert held(LLAMA_8B, settings(), processes=2)["gradients"] == pytest.approx(8 * n), "buckets beside them"


def test_shards_divide_by_the_processes_and_gather_two_blocks_and_the_head() -> None:
    n = LLAMA_8B.parameters
    sharded = settings(sharding="fsdp2", bf16=False)
    found = held(LLAMA_8B, sharded, Load(1, 0, keeps_start=True), processes=4)
    assert (found["gradients"], found["optimiser"], found["start"]) == pytest.approx((n, 2 * n, n))
    assert found["weights"] == pytest.approx(n + (2 * n / 32 + 128_256 * 4096) * 4)


def test_no_device_holds_a_whole_model_in_float32_but_main_memory_does() -> None:
    n, chosen = LLAMA_8B.parameters, settings(sharding="fsdp2", bf16=False)
    assert memory_forecast.forecast(LLAMA_8B, chosen, BARE, 64).total * GIB < 2 * n
    assert memory_forecast.loading(LLAMA_8B, chosen) * GIB == 4 * n
    assert memory_forecast.loading(LLAMA_8B, settings(lora=LoraSettings())) * GIB == 2 * n
    on_cpu = Load(1, 0, keeps_start=True, is_on_cpu=True)
    assert memory_forecast.forecast(LLAMA_8B, chosen, on_cpu, 64).total * GIB == pytest.approx(4 * n + 4 * n / 64 + 4 * n / 64)
    assert (
        memory_forecast.forecast(LLAMA_8B, chosen, on_cpu, 2).total
        == memory_forecast.forecast(LLAMA_8B, chosen, Load(1, 0, keeps_start=True), 2).total
    )


def test_adapters_are_all_that_is_trained() -> None:
    rank, n = 16, LLAMA_8B.parameters
    found = held(LLAMA_8B, settings(lora=LoraSettings(rank=rank)), Load(1, 0, keeps_start=True))
    trained = rank * LLAMA_8B.adapted
    assert trained == 41_943_040, "as PEFT counts them"
    assert found == pytest.approx(
        {"weights": 2 * n + 6 * trained, "gradients": 4 * trained, "optimiser": 8 * trained, "activations": 0, "head": 0, "start": 0}
    )


def test_activations_grow_with_tokens_and_checkpointing_keeps_one_stream_a_layer() -> None:
    kept = held(LLAMA_8B, settings(bf16=False, gradient_checkpointing=False), PAIRS)["activations"]
    tokens = 4 * 2 * 2048
    assert kept == pytest.approx(tokens * 32 * 4 * (9 * 4096 + 2 * 1024 + 4 * 14_336))
    checkpointed = held(LLAMA_8B, settings(bf16=False), PAIRS)["activations"]
    assert checkpointed == pytest.approx(tokens * 4 * (32 * 4096 + 9 * 4096 + 2 * 1024 + 4 * 14_336))
    half = held(LLAMA_8B, settings(bf16=False, micro_batch_size=2), PAIRS)["activations"]
    assert half == pytest.approx(checkpointed / 2)


def test_a_frozen_start_is_counted_unless_adapters_can_be_taken_off() -> None:
    compared = Load(2, 2048, keeps_start=True)
    assert held(LLAMA_8B, settings(), compared)["start"] == pytest.approx(4 * LLAMA_8B.parameters)
    assert held(LLAMA_8B, settings(lora=LoraSettings()), compared)["start"] == 0


@pytest.mark.parametrize("available", [20.0, 30.0, 60.0, 80.0, 140.0, 400.0])
def test_every_advice_would_fit(available: float) -> None:
    chosen = settings(gradient_checkpointing=False)
    ways = memory_forecast.advice(LLAMA_8B, chosen, PAIRS, 1, available)
    assert ways
    for way in ways:
        change = {name: value for part in way.split(" with ") for name, value in yaml.safe_load(part).items()}
        changed = DPOSettings(**(chosen.model_dump() | change))
        assert memory_forecast.forecast(LLAMA_8B, changed, PAIRS, changed.processes or 1).total <= available, way


def test_what_does_not_fit_says_what_would() -> None:
    with pytest.raises(MemoryForecastError) as told:
        memory_forecast.check("dpo_rewards", LLAMA_8B, settings(), PAIRS, 1, 79.0)
    text = str(told.value)
    assert text.startswith("dpo_rewards: training needs ")
    assert "a device, this one has 79.00 GiB: set " in text
    assert "sharding: fsdp2 with processes: 4" in text
    assert "lora: {rank: 16}" in text
    assert "gradient_checkpointing" not in text, "it is on already"
    assert "micro_batch_size: 2" not in text, "weights alone are more than that"


def test_the_mildest_micro_batch_that_fits_is_named() -> None:
    chosen = settings(lora=LoraSettings(), gradient_checkpointing=False)
    room = memory_forecast.forecast(LLAMA_8B, chosen.model_copy(update={"micro_batch_size": 3}), PAIRS, 1).total + 0.01
    assert "micro_batch_size: 3" in memory_forecast.advice(LLAMA_8B, chosen, PAIRS, 1, room)


def test_nothing_fits_a_device_that_is_far_too_small() -> None:
    with pytest.raises(MemoryForecastError, match="no setting makes it fit: take a smaller model or a larger device"):
        memory_forecast.check("dpo", LLAMA_8B, settings(), PAIRS, 1, 0.5)


def test_what_fits_is_forecast() -> None:
    found = memory_forecast.check("dpo", LLAMA_8B, settings(lora=LoraSettings()), PAIRS, 1, 140.0)
    assert 15 < found.total < 140
    assert str(found).startswith(f"{found.total:.2f} GiB (weights 15.")
