"""Rows of tokens as the inputs of one forward pass; what rows of the same prompt begin with is read once.

The candidates of one prompt differ in their reply alone. Their common beginning runs once per prompt, and its keys and values stand
before each reply: the same numbers up to rounding, from a fraction of the tokens. Exact only for models whose tokens see what is
before them and nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

MOST_CACHED_TOKENS = 2**16
"""Keys and values are kept for so many tokens of a batch: 8 GiB for a Llama of 8B parameters. Longer batches share nothing."""


def reads_forward(config: Any) -> bool:
    """Whether a decoder with this (text) configuration lets each token see all of those before it, and no other."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    is_causal = getattr(config, "is_causal", True) and not getattr(config, "use_bidirectional_attention", False)
    return kinds == {"full_attention"} and is_causal and not getattr(config, "sliding_window", None)


def inputs(rows: list[list[int]], pad: int, device: torch.device) -> dict[str, Any]:
    """Rows padded on the right."""
    ids, mask = _padded(rows, pad, device)
    return {"input_ids": ids, "attention_mask": mask}


def shared_inputs(
    rows: list[list[int]], prompts: Sequence[Hashable], pad: int, device: torch.device, backbone: Any, config: Any
) -> dict[str, Any]:
    """As ``inputs``; where rows share prompts, without what those have in common, which ``backbone`` has read into a cache.

    Args:
        rows: Tokens.
        prompts: Equal for rows that begin alike.
        pad: Fills up shorter rows. A row's last other token is always among the inputs, because classifiers read there.
        device: Of the model.
        backbone: The model without its head.
        config: Its (text) configuration.
    """
    groups: dict[Hashable, list[list[int]]] = {}
    for row, prompt in zip(rows, prompts, strict=True):
        groups.setdefault(prompt, []).append(row)
    common = [_common(group, pad) for group in groups.values()]
    if len(groups) > len(rows) / 2 or not min(common) or len(rows) * max(map(len, rows)) > MOST_CACHED_TOKENS:
        return inputs(rows, pad, device)
    starts = [group[0][:length] for group, length in zip(groups.values(), common, strict=True)]
    ids, starts_mask = _padded(starts, pad, device)
    cache = DynamicCache(config=config)
    backbone(input_ids=ids, attention_mask=starts_mask, past_key_values=cache, use_cache=True)
    number = {prompt: index for index, prompt in enumerate(groups)}
    of_row = torch.tensor([number[prompt] for prompt in prompts], device=device)
    cache.batch_select_indices(of_row)
    lengths = torch.tensor(common, device=device)[of_row]
    ids, mask = _padded([row[length:] for row, length in zip(rows, lengths.tolist(), strict=True)], pad, device)
    return {
        "input_ids": ids,
        "attention_mask": torch.cat([starts_mask[of_row], mask], dim=1),
        "position_ids": lengths[:, None] + torch.arange(ids.shape[1], device=device),
        "past_key_values": cache,
        "use_cache": True,
    }


def _common(rows: list[list[int]], pad: int) -> int:
    """Tokens that all rows begin with, at most up to the last one of a row that is not padding."""
    first, last = min(rows), max(rows)
    shared = next((index for index, (one, two) in enumerate(zip(first, last, strict=False)) if one != two), len(first))
    ends = [max((index for index, token in enumerate(row) if token != pad), default=0) for row in rows]
    return min(shared, *ends)


def _padded(rows: list[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask
