"""Self-distillation on follow-ups: the loss against one of its own in float64, whom the teacher is, and what training moves."""

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
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.training.manifest_checks import no_memorisation, nothing_lost, only_replies_carry_loss
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import LoraSettings, SDPOSettings
from rlhi_dagster.workers import mask_check, preflight_check, train_sdpo
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_pairs import PairData

WORDS = ["mint", "thyme", "sage", "river", "stone", "bread", "lamp", "winter", "garden", "tulip"]
SETTINGS = SDPOSettings(
    learning_rate=1e-2,
    epochs=4,
    batch_size=4,
    micro_batch_size=2,
    warmup_steps=1,
    max_length=96,
    bf16=False,
    gradient_checkpointing=False,
    save_steps=6,
    logging_steps=1,
    max_memorisation=100.0,
)
ORIGIN = {
    "table": "follow_up_examples",
    "data_version": "a" * 64,
    "rows_digest": "b" * 32,
    "validation_pairs": 8,
    "by_source": {"follow_ups": 13},
    "users": 3,
    "code_version": "1",
    "conversations": "town",
    "hub_dataset": None,
    "is_simulated": True,
}


def examples(start: int, count: int) -> pl.DataFrame:
    """Replies and follow-ups of different lengths; each follow-up wants one of two words."""
    rows: list[dict[str, Any]] = []
    for number in range(start, start + count):
        draw = Random(number)
        request = f"About {WORDS[number % 10]} {number}?"
        rows.append(
            {
                "pair_id": f"p{number}",
                "prompt": [{"role": "user", "content": request}],
                "chosen": " ".join(draw.choices(WORDS, k=1 + number % 4)),
                "rejected": None,
                "told": [{"role": "user", "content": f"{request}\n\n{draw.choice(WORDS[:2])} please" + " now" * (number % 3)}],
            }
        )
    return pl.DataFrame(rows, schema={**TRAINING_ROWS, "told": MESSAGES})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> ModelRef:
    folder = tmp_path_factory.mktemp("sdpo") / "model"
    save_tiny_llama(folder, WORDS, max_position_embeddings=128, initializer_range=0.3)
    return ModelRef("tiny", weights_digest(folder), str(folder))


def job(model: ModelRef, folder: Path, rows: pl.DataFrame, held_out: pl.DataFrame | None = None, **changed: Any) -> TrainingJob:
    rows.write_parquet(folder / "train.parquet")
    if held_out is not None:
        held_out.write_parquet(folder / "validation.parquet")
    return TrainingJob(
        "tiny",
        "sdpo",
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


def next_words(model: Any, tokenizer: Any, asked: list[dict[str, str]], reply: str) -> torch.Tensor:
    """Log-probabilities of every word at each token of a reply, its end included, given all before it: ``[tokens, words]``."""
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": reply}], return_dict=True)["input_ids"]
    return model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def reference_loss(model: Any, teacher: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """KL(model || teacher that is told), averaged over a reply's tokens and then over replies."""
    found = []
    for row in rows:
        with torch.no_grad():
            wanted = next_words(teacher, tokenizer, row["told"], row["chosen"])
        own = next_words(model, tokenizer, row["prompt"], row["chosen"])
        found.append((own.exp() * (own - wanted)).sum(-1).mean())
    return torch.stack(found).mean()


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["all weights", "adapters"])
def test_loss_and_gradients_are_those_of_the_reference_in_float64(model: ModelRef, tmp_path: Path, lora: LoraSettings | None) -> None:
    rows = examples(0, 4)
    given = job(model, tmp_path, rows, micro_batch_size=4, lora=lora)
    made = train_sdpo.build(given, data := PairData(given, print))
    tokenizer = AutoTokenizer.from_pretrained(str(model.path))
    start = AutoModelForCausalLM.from_pretrained(str(model.path), dtype=torch.float64)
    torch.manual_seed(5)
    trained = [weights for weights in made.model.parameters() if weights.requires_grad]
    with torch.no_grad():
        for weights in trained:
            weights += 0.05 * torch.randn_like(weights)
    exact: Any = copy.deepcopy(start)
    if lora:
        exact = get_peft_model(exact, data.adapters("CAUSAL_LM"))
    with torch.no_grad():
        for weights, moved in zip(exact.parameters(), made.model.parameters(), strict=True):
            weights.copy_(moved)
    made.model.train()
    batch = made._prepare_inputs(next(iter(made.get_train_dataloader())))
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    expected = reference_loss(exact, start, tokenizer, rows.to_dicts())
    expected.backward()
    assert expected.item() > 0.01, "the test would see little"
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for weights, right in zip(trained, (each for each in exact.parameters() if each.requires_grad), strict=True):
        torch.testing.assert_close(weights.grad.double(), right.grad, atol=1e-5, rtol=1e-3)


def test_told_nothing_the_teacher_agrees_with_the_start(model: ModelRef, tmp_path: Path) -> None:
    rows = examples(0, 4).with_columns(told="prompt")
    given = job(model, tmp_path, rows)
    made = train_sdpo.build(given, PairData(given, print))
    batch = made._prepare_inputs(next(iter(made.get_train_dataloader())))
    assert made.compute_loss(made.model, batch).item() == pytest.approx(0, abs=1e-6)


def test_training_draws_the_model_to_the_told_start_and_says_what_it_measured(model: ModelRef, tmp_path: Path) -> None:
    long = examples(0, 1).with_columns(
        pair_id=pl.lit("long"), told=pl.Series([[{"role": "user", "content": "tulip " * 200}]], dtype=MESSAGES)
    )
    held_out = examples(30, 8)
    manifest = train_sdpo.train(job(model, tmp_path, pl.concat([examples(0, 12), long]), held_out), lambda line: None)
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    assert (manifest["method"], manifest["pairs"], manifest["pairs_too_long"], manifest["validation_pairs"]) == ("sdpo", 12, 1, 8)
    tokenizer = AutoTokenizer.from_pretrained(str(model.path))
    start, trained = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64) for folder in (str(model.path), tmp_path / "out"))
    with torch.no_grad():
        before, after = (reference_loss(each, start, tokenizer, held_out.to_dicts()).item() for each in (start, trained))
    assert manifest["evaluations"][0]["eval_loss"] == pytest.approx(before, abs=1e-4), "each example counts once"
    assert manifest["validation"]["loss"] == pytest.approx(after, abs=1e-4)
    assert after < before
    assert manifest["validation"]["samples"] > 0
    for holds in (nothing_lost, only_replies_carry_loss, no_memorisation):
        assert holds({"tiny": manifest}).passed, holds.__name__


def test_a_reply_that_the_teacher_would_read_after_something_else_stops_the_run(
    model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = train_sdpo._ids
    monkeypatch.setattr(train_sdpo, "_ids", lambda data, messages: asked(data, messages)[1:])
    given = job(model, tmp_path, examples(0, 4))
    with pytest.raises(mask_check.MaskError, match="tiny as the teacher reads it: pair p0, chosen reply: the reply follows another prompt"):
        train_sdpo.build(given, PairData(given, print))


def test_before_training_what_the_teacher_reads_is_measured_too(model: ModelRef, tmp_path: Path) -> None:
    limit = 24
    rows = examples(0, 4).with_columns(told=pl.Series([[{"role": "user", "content": "mint " * 40}]] * 4, dtype=MESSAGES))
    with pytest.raises(ValueError, match=f"tiny: no pair to train on, all 4 are longer than max_length {limit} tokens"):
        preflight_check.check([job(model, tmp_path, rows, max_length=limit)])
