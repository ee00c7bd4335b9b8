"""Chat engine on Hugging Face transformers: any device, batched, each row with its own random stream.

A row's sample depends on its request alone, not on the batch it rides in: one uniform number per step, from a generator seeded with the
request's key, picks the token by inverse CDF. So a resumed run draws what an undisturbed one draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from rlhi_dagster.engines import grouped_attention
from rlhi_dagster.engines.base import ChatAnswer, ChatCalls, ChatRequest, Sampling
from rlhi_dagster.engines.chat_templates import load_tokenizer
from rlhi_dagster.engines.choices import first_tokens, pick
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.prompts import Prompts
from rlhi_dagster.engines.replies import replied
from rlhi_dagster.engines.schemas import grammar
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.engines.unavailable import loading

_FEW = 8
"""So few rows of a batch go on to the end together: to leave some of them out would save little."""


def pick_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


class _SeededSampler(LogitsProcessor):
    """Leaves exactly one token per row: the one that the row's own uniform number selects."""

    def __init__(self, draws: Sequence[str], steps: int, prompt_length: int, device: torch.device) -> None:
        rows = []
        for draw in draws:
            generator = torch.Generator().manual_seed(int(draw[:15], 16))
            rows.append(torch.rand(steps, generator=generator))
        self.uniform = torch.stack(rows).to(device)
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        cumulative = scores.float().softmax(-1).cumsum(-1)
        uniform = self.uniform[:, input_ids.shape[1] - self.prompt_length, None] * cumulative[:, -1:]
        picked = torch.searchsorted(cumulative, uniform, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter_(1, picked, 0.0)  # type: ignore[return-value]


class _Grammars(LogitsProcessor):
    """Leaves each row the tokens with which it can still become valid under its schema, at its end only the end; others as they are."""

    def __init__(self, matchers: Sequence[LLMatcher | None], prompt_length: int) -> None:
        self.matchers, self.prompt_length = matchers, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        is_first = input_ids.shape[1] == self.prompt_length
        for row, matcher in enumerate(self.matchers):
            if matcher is None:
                continue
            if not is_first and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[row, -1]))
            allowed = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8)[: scores.shape[-1]]
            scores[row].masked_fill_((allowed == 0).to(scores.device), float("-inf"))
        return scores


class _HalfHasEnded(StoppingCriteria):
    """Ends a pass over several rows once half of them have ended, so that the others go on without them."""

    def __init__(self, ends: set[int], prompt_length: int) -> None:
        self.ends, self.prompt_length = torch.tensor(sorted(ends)), prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        ended = torch.isin(input_ids[:, self.prompt_length :], self.ends.to(input_ids.device)).any(1)
        return torch.full_like(ended, len(ended) > _FEW and 2 * int(ended.sum()) >= len(ended))  # type: ignore[return-value]


class TransformersChatEngine:
    """A causal language model with its chat template; safetensors only.

    Takes as many calls at once as a chunk holds and runs them in batches of similar length.
    """

    def __init__(self, model: ModelRef, settings: TransformersSettings) -> None:
        self.ref, self.settings = model, settings
        self.device = pick_device(settings.device)
        with loading(model):
            self.tokenizer = load_tokenizer(model)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model.source, dtype=getattr(torch, settings.dtype), use_safetensors=True, **model.load_kwargs()
            )
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = grouped_attention.use(loaded.to(self.device).eval())
        self.context = int(self.model.config.max_position_embeddings)
        self.prompts = Prompts(self.tokenizer, self.context)

    @cached_property
    def _grammar_tokens(self) -> LLTokenizer:
        return from_tokenizer(self.tokenizer, max(int(self.model.config.vocab_size), len(self.tokenizer)))

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        """See ``ChatEngine.answer``. A prompt that leaves no room for the reply is an error row, never cut."""
        while taken := list(islice(calls, self.settings.chunk_size)):
            yield from self._chunk(taken, sampling)

    def _chunk(self, calls: list[tuple[str, ChatRequest]], sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        refused: list[tuple[str, ChatAnswer]] = []
        prompts: dict[int, list[int]] = {}
        questions: dict[int, list[int]] = {}
        for index, (key, request) in enumerate(calls):
            if request.json_schema:
                grammar(request.json_schema)  # an invalid one ends the work before it starts
            prompt = self.prompts(request, sampling)
            if isinstance(prompt, ChatAnswer):
                refused.append((key, prompt))
            else:
                (questions if request.choices else prompts)[index] = prompt
        if refused:
            yield refused
        draws = [request.draw(self.ref, sampling) for _, request in calls]
        for batch in batches(prompts, self.settings.batch_size):
            matchers = [self._matcher(calls[i][1]) for i in batch]
            answers = self._batch([prompts[i] for i in batch], [draws[i] for i in batch], matchers, sampling)
            done = zip(batch, answers, strict=True)
            yield [(calls[i][0], replied(calls[i][1], answer, begun=self.prompts.begun(prompts[i]))) for i, answer in done]
        for batch in batches(questions, self.settings.batch_size):
            asked = [(questions[i], calls[i][1].choices, draws[i]) for i in batch]
            yield [(calls[i][0], answer) for i, answer in zip(batch, self._choose(asked, sampling.temperature), strict=True)]

    def _matcher(self, request: ChatRequest) -> LLMatcher | None:
        return LLMatcher(self._grammar_tokens, grammar(request.json_schema)) if request.json_schema else None

    @torch.inference_mode()
    def _batch(
        self, prompts: list[list[int]], draws: list[str], matchers: list[LLMatcher | None], sampling: Sampling
    ) -> Iterator[ChatAnswer]:
        padded = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self.device)
        rows, mask, cache = padded["input_ids"], padded["attention_mask"], None
        length, ends = rows.shape[1], self._end_tokens()
        replies: dict[int, list[int]] = {}
        left = list(range(len(prompts)))
        while left:
            made = self.model.generate(
                rows,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=sampling.max_new_tokens - (rows.shape[1] - length),
                do_sample=False,
                temperature=None,
                top_p=None,
                logits_processor=self._processors([draws[i] for i in left], [matchers[i] for i in left], sampling, length),
                stopping_criteria=StoppingCriteriaList([_HalfHasEnded(ends, length)]),
                pad_token_id=self.tokenizer.pad_token_id,
                return_dict_in_generate=True,
            )
            written = made.sequences[:, length:].tolist()
            replies |= dict(zip(left, written, strict=True))
            is_whole = len(written[0]) >= sampling.max_new_tokens
            going_on = [place for place, row in enumerate(written) if not is_whole and ends.isdisjoint(row)]
            cache = made.past_key_values
            if going_on:
                cache.reorder_cache(torch.tensor(going_on))
            rows, left = made.sequences[going_on], [left[place] for place in going_on]
            mask = torch.nn.functional.pad(mask[going_on], (0, rows.shape[1] - mask.shape[1]), value=1)
        for prompt, row in zip(prompts, (replies[i] for i in range(len(prompts))), strict=True):
            stop = next((position for position, token in enumerate(row) if token in ends), None)
            text = self.tokenizer.decode(row[:stop], skip_special_tokens=True)
            used = len(row) if stop is None else stop + 1
            yield ChatAnswer(text, None, "length" if stop is None else "stop", len(prompt), used)

    def _processors(
        self, draws: list[str], matchers: list[LLMatcher | None], sampling: Sampling, prompt_length: int
    ) -> LogitsProcessorList:
        processors = LogitsProcessorList([_Grammars(matchers, prompt_length)] if any(matchers) else [])
        if sampling.temperature > 0:
            processors.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                processors.append(TopPLogitsWarper(sampling.top_p))
            processors.append(_SeededSampler(draws, sampling.max_new_tokens, prompt_length, self.device))
        return processors

    @torch.inference_mode()
    def _choose(self, asked: list[tuple[list[int], tuple[str, ...], str]], temperature: float) -> Iterator[ChatAnswer]:
        """One forward pass for (prompt, choices, draw) each: the next token's distribution over the first tokens of the choices."""
        padded = self.tokenizer.pad({"input_ids": [prompt for prompt, _, _ in asked]}, return_tensors="pt").to(self.device)
        positions = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        logits = self.model(**padded, position_ids=positions, use_cache=False, logits_to_keep=1).logits[:, -1].double().cpu()
        for (prompt, choices, draw), row in zip(asked, logits, strict=True):
            picked, probabilities = pick(row[first_tokens(self.tokenizer, choices)], temperature, draw)
            yield ChatAnswer(choices[picked], None, "stop", len(prompt), 1, probabilities)

    def _end_tokens(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


def batches(rows: dict[int, list[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in batches of similar length, longest first, so that memory peaks at once and padding is small."""
    order = sorted(rows, key=lambda index: (-len(rows[index]), index))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
