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
from rlhi_dagster.engines.calls import fulfil
from rlhi_dagster.engines.loading import engine_settings, reward_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.store import ResponseStore
from rlhi_dagster.workers.answering import CallProgress, Stop


def main() -> None:
    """Run the job that Pipes hands over."""
    with open_dagster_pipes():
        pipes = PipesContext.get()
        job, stop = pipes.extras, Stop(pipes.log.warning)
        settings, model = engine_settings(job["engine"]), ModelRef(**job["model"])
        stats = fulfil(
            {row["key"]: RewardRequest(row["messages"]) for row in pl.read_parquet(job["requests"]).to_dicts()},
            ResponseStore(Path(job["store"]), "reward", model.identity),
            lambda calls: reward_engine(model, settings).score(calls),
            lambda request: request.settings(settings.identity),
            chunk_size=settings.chunk_size,
            max_error_fraction=settings.max_error_fraction,
            usd_per_hour=settings.usd_per_hour,
            on_progress=CallProgress(pipes.log.info, model.name),
            is_stopping=stop,
        )
        pipes.report_custom_message(asdict(stats))


if __name__ == "__main__":
    main()
