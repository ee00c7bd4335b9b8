"""Chat and reward engines on Hugging Face transformers: any device, batched, each row with its own random stream.

A row's sample depends on its request alone, not on the batch it rides in: one uniform number per step, from a generator seeded with the
request's key, picks the token by inverse CDF. So a resumed run draws what an undisturbed one draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest, Sampling, too_long
from rlhi_dagster.engines.choices import first_tokens, pick
from rlhi_dagster.engines.models import ModelRef


def pick_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


class _SeededSampler(LogitsProcessor):
    """Leaves exactly one token per row: the one that the row's own uniform number selects."""

    def __init__(self, keys: Sequence[str], steps: int, prompt_length: int, device: torch.device) -> None:
        rows = []
        for key in keys:
            generator = torch.Generator().manual_seed(int(key[:15], 16))
            rows.append(torch.rand(steps, generator=generator))
        self.uniform = torch.stack(rows).to(device)
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        cumulative = scores.float().softmax(-1).cumsum(-1)
        uniform = self.uniform[:, input_ids.shape[1] - self.prompt_length, None] * cumulative[:, -1:]
        picked = torch.searchsorted(cumulative, uniform, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter_(1, picked, 0.0)  # type: ignore[return-value]


class TransformersChatEngine:
    """A causal language model with its chat template.

    Args:
        model: What to load; safetensors only.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``...
        dtype: ``float32`` or ``bfloat16``.
        batch_size: Rows generated together.
    """

    def __init__(self, model: ModelRef, device: str = "auto", dtype: str = "float32", batch_size: int = 128) -> None:
        self.device = pick_device(device)
        self.batch_size = batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(model.source, **model.load_kwargs())
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model.source, dtype=getattr(torch, dtype), use_safetensors=True, **model.load_kwargs()
        )
        self.model = loaded.to(self.device).eval()
        self.context = int(self.model.config.max_position_embeddings)

    def generate(self, requests: Sequence[ChatRequest], keys: Sequence[str], sampling: Sampling) -> list[ChatAnswer]:
        """See ``ChatEngine.generate``. A prompt that leaves no room for the reply is an error row, never cut."""
        answers: list[ChatAnswer | None] = [None] * len(requests)
        prompts: dict[int, list[int]] = {}
        questions: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            ids = self.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True)["input_ids"]
            if refusal := too_long(request, len(ids), sampling, self.context):
                answers[index] = refusal
            elif request.choices:
                questions[index] = ids
            else:
                prompts[index] = ids
        for batch in _batches(prompts, self.batch_size):
            for index, answer in zip(batch, self._batch([prompts[i] for i in batch], [keys[i] for i in batch], sampling), strict=True):
                answers[index] = answer
        for batch in _batches(questions, self.batch_size):
            asked = [(questions[i], requests[i].choices, keys[i]) for i in batch]
            for index, answer in zip(batch, self._choose(asked, sampling.temperature), strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    @torch.inference_mode()
    def _batch(self, prompts: list[list[int]], keys: list[str], sampling: Sampling) -> Iterator[ChatAnswer]:
        padded = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self.device)
        length = padded["input_ids"].shape[1]
        processors = LogitsProcessorList()
        if sampling.temperature > 0:
            processors.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                processors.append(TopPLogitsWarper(sampling.top_p))
            processors.append(_SeededSampler(keys, sampling.max_new_tokens, length, self.device))
        output = self.model.generate(
            **padded,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            logits_processor=processors,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        ends = self._end_tokens()
        for prompt, row in zip(prompts, output[:, length:].tolist(), strict=True):
            stop = next((position for position, token in enumerate(row) if token in ends), None)
            text = self.tokenizer.decode(row[:stop], skip_special_tokens=True)
            used = len(row) if stop is None else stop + 1
            yield ChatAnswer(text, None, "length" if stop is None else "stop", len(prompt), used)

    @torch.inference_mode()
    def _choose(self, asked: list[tuple[list[int], tuple[str, ...], str]], temperature: float) -> Iterator[ChatAnswer]:
        """One forward pass for (prompt, choices, key) each: the next token's distribution over the first tokens of the choices."""
        padded = self.tokenizer.pad({"input_ids": [prompt for prompt, _, _ in asked]}, return_tensors="pt").to(self.device)
        positions = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        logits = self.model(**padded, position_ids=positions, use_cache=False, logits_to_keep=1).logits[:, -1].double().cpu()
        for (prompt, choices, key), row in zip(asked, logits, strict=True):
            picked, probabilities = pick(row[first_tokens(self.tokenizer, choices)], temperature, key)
            yield ChatAnswer(choices[picked], None, "stop", len(prompt), 1, probabilities)

    def _end_tokens(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


class TransformersRewardEngine:
    """A sequence classifier with one output, read as the reward; arguments as for ``TransformersChatEngine``."""

    def __init__(self, model: ModelRef, device: str = "auto", dtype: str = "float32", batch_size: int = 128) -> None:
        self.device = pick_device(device)
        self.batch_size = batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(model.source, **model.load_kwargs())
        self.tokenizer.padding_side = "right"
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            model.source, dtype=getattr(torch, dtype), use_safetensors=True, num_labels=1, **model.load_kwargs()
        )
        self.model = loaded.to(self.device).eval()
        self.context = int(self.model.config.max_position_embeddings)

    @torch.inference_mode()
    def score(self, requests: Sequence[RewardRequest]) -> list[RewardAnswer]:
        """See ``RewardEngine.score``. A conversation longer than the context is an error row, never cut."""
        answers: list[RewardAnswer | None] = [None] * len(requests)
        rows: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            ids = self.tokenizer.apply_chat_template(request.messages, return_dict=True)["input_ids"]
            if len(ids) > self.context:
                answers[index] = RewardAnswer(None, f"conversation_too_long: {len(ids)} tokens, context {self.context}", len(ids))
            else:
                rows[index] = ids
        for batch in _batches(rows, self.batch_size):
            padded = self.tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt").to(self.device)
            rewards = self.model(**padded).logits[:, 0].float().tolist()
            for index, reward in zip(batch, rewards, strict=True):
                answers[index] = RewardAnswer(reward, None, len(rows[index]))
        return [answer for answer in answers if answer is not None]


def _batches(rows: dict[int, list[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in batches of similar length, longest first, so that memory peaks at once and padding is small."""
    order = sorted(rows, key=lambda index: (-len(rows[index]), index))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
