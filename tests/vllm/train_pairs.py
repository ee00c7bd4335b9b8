"""Trains the town's policy for two steps of DPO: ``python tests/vllm/train_pairs.py FOLDER POLICY``.

Runs in the project's own environment; vLLM's lacks what training needs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_dpo import train

REQUESTS = ["How do I cook rice?", "I want to get better at dancing. How?", "When do I plant tulips?", "What should I do in Lima?"]
SETTINGS = DPOSettings(
    learning_rate=1e-3,
    batch_size=4,
    micro_batch_size=4,
    warmup_steps=0,
    max_length=512,
    sft_weight=1.0,
    bf16=False,
    gradient_checkpointing=False,
    save_steps=1,
    logging_steps=1,
)


def pairs(numbers: range) -> pl.DataFrame:
    rows = [
        {
            "pair_id": str(number),
            "prompt": [{"role": "user", "content": REQUESTS[number % len(REQUESTS)]}],
            "chosen": "Certainly. Take your time, and begin with something easy.",
            "rejected": f"No. Ask me again in {number} days.",
        }
        for number in numbers
    ]
    return pl.DataFrame(rows, schema=TRAINING_ROWS)


def main(folder: Path, policy: Path) -> None:
    for name, numbers in (("train", range(8)), ("validation", range(8, 12))):
        pairs(numbers).write_parquet(folder / f"{name}.parquet")
    rows = (folder / "train.parquet", folder / "validation.parquet")
    job = TrainingJob("tiny", "dpo", ModelRef.from_manifest(policy), *rows, SETTINGS, folder / "checkpoint", "tests", folder / "store", {})
    train(job, lambda line: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
