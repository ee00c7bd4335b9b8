"""What runs on a node of a Ray cluster: an actor with one engine, and the shards of calls it has in hand.

Where it runs and who restarts it is Ray's concern, which shard it gets that of ``ray.engines``. Several shards are in hand at once and go
through the engine as one iterator of calls, so that an engine with continuous batching does not run empty at the end of each.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from rlhi_dagster.engines.models import ModelRef

Call = tuple[str, Any]
"""Key and request, of either kind."""
Answers = list[tuple[str, Any]]
Load = Callable[[ModelRef, Any], Any]
"""Makes an engine of a model and settings. Handed in, so that no engine is imported here."""
Ask = Callable[[Any, Iterator[Call]], Iterator[Answers]]
"""Asks an engine: calls its method for chat or for rewards."""
_FATAL = {"AcceleratorError", "EngineDeadError"}
"""Exceptions by which a GPU or vLLM's own process is gone: the actor's process ends, and Ray starts it again."""
_LINGER_SECONDS = 0.1
"""So long the engine waits for a further shard, before it is told that none comes and finishes what it has."""


class Replica:
    """The actor; ``answer`` runs once for each shard in hand."""

    def __init__(self, load: Load, model: ModelRef, settings: Any) -> None:
        self._load, self._model, self._settings = load, model, settings
        self._engine: Any = None
        self._waiting: SimpleQueue[tuple[list[Call], Ask, dict[str, Future[Any]]]] = SimpleQueue()

    def arrive(self) -> None:
        """Answered as soon as the actor has a place."""

    def load(self) -> None:
        """Load the model, unless that was done."""
        if self._engine:
            return
        if self._model.path and not Path(self._model.path).is_dir():
            raise FileNotFoundError(f"the node {socket.gethostname()} has no folder {self._model.path}: share it between the nodes")
        self._engine = self._load(self._model, self._settings)
        Thread(target=self._run, daemon=True).start()

    def answer(self, calls: list[Call], ask: Ask) -> Answers:
        """Answer a shard; ``ask`` is the same for all shards in hand."""
        futures: list[tuple[str, Future[Any]]] = [(key, Future()) for key, _ in calls]
        self._waiting.put((calls, ask, dict(futures)))
        return [(key, future.result()) for key, future in futures]

    def _run(self) -> None:
        """The engine's thread: one iterator of calls after another."""
        while True:
            calls, ask, in_hand = self._waiting.get()
            try:
                for finished in ask(self._engine, self._following(calls, in_hand)):
                    for key, answer in finished:
                        in_hand.pop(key).set_result(answer)
                if in_hand:
                    raise RuntimeError(f"the engine ended with {len(in_hand):,} requests unanswered")
            except Exception as error:
                if type(error).__name__ in _FATAL:
                    os._exit(1)
                for future in in_hand.values():
                    future.set_exception(error)

    def _following(self, calls: list[Call], in_hand: dict[str, Future[Any]]) -> Iterator[Call]:
        """Calls of one shard after the other, as long as there are any."""
        while True:
            yield from calls
            try:
                calls, _, futures = self._waiting.get(timeout=_LINGER_SECONDS)
            except Empty:
                return
            in_hand |= futures
