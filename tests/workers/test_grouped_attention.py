"""Decoding without copies of shared keys and values: the same tokens and the same logits as transformers' own attention."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from rlhi_dagster.engines import grouped_attention

PAD = 0


def model(key_value_heads: int, **config: Any) -> Any:
    torch.manual_seed(4)
    shape = LlamaConfig(
        vocab_size=41,
        hidden_size=48,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=key_value_heads,
        initializer_range=0.4,  # wide, so that what is attended to matters
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=None,
        **config,
    )
    return LlamaForCausalLM(shape).eval()


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of unequal lengths, padded at the start as for generation."""
    lengths = (3, 9, 6, 1)
    rows = [[PAD] * (9 - length) + list(range(1, length + 1)) for length in lengths]
    return torch.tensor(rows), torch.tensor([[int(token != PAD) for token in row] for row in rows])


def written(given: Any) -> Any:
    rows, mask = prompts()
    how = GenerationConfig(max_new_tokens=12, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=PAD)
    return given.generate(rows, attention_mask=mask, generation_config=how)


@pytest.mark.parametrize("key_value_heads", [1, 2, 3, 6])
def test_tokens_and_logits_are_those_of_transformers(key_value_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model(key_value_heads)
    grouped = grouped_attention.use(copy.deepcopy(plain))
    expected = written(plain)
    copies: list[int] = []
    own = grouped_attention.sdpa_attention_forward
    monkeypatch.setattr(
        grouped_attention, "sdpa_attention_forward", lambda *given, **more: copies.append(given[1].shape[2]) or own(*given, **more)
    )
    found = written(grouped)
    assert torch.equal(found.sequences, expected.sequences)
    for one, other in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    decoded = [tokens for tokens in copies if tokens == 1]
    assert (decoded == []) is (key_value_heads < 6), "transformers' own attention only where no heads share"


def test_a_model_with_another_attention_is_left_as_it_is() -> None:
    plain = model(2, attn_implementation="eager")
    assert grouped_attention.use(plain).config._attn_implementation == "eager"
