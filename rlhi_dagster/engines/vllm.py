"""Chat engine on vLLM, in process: prefix caching and continuous batching for the paper's scale.

Needs the extra ``vllm``. Samples of the same messages are requests of their own, not one with vLLM's ``n``: that is as fast, since they
share their prompt's cache, and each is answered when it is done. Their seeds are those that ``n`` would give them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from vllm import RequestOutput, SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from rlhi_dagster.engines.base import ChatAnswer, ChatCalls, ChatRequest, Sampling
from rlhi_dagster.engines.chat_templates import without_thoughts
from rlhi_dagster.engines.choices import first_tokens, pick
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.prompts import Prompts
from rlhi_dagster.engines.replies import replied
from rlhi_dagster.engines.schemas import grammar
from rlhi_dagster.engines.settings import VllmSettings
from rlhi_dagster.engines.vllm_streaming import Finished, Work, load, room, streamed


class VllmChatEngine:
    """A causal language model served by an in-process vLLM."""

    def __init__(self, model: ModelRef, settings: VllmSettings) -> None:
        self.ref, self.settings = model, settings
        self.llm = load(
            model,
            settings,
            enable_prefix_caching=True,
            enable_chunked_prefill=not current_platform.is_cpu(),  # a prompt read in parts would rewind its seed, which a CPU cannot
            structured_outputs_config={"backend": "guidance", "disable_any_whitespace": True},  # the grammar of `schemas`
        )
        self.tokenizer = without_thoughts(self.llm.get_tokenizer())
        self.prompts = Prompts(self.tokenizer, settings.max_context_tokens)

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[Finished[ChatAnswer]]:
        """See ``ChatEngine.answer``. A prompt that leaves no room for the reply is an error row, never cut."""
        yield from streamed(self.llm, self._work(calls, sampling), room(self.llm, self.settings.chunk_size))

    def _work(self, calls: ChatCalls, sampling: Sampling) -> Iterator[Work[ChatAnswer] | Finished[ChatAnswer]]:
        for key, request in calls:
            if request.json_schema:
                grammar(request.json_schema)  # refuses what vLLM would refuse, in the words of all engines
            prompt = self.prompts(request, sampling)
            if isinstance(prompt, ChatAnswer):
                yield [(key, prompt)]
            else:
                yield Work(key, prompt, self._params(request, sampling), partial(self._answer, request, sampling))

    def _params(self, request: ChatRequest, sampling: Sampling) -> SamplingParams:
        """Text is left to ``_answer``: vLLM's own drops a character that the limit has cut."""
        if request.choices:
            return SamplingParams(
                max_tokens=1,
                logprob_token_ids=first_tokens(self.tokenizer, request.choices),
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=request.seed(self.ref, sampling),
            structured_outputs=StructuredOutputsParams(json=request.json_schema) if request.json_schema else None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _answer(self, request: ChatRequest, sampling: Sampling, output: RequestOutput) -> ChatAnswer:
        """Read a reply, or draw a choice from the log-probabilities that vLLM gives for the first tokens of the choices."""
        best = output.outputs[0]
        prompt_tokens, cached = len(output.prompt_token_ids), output.num_cached_tokens or 0
        if best.finish_reason not in {"stop", "length"}:
            error = f"engine_failed: vLLM ended the request with {best.finish_reason}"
            return ChatAnswer(None, error, None, prompt_tokens, len(best.token_ids), cached_tokens=cached, is_retryable=True)
        if request.choices:
            found = best.logprobs[0]
            scores = [found[token].logprob for token in first_tokens(self.tokenizer, request.choices)]
            picked, probabilities = pick(torch.tensor(scores, dtype=torch.float64), sampling.temperature, request.draw(self.ref, sampling))
            return ChatAnswer(request.choices[picked], None, "stop", prompt_tokens, 1, probabilities, cached_tokens=cached)
        tokens = best.token_ids[:-1] if best.finish_reason == "stop" else best.token_ids
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        answer = ChatAnswer(text, None, best.finish_reason, prompt_tokens, len(best.token_ids), cached_tokens=cached)
        return replied(request, answer, begun=self.prompts.begun(output.prompt_token_ids))
