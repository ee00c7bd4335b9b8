"""The reward model's training with a shared prefix against TRL's plain loss."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification
from trl import RewardConfig

from rlhi_dagster.workers.train_reward import PlainTrainer, SharedPrefixTrainer, packed_extent, read_pairs_once

PAD, LAST = 0, 22
PAIR = st.tuples(
    st.integers(0, 9),  # tokens that both sides begin with
    st.lists(st.integers(1, LAST), min_size=1, max_size=7),
    st.lists(st.integers(1, LAST), min_size=1, max_size=7),
)


def scorer(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape = {"vocab_size": LAST + 1, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    # Wide initial weights, so that a reward depends on all that is read.
    return LlamaForSequenceClassification(LlamaConfig(**shape, num_labels=1, pad_token_id=PAD, initializer_range=0.4))


def batch(sides: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """As TRL collates pairs: the preferred sequences first, padded at the end."""
    sequences = [chosen for chosen, _ in sides] + [rejected for _, rejected in sides]
    width = max(map(len, sequences))
    return {
        "input_ids": torch.tensor([ids + [PAD] * (width - len(ids)) for ids in sequences]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences]),
    }


@settings(max_examples=80, deadline=None)
@given(st.lists(PAIR, min_size=1, max_size=4), st.booleans(), st.integers(0, 5))
def test_rewards_are_the_same_whatever_the_lengths(pairs: list[tuple[int, list[int], list[int]]], ends_padded: bool, seed: int) -> None:
    plain = scorer(seed)
    prompts = [torch.randint(1, LAST, (shared,)).tolist() for shared, _, _ in pairs]
    end = [PAD] if ends_padded else []  # as of a tokenizer whose padding is the end of a turn
    said = batch([(before + chosen + end, before + rejected + end) for before, (_, chosen, rejected) in zip(prompts, pairs, strict=True)])
    packed = read_pairs_once(copy.deepcopy(plain))
    torch.testing.assert_close(packed(**said).logits, plain(**said).logits, atol=1e-5, rtol=1e-4)


def test_a_side_that_is_the_start_of_the_other_and_sides_that_are_the_same_have_rewards_of_their_own() -> None:
    plain, said = scorer(), batch([([3, 4, 5, 6], [3, 4]), ([7, 8], [7, 8, 9]), ([5, 6], [5, 6])])
    expected = plain(**said).logits
    torch.testing.assert_close(read_pairs_once(plain)(**said).logits, expected, atol=1e-5, rtol=1e-4)
    assert expected[0] != expected[3]
    assert expected[2] == expected[5]


def test_the_shared_prefix_trains_the_same_model_with_the_same_curve(tmp_path: Any, save_tiny_llama: Any) -> None:
    folder, texts = tmp_path / "model", ["How do I grow mint?", "Water it well and give it sun.", "Certainly. - Plant it in May."]
    save_tiny_llama(folder, texts, max_position_embeddings=256)
    rows = [
        {
            "prompt": [{"role": "user", "content": texts[0] * (1 + number % 3)}],
            "chosen": [{"role": "assistant", "content": texts[1] * (1 + number % 2)}],
            "rejected": [{"role": "assistant", "content": texts[2] * (1 + number % 4)}],
        }
        for number in range(8)
    ]
    made = []
    for kind in (PlainTrainer, SharedPrefixTrainer):
        torch.manual_seed(1)
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1), AutoTokenizer.from_pretrained(folder)
        model.config.pad_token_id = tokenizer.pad_token_id
        config = RewardConfig(
            output_dir=str(tmp_path / kind.__name__),
            learning_rate=1e-2,
            num_train_epochs=3,
            per_device_train_batch_size=4,
            gradient_checkpointing=False,
            max_length=None,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=1,
        )
        given_model = read_pairs_once(model) if kind is SharedPrefixTrainer else model
        trainer = kind(model=given_model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        trainer.train()
        made.append(trainer)
    plain, shared = made
    curves = [[step for step in each.state.log_history if "margin" in step] for each in made]
    assert len(curves[0]) == 6
    for one, other in zip(*curves, strict=True):
        for name in ("loss", "margin", "accuracy", "mean_reward"):
            assert other[name] == pytest.approx(one[name], abs=1e-4, rel=1e-4), name
    for left, right in zip(plain.model.parameters(), shared.model.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-3)
    assert plain.extent(plain.train_dataset).tokens.sum() > shared.extent(shared.train_dataset).tokens.sum()


def test_a_packed_row_holds_what_is_shared_once_and_of_each_side_at_least_one_token() -> None:
    rows = Dataset.from_list(
        [
            {"chosen_ids": [1, 2, 3, 4], "rejected_ids": [1, 2, 5]},
            {"chosen_ids": [1, 2], "rejected_ids": [1, 2, 3]},
            {"chosen_ids": [1, 2], "rejected_ids": [1, 2]},
        ]
    )
    assert packed_extent(rows).tokens.tolist() == [5, 4, 3]


def test_attention_that_takes_no_mask_is_refused() -> None:
    model = scorer()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="set shared_prefix to false"):
        read_pairs_once(model)
