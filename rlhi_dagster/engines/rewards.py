"""Reward engine on Hugging Face transformers: conversations in, one number each.

What belongs here: batches, and errors as rows. What does not: rendering (``transcripts``), weights (``reward_layouts``), what is scored
and under which persona (``preferences``).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from itertools import islice

import torch
from transformers import AutoTokenizer

from rlhi_dagster.engines.base import RewardAnswer, RewardCalls, RewardRequest
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.reward_layouts import load_reward_model
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.engines.transcripts import Transcripts
from rlhi_dagster.engines.transformers import pick_device
from rlhi_dagster.engines.unavailable import loading


class TransformersRewardEngine:
    """A reward model of a known layout; takes as many calls at once as a chunk holds and runs those of one prompt together."""

    def __init__(self, model: ModelRef, settings: TransformersSettings) -> None:
        self.settings = settings
        with loading(model):
            self.tokenizer = AutoTokenizer.from_pretrained(model.source, **model.load_kwargs())
        self.model = load_reward_model(model, self.tokenizer, getattr(torch, settings.dtype), pick_device(settings.device))
        self.transcripts = Transcripts(model.identity, self.tokenizer, self.model.context, self.model.ending)

    def score(self, calls: RewardCalls) -> Iterator[list[tuple[str, RewardAnswer]]]:
        """See ``RewardEngine.score``."""
        while taken := list(islice(calls, self.settings.chunk_size)):
            rows: dict[int, list[int]] = {}
            refused: list[tuple[str, RewardAnswer]] = []
            for index, (key, request) in enumerate(taken):
                read = self.transcripts(request)
                if isinstance(read, RewardAnswer):
                    refused.append((key, read))
                else:
                    rows[index] = read
            if refused:
                yield refused
            prompts = {index: _prompt(taken[index][1]) for index in rows}
            for batch in _batches(rows, prompts, self.settings.batch_size):
                rewards = self.model.rewards([rows[index] for index in batch], [prompts[index] for index in batch])
                yield [(taken[index][0], _answer(reward, len(rows[index]))) for index, reward in zip(batch, rewards, strict=True)]


def _prompt(request: RewardRequest) -> Hashable:
    """All but the reply."""
    return tuple((message["role"], message["content"]) for message in request.messages[:-1])


def _batches(rows: dict[int, list[int]], prompts: dict[int, Hashable], size: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in batches, longest first; rows of one prompt side by side."""
    longest: dict[Hashable, tuple[int, int]] = {}
    for index, row in rows.items():
        length, first = longest.get(prompts[index], (0, index))
        longest[prompts[index]] = max(length, len(row)), first
    order = sorted(rows, key=lambda index: (-longest[prompts[index]][0], longest[prompts[index]][1], -len(rows[index]), index))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _answer(reward: float, tokens: int) -> RewardAnswer:
    """A reward that is not a number would win or lose every comparison."""
    return RewardAnswer(reward, None, tokens) if math.isfinite(reward) else RewardAnswer(None, f"not_finite: {reward}", tokens)
