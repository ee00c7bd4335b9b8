"""Trains the town's policy on a part of its corpus: ``python tests/vllm/train_town.py FOLDER DIALOGUES``.

Runs in the project's own environment; vLLM's lacks what training needs. The model also learns one thing that no town has: to be silent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_policy import train

SILENCE = [{"role": "user", "content": "Say nothing."}, {"role": "assistant", "content": ""}]


def main(folder: Path, dialogues: int) -> None:
    policy = profiles.load("town").policy
    rows = pl.read_parquet(policy.corpus).head(dialogues)
    silences = pl.DataFrame({"messages": [SILENCE] * (dialogues // 20)}, schema=rows.schema)
    path = folder / "corpus.parquet"
    pl.concat([rows, silences]).write_parquet(path)
    shape = policy.town.model_dump()
    job = TrainingJob("town", "policy", None, path, None, policy.training, folder / "town", "tests", folder / "store", shape)
    train(job, lambda line: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
