"""Public benchmarks: those whose replies a model judges, AlpacaEval, Arena-Hard and MT-Bench, and those with known answers.

What belongs here: a module for each that a model judges, with how its items are loaded from the published files (``load``), how they are
judged (``SCALE``: a question, what its letters mean, whether two replies are compared), and how judgements become scores (``scores``);
for those with known answers how the items are loaded (``mathematics``, ``multiple_choice``); and what they share (``items``, ``rating``).
What does not: grading known answers (``rlhi_dagster.reasoning``), and asking the policy.

``safety`` is written here and judged by rule, so it needs neither a folder nor a judge; ``pushback`` is one of its rules.

``PUBLIC`` has all that a model judges, ``KNOWN_ANSWERS`` how the others are loaded from a file or folder. Nothing is downloaded, and a
benchmark whose location nobody named is not run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.evaluation.benchmarks import alpaca_eval, arena_hard, mathematics, mt_bench, multiple_choice
from rlhi_dagster.evaluation.benchmarks.items import Loaded
from rlhi_dagster.evaluation.benchmarks.rating import Scale


@dataclass(frozen=True, slots=True)
class PublicBenchmark:
    """How one benchmark is run.

    Attributes:
        load: From the folder with its files: items and, where they were published, the opponents' replies.
        scale: How a judge is asked.
        scores: From the folder, ``BENCHMARK_RATINGS``, and ``RESPONSES`` of recipes and opponents: rows of ``SCORES``.
    """

    load: Callable[[Path], Loaded]
    scale: Scale
    scores: Callable[[Path, pl.DataFrame, pl.DataFrame], pl.DataFrame]


PUBLIC: Mapping[Benchmark, PublicBenchmark] = {
    Benchmark.ALPACA_EVAL: PublicBenchmark(alpaca_eval.load, alpaca_eval.SCALE, alpaca_eval.scores),
    Benchmark.ARENA_HARD_V0_1: PublicBenchmark(arena_hard.load_v0_1, arena_hard.SCALE, arena_hard.scores),
    Benchmark.ARENA_HARD_V2_0: PublicBenchmark(arena_hard.load_v2_0, arena_hard.SCALE, arena_hard.scores),
    Benchmark.MT_BENCH: PublicBenchmark(mt_bench.load, mt_bench.SCALE, mt_bench.scores),
}
KNOWN_ANSWERS: Mapping[Benchmark, Callable[[str], pl.DataFrame]] = {
    Benchmark.MATH_500: mathematics.math_500,
    Benchmark.MINERVA: mathematics.minerva,
    Benchmark.OLYMPIAD_BENCH: mathematics.olympiad_bench,
    Benchmark.MMLU_PRO: multiple_choice.mmlu_pro,
    Benchmark.GPQA: multiple_choice.gpqa,
    Benchmark.GSM8K: mathematics.gsm8k,
    Benchmark.AMC_23: mathematics.amc_23,
    Benchmark.AIME_24: mathematics.aime_24,
}
