"""Answers constrained to a few choices: what the chat engines share, so that equal scores give equal picks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

LEAST_MASS = 0.5
"""Of the first token's probability the choices must have so much: with less the model was about to write something else, and what it gives
the choices says nothing about them. A model that answers at all gives them nearly all of it."""
MOST_HIDDEN = 0.1
"""A choice that is not among the tokens shown may have so much at most, or its probability is not known."""


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


def shown_scores(choices: Sequence[str], shown: Mapping[str, float]) -> list[float]:
    """The log-probability of each choice, from those of the likeliest tokens at the first place.

    Tokens that begin exactly one choice are added up; a choice that none of them begins has minus infinity.
    """
    scores = [-math.inf] * len(choices)
    for token, score in shown.items():
        begun = token.strip()
        matches = [place for place, choice in enumerate(choices) if choice == begun]
        matches = matches or [place for place, choice in enumerate(choices) if begun and choice.startswith(begun)]
        if len(matches) == 1:
            scores[matches[0]] = float(np.logaddexp(scores[matches[0]], score))
    return scores


def doubt(scores: Sequence[float], shown: Mapping[str, float]) -> str | None:
    """Why ``shown_scores`` are no probabilities of the choices; ``None`` if they are."""
    mass = sum(map(math.exp, scores))
    if mass < LEAST_MASS:
        return f"the choices have {mass:.1%} of the first token's probability, which is less than {LEAST_MASS:.0%}"
    unshown = 1 - sum(map(math.exp, shown.values()))
    hidden = min(unshown, scores.count(-math.inf) * math.exp(min(shown.values())))  # what is not shown is less likely than what is
    return f"choices that are not shown may have {hidden:.1%} of the first token's probability" if hidden > MOST_HIDDEN else None
