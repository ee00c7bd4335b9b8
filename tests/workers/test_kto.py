"""KTO on thumbs: the loss against one of its own in float64, what training moves, and what is measured on held-out examples."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.training.manifest_checks import chosen_likelihood_holds, nothing_lost, only_replies_carry_loss, step0_loss_is_half
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import KTOSettings
from rlhi_dagster.workers import mask_check, preflight_check, train_kto
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_pairs import PairData

WORDS = ["mint", "thyme", "sage", "river", "stone", "bread", "lamp", "winter", "garden", "tulip"]
SETTINGS = KTOSettings(
    learning_rate=1e-2,
    epochs=6,
    batch_size=4,
    micro_batch_size=4,
    warmup_steps=1,
    max_length=96,
    bf16=False,
    gradient_checkpointing=False,
    save_steps=4,
    logging_steps=1,
    desirable_ratio=4 / 3,
    max_displacement=100.0,
)
ORIGIN = {
    "table": "thumb_examples",
    "data_version": "a" * 64,
    "rows_digest": "b" * 32,
    "validation_pairs": 10,
    "by_source": {"thumbs": 25},
    "users": 3,
    "code_version": "1",
    "conversations": "town",
    "hub_dataset": None,
    "is_simulated": True,
}


def thumbs(start: int, count: int) -> pl.DataFrame:
    """Short replies are liked and long ones are not; one in three is liked."""
    rows: list[dict[str, Any]] = []
    for number in range(start, start + count):
        is_up = number % 3 == 0
        reply = " ".join(Random(number).choices(WORDS[:5] if is_up else WORDS[5:], k=3 if is_up else 6))
        prompt = [{"role": "user", "content": f"About {WORDS[number % 10]} {number}?"}]
        sides = {"chosen": reply if is_up else None, "rejected": None if is_up else reply}
        rows.append({"pair_id": f"p{number}", "prompt": prompt, **sides})
    return pl.DataFrame(rows, schema=TRAINING_ROWS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> ModelRef:
    folder = tmp_path_factory.mktemp("kto") / "model"
    save_tiny_llama(folder, WORDS, max_position_embeddings=128, initializer_range=0.2)
    return ModelRef("tiny", weights_digest(folder), str(folder))


def job(model: ModelRef, folder: Path, rows: pl.DataFrame, held_out: pl.DataFrame | None = None, **changed: Any) -> TrainingJob:
    rows.write_parquet(folder / "train.parquet")
    if held_out is not None:
        held_out.write_parquet(folder / "validation.parquet")
    return TrainingJob(
        "tiny",
        "kto",
        model,
        folder / "train.parquet",
        folder / "validation.parquet" if held_out is not None else None,
        SETTINGS.model_copy(update=changed),
        folder / "out",
        "inputs",
        folder / "store",
        {"persona": "own", "reply_tokens": 8},
        ORIGIN | {"pairs": len(rows)},
    )


def log_probability(model: Any, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """Of a reply after a prompt: the sum over its tokens, each given all tokens before it."""
    logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(reply)), reply].sum()


def reference_loss(model: Any, start: Any, rows: list[dict[str, Any]], beta: float, weights: tuple[float, float]) -> torch.Tensor:
    """KTO (Ethayarajh et al., 2024, equation 8), the KL estimated from each prompt with the reply of the row before."""
    ratios, mismatched = [], []
    for number, row in enumerate(rows):
        for replies, found in ((row["completion_ids"], ratios), (rows[number - 1]["completion_ids"], mismatched)):
            with torch.no_grad():
                before = log_probability(start, row["prompt_ids"], replies)
            found.append(log_probability(model, row["prompt_ids"], replies) - before)
    kl = torch.stack(mismatched).mean().detach().clamp(min=0)
    values = [
        weights[0] * (1 - torch.sigmoid(beta * (ratio - kl))) if row["label"] else weights[1] * (1 - torch.sigmoid(beta * (kl - ratio)))
        for row, ratio in zip(rows, ratios, strict=True)
    ]
    return torch.stack(values).mean()


def test_loss_and_gradients_are_those_of_the_reference_in_float64(model: ModelRef, tmp_path: Path) -> None:
    given = job(model, tmp_path, thumbs(0, 8))
    data = PairData(given, print)
    made = train_kto.build(given, data)
    assert data.facts["step0_loss"] == pytest.approx(0.5, abs=1e-5)
    weights_found = {"weight_up": pytest.approx(8 / 3 * 4 / 7), "weight_down": pytest.approx(8 / 5 * 3 / 7)}
    assert data.facts["thumbs"] == {"up": 3, "down": 5, **weights_found}
    start = AutoModelForCausalLM.from_pretrained(str(model.path), dtype=torch.float64)
    torch.manual_seed(5)
    with torch.no_grad():
        for weights in made.model.parameters():
            weights += 0.05 * torch.randn_like(weights)
    exact = copy.deepcopy(start)
    with torch.no_grad():
        for weights, moved in zip(exact.parameters(), made.model.parameters(), strict=True):
            weights.copy_(moved)
    made.model.train()
    batch = made._prepare_inputs(next(iter(made.get_train_dataloader())))
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    rows = [made.train_dataset[number] for number in range(4)]
    assert {row["label"] for row in rows} == {True, False}
    expected = reference_loss(exact, start, rows, SETTINGS.beta, (made.desirable_weight, made.undesirable_weight))
    expected.backward()
    assert abs(expected.item() - 0.5) > 0.01, "the test would see little at the start"
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for weights, right in zip(made.model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(weights.grad.double(), right.grad, atol=1e-5, rtol=1e-3)


def test_training_likes_what_users_liked_and_says_what_it_measured(model: ModelRef, tmp_path: Path) -> None:
    long = thumbs(0, 1).with_columns(pair_id=pl.lit("long"), chosen=pl.lit("tulip " * 200))
    given = job(model, tmp_path, pl.concat([thumbs(0, 24), long]), thumbs(30, 10))
    manifest = train_kto.train(given, lambda line: None)
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    assert (manifest["method"], manifest["pairs"], manifest["pairs_too_long"], manifest["validation_pairs"]) == ("kto", 24, 1, 10)
    first, kept = manifest["evaluations"][0], manifest["validation"]
    assert [first[f"eval_rewards/{name}"] for name in ("chosen", "rejected", "margins")] == pytest.approx([0, 0, 0], abs=1e-4)
    assert kept["rewards/margins"] == pytest.approx(kept["rewards/chosen"] - kept["rewards/rejected"])
    assert kept["rewards/margins"] > 0.05
    assert kept["loss"] < first["eval_loss"]
    assert kept["samples"] > 0
    for holds in (step0_loss_is_half, nothing_lost, only_replies_carry_loss, chosen_likelihood_holds):
        assert holds({"tiny": manifest}).passed, holds.__name__

    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    start = AutoModelForCausalLM.from_pretrained(str(model.path), dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(str(model.path))

    def risen(reply: str) -> float:
        """How much more likely a reply to a request that nobody made has become."""
        asked = [{"role": "user", "content": "About mint 99?"}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": reply}], return_dict=True)["input_ids"]
        with torch.no_grad():
            return float(log_probability(trained, prompt, whole[len(prompt) :]) - log_probability(start, prompt, whole[len(prompt) :]))

    assert risen("mint sage river") > risen("bread lamp winter garden tulip bread") + 1

    likelihood = {}
    for row in thumbs(30, 10).iter_rows(named=True):
        reply = row["chosen"] or row["rejected"]
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        whole = tokenizer.apply_chat_template([*row["prompt"], {"role": "assistant", "content": reply}], return_dict=True)["input_ids"]
        with torch.no_grad():
            likelihood[row["pair_id"]] = float(log_probability(trained, prompt, whole[len(prompt) :])), row["chosen"] is not None
    for side, is_chosen in (("chosen", True), ("rejected", False)):
        of_side = [value for value, is_up in likelihood.values() if is_up is is_chosen]
        assert kept[f"logps/{side}"] == pytest.approx(sum(of_side) / len(of_side), abs=1e-3), "each example counts once"


def test_before_training_examples_are_looked_at_as_pairs_are(model: ModelRef, tmp_path: Path) -> None:
    given = job(model, tmp_path, thumbs(0, 4), max_length=16)
    with pytest.raises(ValueError, match="tiny: no pair to train on, all 4 are longer than max_length 16 tokens"):
        preflight_check.check([given])


def test_one_example_is_shown_as_it_is_trained_on(model: ModelRef) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(model.path))
    up, down = (mask_check.example("kto", thumbs(number, 1).row(0, named=True), tokenizer, in_colour=False) for number in (0, 1))
    assert up.startswith("chosen: ")
    assert down.startswith("rejected: ")
    assert "[" in up
    assert "[" in down
