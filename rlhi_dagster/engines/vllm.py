"""Chat engine on vLLM, in process: prefix caching and continuous batching for the paper's scale.

Needs the extra ``vllm``. Left out: tensor parallelism across machines and structured outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import torch
from vllm import LLM, RequestOutput, SamplingParams, TokensPrompt
from vllm.platforms import current_platform

from rlhi_dagster.engines.base import ChatAnswer, ChatCalls, ChatRequest, Sampling, too_long
from rlhi_dagster.engines.choices import first_tokens, pick
from rlhi_dagster.engines.loading import VllmSettings
from rlhi_dagster.engines.models import ModelRef


class VllmChatEngine:
    """A causal language model served by an in-process vLLM."""

    def __init__(self, model: ModelRef, settings: VllmSettings) -> None:
        self.ref, self.settings = model, settings
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # as for Dagster: nothing is reported to anybody
        self.context = settings.max_context_tokens
        self.llm = LLM(
            model=model.source,
            revision=None if model.path else model.revision,
            dtype=settings.dtype,  # type: ignore[arg-type]
            max_model_len=settings.max_context_tokens,
            gpu_memory_utilization=settings.memory_fraction,
            enable_prefix_caching=True,
            enable_chunked_prefill=not current_platform.is_cpu(),  # a prompt read in parts would rewind its seed, which a CPU cannot
            trust_remote_code=False,
        )
        self.tokenizer = self.llm.get_tokenizer()

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        """See ``ChatEngine.answer``. A prompt that leaves no room for the reply is an error row, never cut."""
        while taken := list(islice(calls, self.settings.chunk_size)):
            answers: list[tuple[str, ChatAnswer]] = []
            asked: list[tuple[str, ChatRequest]] = []
            prompts: list[TokensPrompt] = []
            params: list[SamplingParams] = []
            for key, request in taken:
                ids = self.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True)["input_ids"]
                if refusal := too_long(request, len(ids), sampling, self.context):
                    answers.append((key, refusal))
                else:
                    asked.append((key, request))
                    prompts.append(TokensPrompt(prompt_token_ids=ids))
                    params.append(self._params(request, sampling))
            outputs = self.llm.generate(prompts, params, use_tqdm=False)
            answers += [(key, self._answer(each, sampling, output)) for (key, each), output in zip(asked, outputs, strict=True)]
            yield answers

    def _params(self, request: ChatRequest, sampling: Sampling) -> SamplingParams:
        """Text is left to ``_answer``: vLLM's own drops a character that the limit has cut."""
        if request.choices:
            return SamplingParams(max_tokens=1, logprob_token_ids=first_tokens(self.tokenizer, request.choices), detokenize=False)
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=request.seed(self.ref, sampling),
            detokenize=False,
        )

    def _answer(self, request: ChatRequest, sampling: Sampling, output: RequestOutput) -> ChatAnswer:
        """Read a reply, or draw a choice from the log-probabilities that vLLM gives for the first tokens of the choices."""
        best = output.outputs[0]
        prompt_tokens = len(output.prompt_token_ids)
        if request.choices:
            found = best.logprobs[0]
            scores = [found[token].logprob for token in first_tokens(self.tokenizer, request.choices)]
            picked, probabilities = pick(torch.tensor(scores, dtype=torch.float64), sampling.temperature, request.draw(self.ref, sampling))
            return ChatAnswer(request.choices[picked], None, "stop", prompt_tokens, 1, probabilities)
        tokens = best.token_ids[:-1] if best.finish_reason == "stop" else best.token_ids
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return ChatAnswer(text, None, best.finish_reason, prompt_tokens, len(best.token_ids))
