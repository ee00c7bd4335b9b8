"""How fast requests are answered through the worker beside the bare engine, and what an order that knows prefixes is worth.

What belongs here: tokens per second of vLLM's own ``LLM.chat`` and of the worker's whole way (order, rendering, streaming, response
store on disk) on the same requests and the same loaded engine, by turns, the prefix cache emptied before each; and of the candidates'
workload, 64 samples of each request with its persona, in the worker's order and in a drawn one. What does not: a threshold; results are
recorded in ``README.md``. Needs vLLM: ``.venv-vllm/bin/python benchmarks/generate.py --help``.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from rlhi_dagster.engines import ask, vllm_streaming
from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.engines.settings import VllmSettings
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.engines.vllm import VllmChatEngine
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.workers.answering import Desk
from rlhi_dagster.workers.generate import Generation

CORPUS = Path(__file__).parents[1] / "data" / "sample" / "corpus.parquet"
PERSONA_LINES = 36
"""Of a made-up persona: some 400 tokens of the town's, so that there is a prefix worth keeping."""
SMALL_CACHE = {"max_num_seqs": 32, "num_gpu_blocks_override": 160}
"""Of the candidates' workload on a CPU: room for what is under way and little more, as a GPU has beside a month's requests."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One way's rounds.

    Attributes:
        tokens: Written in a round.
        cached_fraction: Share of the prompts' tokens that the prefix cache had; ``None`` where nobody told.
        seconds: Of each round.
    """

    tokens: int
    cached_fraction: float | None
    seconds: list[float]

    @property
    def rate(self) -> float:
        """Tokens written per second, median over the rounds."""
        return self.tokens / statistics.median(self.seconds)


def openings() -> list[list[dict[str, str]]]:
    """Distinct first user messages of the town's corpus, in its order."""
    said = pl.read_parquet(CORPUS)["messages"].to_list()
    texts = dict.fromkeys(message["content"] for messages in said for message in messages if message["role"] == "user")
    return [[{"role": "user", "content": text}] for text in texts]


def mixed(count: int) -> list[ChatRequest]:
    """Requests that share nothing, one sample each."""
    found = openings()
    return [ChatRequest(found[number % len(found)], number // len(found)) for number in range(count)]


def candidates(count: int, samples: int) -> list[ChatRequest]:
    """``samples`` of each of ``count`` requests, every one with a long persona of its own."""
    found = openings()
    told = [messages[0]["content"] for messages in found]
    personas = ["\n".join(told[(n * PERSONA_LINES + line) % len(told)] for line in range(PERSONA_LINES)) for n in range(count)]
    return [ChatRequest(with_persona(found[n], personas[n]), index) for n in range(count) for index in range(samples)]


def bare(engine: VllmChatEngine, requests: list[ChatRequest], sampling: Sampling) -> tuple[int, float | None]:
    """What one would write without this project: all requests in one call of the library."""
    outputs = engine.llm.chat([each.messages for each in requests], [engine._params(each, sampling) for each in requests], use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs), None


def through_worker(engine: VllmChatEngine, requests: list[ChatRequest], sampling: Sampling) -> tuple[int, float | None]:
    """The worker's way, into an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"store": folder, "engine": engine.settings.model_dump(), "limits": {}}
        generation = Generation(Desk(job, lambda line: None, lambda: False), engine.ref, sampling)
        generation.engine = engine  # type: ignore[misc]
        keyed = {request.key(engine.ref, sampling, engine.settings.identity): request for request in requests}
        stats: CallStats = generation.answer(keyed, "benchmark")
    assert (stats.answered, stats.errors) == (len(requests), 0)
    return stats.completion_tokens, stats.cached_tokens / stats.prompt_tokens


Way = Callable[[VllmChatEngine, list[ChatRequest], Sampling], tuple[int, float | None]]


def in_drawn_order(engine: VllmChatEngine, requests: list[ChatRequest], sampling: Sampling) -> tuple[int, float | None]:
    """The worker's way with its order replaced by one drawn at random."""
    kept = ask.in_order
    ask.in_order = lambda given: random.Random(1).sample(list(given), len(given))
    try:
        return through_worker(engine, requests, sampling)
    finally:
        ask.in_order = kept


def measure(engine: VllmChatEngine, ways: dict[str, Way], requests: list[ChatRequest], sampling: Sampling, rounds: int) -> Iterator[str]:
    """Lines of a table: each way's rate, and its ratio to the first's, round by round."""
    found: dict[str, Measurement] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            engine.llm.reset_prefix_cache()
            started = time.perf_counter()
            tokens, cached = way(engine, requests, sampling)
            seconds = time.perf_counter() - started
            if number:  # the first round warms up
                earlier = found.get(name, Measurement(tokens, cached, []))
                found[name] = Measurement(tokens, cached, [*earlier.seconds, seconds])
    first = next(iter(found.values()))
    for name, each in found.items():
        ratios = [one / two for one, two in zip(first.seconds, each.seconds, strict=True)]
        shared = "" if each.cached_fraction is None else f"{each.cached_fraction:.0%}"
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        yield f"| {name} | {len(requests):,} | {each.tokens:,} | {each.rate:,.0f} | {shared} | {spread} |"


def random_llama(folder: Path, tokenizer: Path) -> Path:
    """A Llama of Llama-3.1-8B's shape with random weights, and the tokenizer of another model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        eos_token_id=None,
    )
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(shape).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def started(path: Path, settings: VllmSettings, **more: int) -> VllmChatEngine:
    """Load the engine; ``more`` goes to vLLM."""
    kept = vllm_streaming.LLM
    vllm_streaming.LLM = partial(kept, **more)  # type: ignore[misc, assignment]
    try:
        return VllmChatEngine(ModelRef("benchmark", weights_digest(path), str(path)), settings)
    finally:
        vllm_streaming.LLM = kept  # type: ignore[misc]


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("data/lake/policy"), help="folder of a model (default: %(default)s, the demo's)")
    parser.add_argument("--random-8b", action="store_true", help="a random Llama of 8B shape with that model's tokenizer; needs a GPU")
    parser.add_argument("--requests", type=int, default=3000, help="requests of the mixed workload (default: %(default)s)")
    parser.add_argument("--candidate-requests", type=int, default=60, help="requests of 64 samples each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after one that warms up (default: %(default)s)")
    given = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    workloads: list[tuple[dict[str, Way], list[ChatRequest], dict[str, int]]] = [
        ({"bare `LLM.chat`": bare, "worker": through_worker}, mixed(given.requests), {}),
        (
            {"candidates, drawn order": in_drawn_order, "candidates, worker's order": through_worker},
            candidates(given.candidate_requests, 64),
            {} if given.random_8b else SMALL_CACHE,
        ),
    ]
    lines = ["| way | requests | tokens written | tokens/s | of prompts cached | ratio |", "|---|--:|--:|--:|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        path = random_llama(Path(folder), given.model) if given.random_8b else given.model
        settings = VllmSettings(dtype="bfloat16" if given.random_8b else "float32", chunk_size=2048, max_context_tokens=1024)
        for ways, requests, more in workloads:
            engine = started(path, settings, **more)
            lines += measure(engine, ways, requests, Sampling(0.6, 0.9, 48, 7), given.rounds)
            engine.llm.llm_engine.engine_core.shutdown()
    print("\n".join(lines))


if __name__ == "__main__":
    main()
