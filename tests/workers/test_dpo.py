"""DPO against a reference of its own in float64, and the shared prefix against TRL's plain loss."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.reference_keys import KIND
from rlhi_dagster.training.settings import DPOSettings
from rlhi_dagster.workers.dpo_shared_prefix import SharedPrefix, SharedPrefixDPOTrainer
from rlhi_dagster.workers.reference_logps import References
from rlhi_dagster.workers.shared_prefix import check_attention
from rlhi_dagster.workers.train_dpo import PlainTrainer, SharedPrefixTrainer

BETA = 0.1
TEXTS = ["How do I grow mint?", "Water it well and give it sun.", "Prefers short answers.", "Certainly. - Plant it in May."]


def log_probability(model: Any, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """Of a reply after a prompt: the sum over its tokens, each given all tokens before it."""
    logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(reply)), reply].sum()


def reference_loss(model: Any, start: Any, pairs: list[tuple[list[int], list[int], list[int]]]) -> torch.Tensor:
    """DPO (Rafailov et al., 2023, equation 7): -log sigmoid(beta x (log-ratio of chosen - log-ratio of rejected)), averaged over pairs."""
    losses = []
    for prompt, chosen, rejected in pairs:
        with torch.no_grad():
            before = [log_probability(start, prompt, reply) for reply in (chosen, rejected)]
        now = [log_probability(model, prompt, reply) for reply in (chosen, rejected)]
        losses.append(-logsigmoid(BETA * ((now[0] - before[0]) - (now[1] - before[1]))))
    return torch.stack(losses).mean()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Any) -> Path:
    made = tmp_path_factory.mktemp("dpo") / "model"
    save_tiny_llama(made, TEXTS, max_position_embeddings=256)
    return made


def rows(count: int) -> list[dict[str, Any]]:
    """Pairs of various lengths, with and without a persona."""
    made = []
    for number in range(count):
        persona = [{"role": "system", "content": TEXTS[2] * (number % 3)}] if number % 3 else []
        prompt = [*persona, {"role": "user", "content": TEXTS[0] * (1 + number % 2)}]
        sides = [TEXTS[1] * (1 + number % 3), TEXTS[3] * (1 + number % 4)]
        made.append(
            {"prompt": prompt, **{n: [{"role": "assistant", "content": t}] for n, t in zip(("chosen", "rejected"), sides, strict=True)}}
        )
    return made


def trainer(kind: type[DPOTrainer], folder: Path, out: Path, count: int = 8, **more: Any) -> Any:
    given = {"references": more.pop("references")} if "references" in more else {}
    config = DPOConfig(
        output_dir=str(out),
        beta=BETA,
        max_length=None,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        per_device_train_batch_size=4,
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
        **more,
    )
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    return kind(model=model, args=config, train_dataset=Dataset.from_list(rows(count)), processing_class=tokenizer, **given)


def moved(model: Any) -> Any:
    """The model some way from where it started, so that the loss is not ln 2."""
    torch.manual_seed(5)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.05 * torch.randn_like(weights)
    return model


@pytest.mark.parametrize("kind", [DPOTrainer, SharedPrefixDPOTrainer])
def test_loss_and_gradients_are_those_of_the_reference_in_float64(kind: type[DPOTrainer], folder: Path, tmp_path: Path) -> None:
    made = trainer(kind, folder, tmp_path)
    batch = made._prepare_inputs(next(iter(made.get_train_dataloader())))
    start = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    moved(made.model)
    exact = copy.deepcopy(start)
    with torch.no_grad():
        for weights, given in zip(exact.parameters(), made.model.parameters(), strict=True):
            weights.copy_(given)
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    pairs = [
        tuple(
            batch["input_ids"][row][(batch["completion_mask"][row] == bit) & (batch["attention_mask"][row] == 1)].tolist()
            for row, bit in ((pair, 0), (pair, 1), (pair + 4, 1))
        )
        for pair in range(4)
    ]
    expected = reference_loss(exact, start, pairs)
    expected.backward()
    assert abs(expected.item() - math.log(2)) > 0.01, "the test would see little at the start"
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for weights, right in zip(made.model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(weights.grad.double(), right.grad, atol=1e-5, rtol=1e-3)


def test_the_shared_prefix_trains_the_same_model_with_the_same_curve(folder: Path, tmp_path: Path) -> None:
    plain, shared = (trainer(kind, folder, tmp_path / kind.__name__, num_train_epochs=3) for kind in (DPOTrainer, SharedPrefixDPOTrainer))
    for each in (plain, shared):
        each.train()
    curves = [[step for step in each.state.log_history if "rewards/margins" in step] for each in (plain, shared)]
    assert len(curves[0]) == 6
    for one, other in zip(*curves, strict=True):
        for name in ("loss", "rewards/margins", "logps/chosen", "logps/rejected", "entropy", "mean_token_accuracy"):
            assert other[name] == pytest.approx(one[name], abs=1e-4, rel=1e-4), name
    for left, right in zip(plain.model.parameters(), shared.model.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-3)
    started = AutoModelForCausalLM.from_pretrained(folder)
    assert any(not torch.allclose(left, right) for left, right in zip(plain.model.parameters(), started.parameters(), strict=True))


@pytest.mark.parametrize("kind", [PlainTrainer, SharedPrefixTrainer])
def test_the_dpo_term_is_recorded_apart_from_the_likelihood_term(kind: type[DPOTrainer], folder: Path, tmp_path: Path) -> None:
    start = ModelRef("tiny", weights_digest(folder), str(folder))
    settings = DPOSettings(bf16=False, shared_prefix=kind is SharedPrefixTrainer)
    known = References(ResponseStore(tmp_path / "store", KIND, start.identity), start, settings, lambda line: None)
    made = trainer(kind, folder, tmp_path, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 3.0], references=known)
    batch = made._prepare_inputs(next(iter(made.get_train_dataloader())))
    moved(made.model.train())
    both = made.compute_loss(made.model, batch).item()
    made.loss_types, made.loss_weights = ["sigmoid"], [1.0]
    alone = made.compute_loss(made.model, batch).item()
    assert both > alone + 1
    assert made._metrics["train"]["preference_loss"] == [pytest.approx(alone, abs=1e-6)] * 2


@pytest.mark.parametrize("kind", [PlainTrainer, SharedPrefixTrainer])
def test_held_out_numbers_are_averages_over_pairs_whatever_the_batches(kind: type[DPOTrainer], folder: Path, tmp_path: Path) -> None:
    start = ModelRef("tiny", weights_digest(folder), str(folder))
    settings = DPOSettings(bf16=False, shared_prefix=kind is SharedPrefixTrainer)
    known = References(ResponseStore(tmp_path / "store", KIND, start.identity), start, settings, lambda line: None)
    found = []
    for size in (1, 2, 4):
        made = trainer(kind, folder, tmp_path, 5, references=known, per_device_eval_batch_size=size)
        moved(made.model)
        made.eval_dataset = made.train_dataset
        found.append(made.evaluate())
    names = [f"eval_{name}" for name in ("preference_loss", "logps/chosen", "logps/rejected", "rewards/margins", "rewards/accuracies")]
    for name in names:
        assert [each[name] for each in found[1:]] == pytest.approx([found[0][name]] * 2, abs=1e-4), name
    assert found[0]["eval_preference_loss"] == pytest.approx(found[0]["eval_loss"], abs=1e-5)
    assert found[0]["eval_rewards/margins"] != pytest.approx(0, abs=1e-3)


LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 5))
def test_packing_changes_no_output_whatever_the_lengths(lengths: list[tuple[int, int, int]], seed: int) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=23, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    width = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in lengths)
    ids, mask = torch.zeros(2 * len(lengths), width, dtype=torch.long), torch.zeros(2 * len(lengths), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for pair, (prompt, *sides) in enumerate(lengths):
        said = torch.randint(1, 23, (prompt,))
        for row, side in zip((pair, pair + len(lengths)), sides, strict=True):
            ids[row, : prompt + side] = torch.cat([said, torch.randint(1, 23, (side,))])
            mask[row, : prompt + side] = 1
            labels[row, prompt : prompt + side] = ids[row, prompt : prompt + side]
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels, "fused_lm_head": True}
    plain, shared = model(**given), SharedPrefix(model)(**given)
    for name in ("log_probs", "entropy", "mean_logits"):
        torch.testing.assert_close(getattr(shared, name), getattr(plain, name), atol=1e-5, rtol=1e-4)
    assert torch.equal(shared.is_top1.bool(), plain.is_top1.bool())


def test_attention_that_takes_no_mask_is_refused() -> None:
    config = LlamaConfig()
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="set shared_prefix to false"):
        check_attention(config)
    config._attn_implementation, config.layer_types = "sdpa", ["sliding_attention", "full_attention"]
    with pytest.raises(ValueError, match="sliding window"):
        check_attention(config)
