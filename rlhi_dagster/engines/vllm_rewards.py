"""Reward engine on vLLM, in process: the candidates of one prompt share its prefix. Needs the extra ``vllm``.

Left out: Athene's layout, which vLLM does not know; it runs on transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from vllm import PoolingParams, PoolingRequestOutput

from rlhi_dagster.engines.base import RewardAnswer, RewardCalls
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import VllmSettings
from rlhi_dagster.engines.transcripts import Transcripts
from rlhi_dagster.engines.vllm_streaming import Finished, Work, load, room, streamed


class VllmRewardEngine:
    """A sequence classifier with one output, whose raw value is the reward.

    Prefix caching is vLLM's default for it: on where the model reads from left to right and its last token is judged.
    """

    def __init__(self, model: ModelRef, settings: VllmSettings) -> None:
        self.settings = settings
        self.llm = load(model, settings, runner="pooling", hf_overrides={"num_labels": 1})
        self.transcripts = Transcripts(model.identity, self.llm.get_tokenizer(), settings.max_context_tokens)

    def score(self, calls: RewardCalls) -> Iterator[Finished[RewardAnswer]]:
        """See ``RewardEngine.score``."""
        yield from streamed(self.llm, self._work(calls), room(self.llm, self.settings.chunk_size))

    def _work(self, calls: RewardCalls) -> Iterator[Work[RewardAnswer] | Finished[RewardAnswer]]:
        raw = PoolingParams(task="classify", use_activation=False)
        for key, request in calls:
            ids = self.transcripts(request)
            yield [(key, ids)] if isinstance(ids, RewardAnswer) else Work(key, ids, raw, _answer)


def _answer(output: PoolingRequestOutput) -> RewardAnswer:
    tokens, cached = len(output.prompt_token_ids), output.num_cached_tokens or 0
    if output.error is not None:
        return RewardAnswer(None, "engine_failed: vLLM ended the request", tokens, cached, is_retryable=True)
    reward = float(output.outputs.data[0])
    if not math.isfinite(reward):  # it would win or lose every comparison
        return RewardAnswer(None, f"not_finite: {reward}", tokens, cached)
    return RewardAnswer(reward, None, tokens, cached)
