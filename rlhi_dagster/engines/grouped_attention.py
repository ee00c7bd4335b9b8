"""Attention of one new token in models whose heads share keys and values (grouped-query attention), without copies of the cache.

What belongs here: the attention of the decoding step. What does not: all other attention, which is transformers' own (``sdpa``).

Under a mask, which batches of unequal prompts need, transformers copies keys and values once for each head of a group, at every layer and
token: half the time of SmolLM2-135M on a CPU. One token has one query a head, so the queries of a group can stand where the positions of a
sequence do: ``[rows, heads, 1, width]`` becomes ``[rows, groups of heads, heads of a group, width]``, and nothing is copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "grouped_sdpa"


def attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """As transformers calls its attention functions.

    Args:
        module: The attention layer.
        query: ``[rows, heads, tokens, width]``.
        key: ``[rows, groups of heads, positions, width]``.
        value: The same shape.
        attention_mask: ``[rows, 1, tokens, positions]``, or none.
        **given: What else models hand on. Of `dropout` there is none while text is generated.

    Returns:
        ``[rows, tokens, heads, width]``, and no attention weights.
    """
    rows, heads, tokens, width = query.shape
    shared = heads // key.shape[1]
    if tokens != 1 or shared == 1 or any(given.get(name) is not None for name in ("position_bias", "cache")):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    stacked = query.reshape(rows, key.shape[1], shared, width)
    seen = torch.nn.functional.scaled_dot_product_attention(stacked, key, value, attn_mask=attention_mask, scale=given.get("scaling"))
    return seen.reshape(rows, 1, heads, width), None


def use(model: Any) -> Any:
    """Let a model that would use ``sdpa`` use this; others stay as they are."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
    return model
