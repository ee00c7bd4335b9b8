"""Which snapshot is kept: the best one on held-out users, not the last, and never one that the gates pass over if another is sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.training.manifest_checks import (
    chosen_likelihood_holds,
    no_memorisation,
    nothing_lost,
    only_replies_carry_loss,
    step0_loss_is_ln2,
)
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings
from rlhi_dagster.workers import train_dpo, train_loop, train_sft
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_loop import Watch

WORDS = ["mint", "thyme", "sage", "river", "stone", "bread", "lamp", "winter", "garden", "tulip"]
HOW = {
    "learning_rate": 3e-2,
    "epochs": 8,
    "batch_size": 4,
    "micro_batch_size": 4,
    "warmup_steps": 1,
    "max_length": 96,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_steps": 2,
    "logging_steps": 1,
}
ORIGIN = {
    "table": "preference_pairs",
    "data_version": "a" * 64,
    "rows_digest": "b" * 32,
    "pairs": 8,
    "validation_pairs": 8,
    "by_source": {"rewrites": 8},
    "users": 3,
    "code_version": "1",
    "conversations": "town",
    "hub_dataset": None,
    "is_simulated": True,
}
Snapshots = dict[int, dict[str, torch.Tensor]]


def pairs(start: int, count: int) -> pl.DataFrame:
    """Replies that have nothing to do with the request: those of some users tell nothing about those of others."""
    rows = [
        {
            "pair_id": f"p{number}",
            "prompt": [{"role": "user", "content": f"About {WORDS[number % 10]} {number}?"}],
            "chosen": " ".join(Random(number).choices(WORDS, k=4)),
            "rejected": " ".join(Random(-1 - number).choices(WORDS, k=4)),
        }
        for number in range(start, start + count)
    ]
    return pl.DataFrame(rows, schema=TRAINING_ROWS)


@pytest.fixture
def snapshots(monkeypatch: pytest.MonkeyPatch) -> Snapshots:
    """Weights by step, as the trainer saved them."""
    kept: Snapshots = {}

    class Keeping(Watch):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kept[state.global_step] = load_file(Path(args.output_dir) / f"checkpoint-{state.global_step}/model.safetensors")

    monkeypatch.setattr(train_loop, "Watch", Keeping)
    return kept


@pytest.fixture
def trained(tmp_path: Path, save_tiny_llama: Callable[..., None]) -> Callable[..., dict[str, Any]]:
    def train(method: str, held_out: int = 8, **settings: Any) -> dict[str, Any]:
        save_tiny_llama(tmp_path / "model", WORDS, max_position_embeddings=128, initializer_range=0.2)
        pairs(0, 8).write_parquet(tmp_path / "train.parquet")
        pairs(100, held_out).write_parquet(tmp_path / "validation.parquet")
        job = TrainingJob(
            "tiny",
            method,
            ModelRef("tiny", weights_digest(tmp_path / "model"), str(tmp_path / "model")),
            tmp_path / "train.parquet",
            tmp_path / "validation.parquet" if held_out else None,
            (DPOSettings if method == "dpo" else TrainingSettings)(**(HOW | settings)),
            tmp_path / "out",
            "inputs",
            tmp_path / "store",
            {"persona": "own"},
            ORIGIN,
        )
        (train_dpo if method == "dpo" else train_sft).train(job, lambda line: None)
        return dict(json.loads((tmp_path / "out/manifest.json").read_text()))

    return train


def is_snapshot(folder: Path, weights: dict[str, torch.Tensor]) -> bool:
    found = load_file(folder / "model.safetensors")
    return all(torch.equal(found[name], weights[name]) for name in found)


def test_the_snapshot_with_the_lowest_held_out_loss_is_kept_not_the_last(
    trained: Callable[..., dict[str, Any]], snapshots: Snapshots, tmp_path: Path
) -> None:
    manifest = trained("sft", epochs=14, max_memorisation=100.0)
    losses = {point["step"]: point["eval_loss"] for point in manifest["evaluations"]}
    after_start = {step: loss for step, loss in losses.items() if step}
    best, last = min(after_start, key=after_start.__getitem__), max(after_start)
    assert 0 in losses
    assert losses[last] > losses[best] + 0.01, "the test needs a held-out loss that rises again"
    assert manifest["chosen"] == {"step": best, "of": last, "why": "lowest held-out loss", "snapshots": len(after_start), "passed_over": []}
    assert manifest["validation"]["loss"] == losses[best]
    assert is_snapshot(tmp_path / "out", snapshots[best])
    assert not is_snapshot(tmp_path / "out", snapshots[last])


def test_a_snapshot_past_a_bound_is_passed_over_though_its_loss_is_lower(
    trained: Callable[..., dict[str, Any]], snapshots: Snapshots, tmp_path: Path
) -> None:
    freely = trained("dpo", max_displacement=100.0, max_memorisation=100.0)
    displaced = {point["step"]: point["eval_displacement"] for point in freely["evaluations"] if point["step"]}
    losses = {point["step"]: point["eval_loss"] for point in freely["evaluations"] if point["step"]}
    best = freely["chosen"]["step"]
    assert displaced[best] > 0.01, "the test needs a best snapshot with replies less likely than at the start"
    (tmp_path / "out/manifest.json").unlink()
    bound = 0.9 * displaced[best]
    manifest = trained("dpo", max_displacement=bound, max_memorisation=100.0)
    kept = manifest["chosen"]
    within = [step for step, value in displaced.items() if value <= bound]
    assert kept["step"] == min(within, key=losses.__getitem__) != best
    assert {each["step"] for each in kept["passed_over"]} == set(displaced) - set(within)
    assert all(each["past"] == ["displacement"] for each in kept["passed_over"])
    assert kept["why"] == "lowest held-out loss of those within the bounds"
    assert is_snapshot(tmp_path / "out", snapshots[kept["step"]])
    assert chosen_likelihood_holds({"tiny": manifest}).passed
    assert not chosen_likelihood_holds({"tiny": freely | {"settings": manifest["settings"]}}).passed


def test_the_manifest_and_the_card_say_how_it_was_made(trained: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    manifest = trained("dpo", epochs=1)
    assert manifest["trained_rows"] == 8
    assert manifest["masks"]["train"]["rows"] == manifest["masks"]["validation"]["rows"] == 8
    assert (manifest["effective_batch"], manifest["world_size"]) == (4, 1)
    assert set(manifest["packages"]) == {"python", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers"}
    assert manifest["hardware"]["memory_gib"] > 0
    assert len(manifest["code"]["commit"]) == 40
    assert manifest["start"]["is_on_hub"] is False
    for holds in (step0_loss_is_ln2, nothing_lost, only_replies_carry_loss):
        assert holds({"tiny": manifest}).passed, holds.__name__
    text = (tmp_path / "out/README.md").read_text()
    assert str(tmp_path) not in text
    assert "p100" not in text
    assert json.loads((tmp_path / "out/config.json").read_text())["use_cache"] is True


def test_pairs_that_the_start_was_trained_on_are_listed_too(trained: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    pl.DataFrame({"pair_id": ["earlier"]}).write_parquet(tmp_path / "model" / "pairs.parquet")
    assert trained("sft", epochs=1)["earlier_pairs"] == 1
    listed = pl.read_parquet(tmp_path / "out/pairs.parquet")["pair_id"].to_list()
    assert listed == ["earlier", *pairs(0, 8)["pair_id"]]


def test_without_held_out_pairs_the_last_step_is_kept_and_said_to_be(trained: Callable[..., dict[str, Any]]) -> None:
    manifest = trained("sft", held_out=0, epochs=1)
    assert manifest["chosen"] == {
        "step": 2,
        "of": 2,
        "why": "the last step: there is no held-out pair to choose by",
        "snapshots": 0,
        "passed_over": [],
    }
    assert not no_memorisation({"tiny": manifest}).passed


def test_weights_that_became_no_numbers_are_an_error(trained: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiny: no snapshot has a finite loss on held-out users"):
        trained("sft", learning_rate=1e39)
    assert not (tmp_path / "out").exists()
