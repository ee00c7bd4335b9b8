"""vLLM kept busy: loading it, and a stream of requests through it. Shared by its chat and its reward engine.

Left out: data parallelism. vLLM's in-process ``LLM`` refuses it; replicas on a Ray cluster are the way.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

from transformers import AutoConfig
from vllm import LLM, PoolingParams, SamplingParams, TokensPrompt
from vllm.platforms import current_platform
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import VllmSettings
from rlhi_dagster.engines.unavailable import loading

Answer = TypeVar("Answer")
Finished = list[tuple[str, Answer]]


class EngineStartError(RuntimeError):
    """vLLM cannot run the model on this machine with these settings."""


@dataclass(frozen=True, slots=True)
class Work(Generic[Answer]):
    """One request to vLLM.

    Attributes:
        key: Of the call.
        prompt: Its tokens.
        params: How it is to be answered.
        read: Makes the answer of vLLM's output.
    """

    key: str
    prompt: list[int]
    params: SamplingParams | PoolingParams
    read: Callable[[Any], Answer]


def load(model: ModelRef, settings: VllmSettings, **more: Any) -> LLM:
    """Start vLLM with a model.

    Raises:
        EngineStartError: The model's attention heads or the device's memory do not allow it.
    """
    _check_heads(model)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # as for Dagster: nothing is reported to anybody
    try:
        with _deaf_to_interrupts():
            return LLM(
                model=model.source,
                revision=None if model.path else model.revision,
                dtype=settings.dtype,  # type: ignore[arg-type]
                max_model_len=settings.max_context_tokens,
                gpu_memory_utilization=settings.memory_fraction,
                tensor_parallel_size=settings.tensor_parallel,
                trust_remote_code=False,
                **more,
            )
    except RuntimeError as error:
        raise EngineStartError(
            f"vLLM did not start with {model.identity}; its own log above has the cause. If it is memory: lower max_context_tokens "
            f"({settings.max_context_tokens}), change memory_fraction ({settings.memory_fraction:g}), or raise tensor_parallel "
            f"({settings.tensor_parallel}); on a CPU the variable VLLM_CPU_KVCACHE_SPACE sets the cache's size in GiB"
        ) from error


def room(llm: LLM, chunk_size: int) -> int:
    """Requests to have in hand: as many again as vLLM runs at once, so that it never waits for us, but no more than half a chunk."""
    return min(2 * llm.llm_engine.vllm_config.scheduler_config.max_num_seqs, max(1, chunk_size // 2))


def streamed(llm: LLM, work: Iterator[Work[Answer] | Finished[Answer]], most: int) -> Iterator[Finished[Answer]]:
    """Run requests as others finish, at most ``most`` in hand; work that is finished already is passed through.

    Whoever stops listening leaves an engine without requests, ready for others.
    """
    engine, hand = llm.llm_engine, dict[str, Work[Answer]]()
    is_open = True
    try:
        while is_open or hand:
            finished: Finished[Answer] = []
            while is_open and len(hand) + len(finished) < most:
                item = next(work, None)
                if isinstance(item, Work):
                    number = str(next(llm.request_counter))
                    hand[number] = item
                    engine.add_request(number, TokensPrompt(prompt_token_ids=item.prompt), item.params)
                else:
                    is_open = item is not None
                    finished += item or []
            for output in engine.step() if hand else []:
                if output.finished:
                    done = hand.pop(output.request_id)
                    finished.append((done.key, done.read(output)))
            if finished:
                yield finished
    finally:
        engine.abort_request(list(hand))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that vLLM starts inherit a blocked SIGINT.

    Ctrl-C in a terminal reaches the whole group; they would end at once, and the requests in hand with them. vLLM ends them by SIGTERM.
    """
    resource_tracker.ensure_running()  # its start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_heads(model: ModelRef) -> None:
    if not current_platform.is_cpu():
        return
    with loading(model):
        config = AutoConfig.from_pretrained(model.source, **model.load_kwargs())
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if width not in known:
        raise EngineStartError(
            f"{model.identity} has attention heads of size {width}; on a CPU vLLM takes {', '.join(map(str, known))}: use transformers"
        )
