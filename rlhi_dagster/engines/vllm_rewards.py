"""Reward engine on vLLM, in process: the candidates of one prompt share their prefix. Needs the extra ``vllm``."""

from __future__ import annotations

from collections.abc import Iterator

from vllm import PoolingParams, PoolingRequestOutput

from rlhi_dagster.engines.base import RewardAnswer, RewardCalls
from rlhi_dagster.engines.loading import VllmSettings
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.vllm_streaming import Finished, Work, load, room, streamed


class VllmRewardEngine:
    """A sequence classifier with one output, read as the reward.

    Prefix caching is vLLM's default for it: on where the model reads from left to right and its last token is judged.
    """

    def __init__(self, model: ModelRef, settings: VllmSettings) -> None:
        self.settings = settings
        self.context = settings.max_context_tokens
        self.llm = load(model, settings, runner="pooling")
        self.tokenizer = self.llm.get_tokenizer()

    def score(self, calls: RewardCalls) -> Iterator[Finished[RewardAnswer]]:
        """See ``RewardEngine.score``."""
        yield from streamed(self.llm, self._work(calls), room(self.llm, self.settings.chunk_size))

    def _work(self, calls: RewardCalls) -> Iterator[Work[RewardAnswer] | Finished[RewardAnswer]]:
        raw = PoolingParams(task="classify", use_activation=False)
        for key, request in calls:
            ids = self.tokenizer.apply_chat_template(request.messages, return_dict=True)["input_ids"]
            if len(ids) > self.context:
                error = f"conversation_too_long: {len(ids)} tokens, context {self.context}"
                yield [(key, RewardAnswer(None, error, len(ids)))]
            else:
                yield Work(key, ids, raw, _read)


def _read(output: PoolingRequestOutput) -> RewardAnswer:
    if output.error is not None:
        return RewardAnswer(None, "engine_failed: vLLM ended the request", len(output.prompt_token_ids), is_retryable=True)
    return RewardAnswer(float(output.outputs.data[0]), None, len(output.prompt_token_ids), output.num_cached_tokens or 0)
