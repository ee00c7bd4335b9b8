"""Worker: answer chat requests, or replay whole dialogues turn by turn, through the response store.

Job (Pipes extras): ``store``, ``engine`` (``EngineSettings``), ``limits`` (``forecast.Limits``), ``sampling`` (``Sampling``) and
``batches``, a list of ``model`` (``ModelRef``) with either ``requests`` (Parquet of ``engines.requests``) or ``dialogues`` (Parquet of
``dialogue_id, user_messages``); ``share`` where workers work side by side. Batches share the process. Reports ``CallStats`` of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.base.owned import work_for
from rlhi_dagster.engines.base import ChatAnswer, ChatEngine, ChatRequest, Sampling
from rlhi_dagster.engines.loading import chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.engines.repeats import Repeats
from rlhi_dagster.engines.replay import replay
from rlhi_dagster.engines.requests import chat_requests
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.workers import share
from rlhi_dagster.workers.answering import Desk, Stop
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.parent import end_with_parent


class Generation:
    """One model, loaded at first use and kept, behind its part of the store."""

    def __init__(self, desk: Desk, model: ModelRef, sampling: Sampling) -> None:
        """Nothing is loaded yet."""
        self.desk, self.model, self.sampling = desk, model, sampling
        self.store = ResponseStore(desk.root, "chat", model.identity)

    @cached_property
    def engine(self) -> ChatEngine:
        """The loaded model."""
        self.desk.tell_of_arithmetic()
        return chat_engine(self.model, self.desk.settings, self.desk.root / "batches")

    def answer(self, requests: Mapping[str, ChatRequest], what: str) -> CallStats:
        """Answer what of ``requests`` (by key) is missing."""
        repeats = Repeats(requests, self.sampling, lambda told: self.desk.log(f"{what}: {told}"))
        stats = self.desk.fulfil(
            requests,
            self.store,
            lambda calls: repeats.watched(self.engine.answer(calls, self.sampling)),
            lambda request: request.settings(self.sampling, self.desk.settings.identity),
            what,
        )
        return replace(stats, repeated=repeats.repeated)

    def replay(self, dialogues: Mapping[str, list[str]]) -> CallStats:
        """Answer whole dialogues turn by turn, a wave of requests a turn."""
        total, turn = CallStats(), 0

        def complete(requests: list[ChatRequest]) -> list[ChatAnswer]:
            nonlocal total, turn
            turn += 1
            keys = [request.key(self.model, self.sampling, self.desk.settings.identity) for request in requests]
            total += self.answer(dict(zip(keys, requests, strict=True)), f"{self.model.name}, turn {turn}")
            return read_chat(keys, self.store)

        replay(dialogues, complete)
        return total


def run_batch(batch: Mapping[str, Any], sampling: Sampling, desk: Desk) -> CallStats:
    """Answer one batch and return what it cost."""
    generation = Generation(desk, ModelRef(**batch["model"]), sampling)
    if "requests" in batch:
        return generation.answer(chat_requests(pl.read_parquet(batch["requests"])), generation.model.name)
    frame = pl.read_parquet(batch["dialogues"])
    return generation.replay(dict(zip(frame["dialogue_id"].to_list(), frame["user_messages"].to_list(), strict=True)))


def main() -> None:
    """Run the job that Pipes hands over."""
    end_with_parent()
    with open_dagster_pipes(), told():
        pipes = PipesContext.get()
        work_for(pipes.extras)
        share.take(pipes.extras)
        desk = Desk(pipes.extras, pipes.log.info, Stop(pipes.log.warning))
        for batch in pipes.extras["batches"]:
            pipes.report_custom_message(asdict(run_batch(batch, Sampling(**pipes.extras["sampling"]), desk)))


if __name__ == "__main__":
    main()
