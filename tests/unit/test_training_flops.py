"""The count of operations, against published parameters and against what PyTorch counts."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from rlhi_dagster.training.flops import ModelShape, apart, packed, training_flops

LLAMA_8B = ModelShape.llama(vocabulary=128_256, width=4096, feed_forward=14_336, layers=32, heads=32, key_value_heads=8, head_width=128)


def test_weights_of_llama_3_1_8b() -> None:
    norms, embedding = (2 * 32 + 1) * 4096, 128_256 * 4096
    assert LLAMA_8B.body + LLAMA_8B.head + embedding + norms == 8_030_261_248


def test_the_count_is_what_pytorch_counts() -> None:
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        attn_implementation="eager",
    )
    shape = ModelShape.llama(vocabulary=97, width=64, feed_forward=96, layers=3, heads=4, key_value_heads=2, head_width=16)
    model, length = LlamaForCausalLM(config), 37
    with FlopCounterMode(display=False) as counted:
        model(torch.randint(0, 97, (2, length))).logits.sum().backward()
    # Eager attention computes the whole square and masks half of it; all logits are made.
    found = training_flops(shape, tokens=2 * length, loss_tokens=2 * length, seen=2 * length * length)
    rotary = counted.get_total_flops() - found
    assert 0 <= rotary < 0.001 * found


def test_pairs_seen_are_the_ones_of_the_masks() -> None:
    for prompt, chosen, rejected in ((1, 1, 1), (5, 3, 2), (7, 1, 4)):
        tokens, seen = apart(prompt, chosen, rejected)
        assert tokens == 2 * prompt + chosen + rejected
        assert seen == sum(int(torch.ones(n, n).tril().sum()) for n in (prompt + chosen, prompt + rejected))
        tokens, seen = packed(prompt, chosen, rejected)
        side = torch.tensor([0] * (prompt - 1) + [1] * (chosen + 1) + [2] * (rejected + 1))
        mask = torch.ones(len(side), len(side)).tril() * ((side[None] == 0) | (side[None] == side[:, None]))
        assert (tokens, seen) == (len(side), int(mask.sum()))
