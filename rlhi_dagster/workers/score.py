"""Worker: reward conversations through the response store.

Job (Pipes extras): ``store``, ``engine`` (``EngineSettings``), ``limits`` (``forecast.Limits``), ``model`` (``ModelRef``) and
``requests`` (Parquet of ``key, messages``); ``share`` where workers work side by side. Reports ``CallStats`` as a custom message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.base.owned import work_for
from rlhi_dagster.engines.ask import Finished
from rlhi_dagster.engines.base import RewardRequest
from rlhi_dagster.engines.loading import reward_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.workers import share
from rlhi_dagster.workers.answering import Desk, Stop
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.parent import end_with_parent


def main() -> None:
    """Run the job that Pipes hands over."""
    end_with_parent()
    with open_dagster_pipes(), told():
        pipes = PipesContext.get()
        work_for(pipes.extras)
        share.take(pipes.extras)
        job, desk = pipes.extras, Desk(pipes.extras, pipes.log.info, Stop(pipes.log.warning))
        model = ModelRef(**job["model"])

        def scored(calls: Iterator[tuple[str, RewardRequest]]) -> Iterable[Finished]:
            desk.tell_of_arithmetic()
            return reward_engine(model, desk.settings).score(calls)

        stats = desk.fulfil(
            {row["key"]: RewardRequest(row["messages"]) for row in pl.read_parquet(job["requests"]).to_dicts()},
            ResponseStore(desk.root, "reward", model.identity),
            scored,
            lambda request: request.settings(desk.settings.identity),
            model.name,
        )
        pipes.report_custom_message(asdict(stats))


if __name__ == "__main__":
    main()
