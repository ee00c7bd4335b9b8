"""Reward engines on Hugging Face transformers: conversations in, one number each.

What belongs here: loading a reward model of a known layout and reading its number. What does not: what is scored and under which
persona (``preferences``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhi_dagster.engines.base import RewardAnswer, RewardCalls
from rlhi_dagster.engines.loading import TransformersSettings
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.transformers import batches, pick_device


class TransformersRewardEngine:
    """A sequence classifier with one output, read as the reward; safetensors only."""

    def __init__(self, model: ModelRef, settings: TransformersSettings) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self.tokenizer = AutoTokenizer.from_pretrained(model.source, **model.load_kwargs())
        self.tokenizer.padding_side = "right"
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            model.source, dtype=getattr(torch, settings.dtype), use_safetensors=True, num_labels=1, **model.load_kwargs()
        )
        self.model = loaded.to(self.device).eval()
        self.context = int(self.model.config.max_position_embeddings)

    def score(self, calls: RewardCalls) -> Iterator[list[tuple[str, RewardAnswer]]]:
        """See ``RewardEngine.score``."""
        while taken := list(islice(calls, self.settings.chunk_size)):
            rows: dict[int, list[int]] = {}
            refused: list[tuple[str, RewardAnswer]] = []
            for index, (key, request) in enumerate(taken):
                ids = self.tokenizer.apply_chat_template(request.messages, return_dict=True)["input_ids"]
                if len(ids) > self.context:
                    error = f"conversation_too_long: {len(ids)} tokens, context {self.context}"
                    refused.append((key, RewardAnswer(None, error, len(ids))))
                else:
                    rows[index] = ids
            if refused:
                yield refused
            for batch in batches(rows, self.settings.batch_size):
                rewards = self._rewards([rows[i] for i in batch])
                yield [(taken[i][0], RewardAnswer(reward, None, len(rows[i]))) for i, reward in zip(batch, rewards, strict=True)]

    @torch.inference_mode()
    def _rewards(self, rows: list[list[int]]) -> list[float]:
        padded = self.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self.device)
        return self.model(**padded).logits[:, 0].float().tolist()
