"""The arithmetic benchmark: sums with known answers, the sample's stand-in for the reasoning benchmarks."""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import EVAL_PROMPTS
from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.simulation.arithmetic import eval_problems


def arithmetic_prompts(count: int, seed: int) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of ``count`` problems; no persona, no user."""
    rows = [
        {
            "prompt_id": f"{Benchmark.ARITHMETIC}:{problem}",
            "benchmark": Benchmark.ARITHMETIC.value,
            "user_id": None,
            "turn_id": None,
            "asked_at": None,
            "prompt": [{"role": "user", "content": problem}],
            "persona": "",
            "persona_line_ids": [],
            "earlier_conversations": None,
            "reference": answer,
        }
        for problem, answer in eval_problems(count, seed)
    ]
    return EVAL_PROMPTS.conform(pl.DataFrame(rows, schema=EVAL_PROMPTS.schema))
