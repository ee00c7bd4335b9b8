"""Answers constrained to a few choices: what the chat engines share, so that equal scores give equal picks."""

from __future__ import annotations

from typing import Any

import torch


def first_tokens(tokenizer: Any, choices: tuple[str, ...]) -> list[int]:
    """The token that tells each of ``choices`` from the others.

    Raises:
        ValueError: Two choices begin with the same token.
    """
    tokens = [tokenizer.encode(choice, add_special_tokens=False)[0] for choice in choices]
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"choices must begin with different tokens: {', '.join(choices)}")
    return tokens


def pick(scores: torch.Tensor, temperature: float, draw: str) -> tuple[int, list[float]]:
    """Pick one choice by one uniform number that depends on ``draw`` alone; the likeliest at temperature 0.

    Args:
        scores: A logit or log-probability per choice, in float64 on the CPU.
        temperature: Of the draw.
        draw: ``ChatRequest.draw``, hexadecimal.

    Returns:
        Index of the choice, and the probability of each among the choices at temperature 1.
    """
    if temperature > 0:
        uniform = torch.rand(1, generator=torch.Generator().manual_seed(int(draw[:15], 16)), dtype=torch.float64)
        cumulative = (scores / temperature).softmax(-1).cumsum(-1)
        picked = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp(max=len(scores) - 1))
    else:
        picked = int(scores.argmax())
    return picked, scores.softmax(-1).tolist()
