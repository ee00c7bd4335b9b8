"""How fast the sentence encoder is beside ``SentenceTransformer.encode``, and how well their vectors agree.

What belongs here: texts per second of the encoder with bf16 (where the CPU has it) and with fp32, and of the library's
own call in fp32 with its defaults (batches of 32), on the same real texts, by turns; the cosine of every vector to the
library's. What does not: a threshold; results are recorded in ``README.md``. Run ``python benchmarks/embed.py --help``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sentence_transformers import SentenceTransformer

from rlhi_dagster.engines import embedding

SHORT = 32
"""A text of at most so many tokens is short; one that is cut is long."""

Way = Callable[[list[str]], np.ndarray]


def real_texts(data: Path) -> list[str]:
    """Distinct messages of the WildChat sample and of the chosen dialogues of HH-RLHF."""
    wildchat = pl.read_parquet(data / "wildchat/wildchat_sample.parquet")["conversation"].explode().struct.field("content").to_list()
    with (data / "hh_rlhf/sample.jsonl").open() as lines:
        dialogues = [json.loads(line)["chosen"].replace("\n\nAssistant:", "\n\nHuman:").split("\n\nHuman:") for line in lines]
    return sorted({text.strip() for text in [*wildchat, *(turn for turns in dialogues for turn in turns)] if text and text.strip()})


def plain() -> SentenceTransformer:
    """The library's encoder with its defaults, reading as many tokens as ours."""
    model = SentenceTransformer(str(embedding.encoder_path()), device="cpu", local_files_only=True)
    model.max_seq_length = embedding.MAX_TOKENS
    return model


def without_bf16() -> embedding.MiniLM:
    """Our encoder as a CPU without bf16 instructions runs it."""
    has_bf16, embedding._has_bf16 = embedding._has_bf16, lambda: False
    encoder = embedding.MiniLM()
    encoder.embed([""])
    embedding._has_bf16 = has_bf16
    return encoder


def seconds(way: Way, texts: list[str]) -> tuple[float, np.ndarray]:
    """Wall seconds of one call, and its vectors."""
    started = time.perf_counter()
    vectors = way(texts)
    return time.perf_counter() - started, vectors


def compare(name: str, texts: list[str], tokens: int, ways: dict[str, Way], rounds: int) -> None:
    """Print a table row per way: speed, ratio to the first way in the same round, cosine to its vectors."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    vectors = {}
    for way in ways.values():
        way(texts[:64])
    for _ in range(rounds):
        for way, call in ways.items():
            took, vectors[way] = seconds(call, texts)
            taken[way].append(took)
    first = next(iter(ways))
    for way, times in taken.items():
        ratios = sorted(base / own for base, own in zip(taken[first], times, strict=True))
        cosines = (vectors[first] * vectors[way]).sum(axis=1)
        middle = statistics.median(times)
        print(
            f"| {name} | {way} | {middle:.2f} | {len(texts) / middle:,.0f} | {tokens / middle:,.0f} "
            f"| {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] | {cosines.min():.5f} | {cosines.mean():.5f} |",
            flush=True,
        )


def main() -> None:
    """Parse the command line, print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/embed.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real texts (default %(default)s)")
    parser.add_argument("--texts", type=int, default=2_000, help="texts drawn (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default %(default)s)")
    given = parser.parse_args()
    drawn = random.Random(given.seed).sample(real_texts(given.data), given.texts)
    model = plain()
    lengths = [len(ids) for ids in model.tokenizer(drawn, truncation=True, max_length=embedding.MAX_TOKENS)["input_ids"]]
    bounds = {"mixed": (0, embedding.MAX_TOKENS), "short": (0, SHORT), "long": (embedding.MAX_TOKENS, embedding.MAX_TOKENS)}
    ways: dict[str, Way] = {
        "SentenceTransformer, fp32": lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False),
        "MiniLM, fp32": without_bf16().embed,
        "MiniLM": embedding.MiniLM().embed,
    }
    bf16 = "bf16" if embedding._has_bf16() else "no bf16"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {bf16}; median of {given.rounds} rounds, ratio with its range\n")
    print("| texts | way | seconds | texts/s | tokens/s | ratio | least cosine | mean cosine |\n|---|---|--:|--:|--:|--:|--:|--:|")
    for name, (least, most) in bounds.items():
        chosen = [(text, length) for text, length in zip(drawn, lengths, strict=True) if least <= length <= most]
        texts = [text for text, _ in chosen]
        compare(f"{name} (n={len(texts):,})", texts, sum(length for _, length in chosen), ways, given.rounds)


if __name__ == "__main__":
    main()
