"""Chat engine on vLLM, in process: prefix caching and continuous batching for the paper's scale.

Needs the extra ``vllm``. Left out: tensor parallelism across machines and structured outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllm import LLM, SamplingParams, TokensPrompt
from vllm.platforms import current_platform

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef


class VllmChatEngine:
    """A causal language model served by an in-process vLLM.

    Args:
        model: What to load.
        dtype: ``float32`` or ``bfloat16``.
        max_context_tokens: Longest prompt plus reply.
        memory_fraction: Share of the device's memory for weights and key-value cache.
    """

    def __init__(self, model: ModelRef, dtype: str = "bfloat16", max_context_tokens: int = 8192, memory_fraction: float = 0.9) -> None:
        self.context = max_context_tokens
        self.llm = LLM(
            model=model.source,
            revision=None if model.path else model.revision,
            dtype=dtype,  # type: ignore[arg-type]
            max_model_len=max_context_tokens,
            gpu_memory_utilization=memory_fraction,
            enable_prefix_caching=True,
            trust_remote_code=False,
        )
        self.tokenizer = self.llm.get_tokenizer()

    def generate(self, requests: Sequence[ChatRequest], keys: Sequence[str], sampling: Sampling) -> list[ChatAnswer]:
        """See ``ChatEngine.generate``. On a CPU vLLM takes no seed per request, so repeated samples are not reproducible there."""
        answers: dict[int, ChatAnswer] = {}
        prompts: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            ids = self.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=True, return_dict=True)[
                "input_ids"
            ]
            if len(ids) + sampling.max_new_tokens > self.context:
                error = f"prompt_too_long: {len(ids)} prompt + {sampling.max_new_tokens} new tokens, context {self.context}"
                answers[index] = ChatAnswer(None, error, None, len(ids), 0)
            else:
                prompts[index] = ids
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=None if current_platform.is_cpu() else int(keys[index][:8], 16),
            )
            for index in prompts
        ]
        outputs = self.llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts.values()], params, use_tqdm=False)
        for index, output in zip(prompts, outputs, strict=True):
            best = output.outputs[0]
            answers[index] = ChatAnswer(best.text, None, best.finish_reason, len(prompts[index]), len(best.token_ids))
        return [answers[index] for index in range(len(requests))]
