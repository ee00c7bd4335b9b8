"""Worker: reward conversations through the response store.

Job (Pipes extras): ``store``, ``engine`` (``EngineSettings``), ``model`` (``ModelRef``) and ``requests`` (Parquet of ``key, messages``).
Reports ``CallStats`` as a custom message.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.engines.base import RewardRequest
from rlhi_dagster.engines.calls import fulfil_rewards
from rlhi_dagster.engines.loading import EngineSettings, reward_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.store import ResponseStore
from rlhi_dagster.workers.progress import Progress


def main() -> None:
    """Run the job that Pipes hands over."""
    with open_dagster_pipes():
        pipes = PipesContext.get()
        job = pipes.extras
        settings, model = EngineSettings(**job["engine"]), ModelRef(**job["model"])
        requests = {row["key"]: RewardRequest(row["messages"]) for row in pl.read_parquet(job["requests"]).to_dicts()}
        store = ResponseStore(Path(job["store"]), "reward", model.identity)
        report = Progress(pipes.log.info, model.name)
        stats = fulfil_rewards(requests, store, lambda: reward_engine(model, settings), settings.chunk_size, report)
        pipes.report_custom_message(asdict(stats))


if __name__ == "__main__":
    main()
