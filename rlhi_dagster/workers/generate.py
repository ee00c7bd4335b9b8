"""Worker: answer chat requests, or replay whole dialogues turn by turn, through the response store.

Job (Pipes extras): ``store``, ``engine`` (``EngineSettings``), ``sampling`` (``Sampling``) and ``batches``, a list of ``model``
(``ModelRef``) with either ``requests`` (Parquet of ``key, messages, sample_index, choices``) or ``dialogues`` (Parquet of
``dialogue_id, user_messages``). Several batches share one process. Reports ``CallStats`` as a custom message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.engines.base import ChatAnswer, ChatEngine, ChatRequest, Sampling
from rlhi_dagster.engines.calls import CallStats, fulfil_chat, read_chat, replay
from rlhi_dagster.engines.loading import EngineSettings, chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.store import ResponseStore
from rlhi_dagster.workers.progress import Progress


class _Lazy:
    """An engine that is loaded at first use and kept."""

    def __init__(self, model: ModelRef, settings: EngineSettings) -> None:
        self.load = partial(chat_engine, model, settings)
        self.engine: ChatEngine | None = None

    def __call__(self) -> ChatEngine:
        self.engine = self.engine or self.load()
        return self.engine


def run_batch(batch: dict[str, Any], sampling: Sampling, settings: EngineSettings, root: Path, log: Callable[[str], None]) -> CallStats:
    """Answer one batch and return what it cost."""
    model = ModelRef(**batch["model"])
    store = ResponseStore(root, "chat", model.identity)
    engine = _Lazy(model, settings)
    if "requests" in batch:
        rows = pl.read_parquet(batch["requests"]).to_dicts()
        requests = {row["key"]: ChatRequest(row["messages"], row["sample_index"], tuple(row["choices"])) for row in rows}
        return fulfil_chat(requests, sampling, store, engine, settings.chunk_size, Progress(log, model.name))
    total, turn = CallStats(0, 0, 0, 0, 0, 0), 0

    def complete(requests: list[ChatRequest]) -> list[ChatAnswer]:
        nonlocal total, turn
        turn += 1
        report = Progress(log, f"{model.name}, turn {turn}")
        keys = [request.key(model, sampling) for request in requests]
        total += fulfil_chat(dict(zip(keys, requests, strict=True)), sampling, store, engine, settings.chunk_size, report)
        return read_chat(keys, store)

    frame = pl.read_parquet(batch["dialogues"])
    replay(dict(zip(frame["dialogue_id"].to_list(), frame["user_messages"].to_list(), strict=True)), complete)
    return total


def main() -> None:
    """Run the job that Pipes hands over."""
    with open_dagster_pipes():
        pipes = PipesContext.get()
        job = pipes.extras
        settings = EngineSettings(**job["engine"])
        for batch in job["batches"]:
            stats = run_batch(batch, Sampling(**job["sampling"]), settings, Path(job["store"]), pipes.log.info)
            pipes.report_custom_message(asdict(stats))


if __name__ == "__main__":
    main()
