"""One replica on a Ray cluster: an actor with one engine, fed with calls and emptied of answers while the engine runs.

What belongs here: what runs on the cluster's nodes. What does not: which calls a replica gets and what follows its death (``ray``).
The engine runs in a thread on one long iterator of calls, so that it never drains between shards; the actor's own thread hands calls in
and answers out. Errors are values here, because Ray would wrap an exception into a page of text.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Literal

from rlhi_dagster.engines.loading import chat_engine, reward_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.ray.shards import Call
from rlhi_dagster.engines.settings import EngineSettings

_FATAL = {"AcceleratorError", "EngineDeadError"}
"""Exceptions by which a GPU or vLLM's own process is gone: the replica ends, as if it had crashed, and another one takes its calls."""
_LONGEST_MESSAGE = 400


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception that makes all further work pointless.

    Attributes:
        kind: Its class.
        message: Its text in one line.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Keep what a person needs to know."""
        return cls(type(error).__name__, " ".join(str(error).split())[:_LONGEST_MESSAGE])


@dataclass(frozen=True, slots=True)
class Report:
    """Where a replica stands.

    Attributes:
        finished: Keys and answers since the last report.
        waiting: Calls that the engine has not taken yet.
        is_idle: The engine has ended: it has answered every call it was given, and was told that no more come.
        failure: The engine cannot go on.
    """

    finished: list[tuple[str, Any]]
    waiting: int
    is_idle: bool
    failure: Failure | None


class Replica:
    """The actor. ``exchange`` is called by one caller, one call at a time.

    Args:
        kind: Of the engine.
        model: What it loads.
        settings: Of one engine.
        low: So few calls waiting are reported, so that more can be sent before the engine runs out of them.
    """

    def __init__(self, kind: Literal["chat", "reward"], model: ModelRef, settings: EngineSettings, low: int) -> None:
        self._kind, self._model, self._settings, self._low = kind, model, settings, low
        self._changed = Condition()
        self._waiting: deque[Call] = deque()
        self._finished: list[tuple[str, Any]] = []
        self._is_last, self._is_answering = True, False
        self._arguments: tuple[Any, ...] = ()
        self._failure: Failure | None = None

    def arrive(self) -> str:
        """The name of the machine: answered as soon as the replica has a place."""
        return socket.gethostname()

    def load(self) -> Failure | None:
        """Load the model; an engine that cannot be loaded is told, not raised."""
        try:
            if self._model.path and not Path(self._model.path).is_dir():
                raise FileNotFoundError(f"the node {self.arrive()} has no folder {self._model.path}: share it between the nodes")
            answer = self._loaded()
        except Exception as error:
            return Failure.of(error)
        Thread(target=self._run, args=(answer,), daemon=True).start()
        return None

    def exchange(self, calls: list[Call], is_last: bool, arguments: tuple[Any, ...]) -> Report:
        """Hand in calls; returns when something is finished, more calls are welcome, or all is done.

        Args:
            calls: The engine takes them in this order.
            is_last: No more come before the engine has ended.
            arguments: Of the engine beside the calls.
        """
        with self._changed:
            self._waiting.extend(calls)
            self._is_last, self._arguments = is_last, arguments
            self._is_answering |= bool(calls)
            self._changed.notify_all()
            self._changed.wait_for(self._has_news)
            report = Report(self._finished, len(self._waiting), not self._is_answering, self._failure)
            self._finished = []
            return report

    def _has_news(self) -> bool:
        is_low = len(self._waiting) < self._low and not self._is_last
        return bool(self._finished or self._failure or is_low or not self._is_answering)

    def _loaded(self) -> Callable[..., Iterator[list[tuple[str, Any]]]]:
        if self._kind == "chat":
            return chat_engine(self._model, self._settings).answer
        return reward_engine(self._model, self._settings).score

    def _run(self, answer: Callable[..., Iterator[list[tuple[str, Any]]]]) -> None:
        """The engine's thread: one iterator of calls after another."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_answering)
                for finished in answer(self._calls(), *self._arguments):
                    with self._changed:
                        self._finished.extend(finished)
                        self._changed.notify_all()
                with self._changed:
                    self._is_answering = False
                    self._changed.notify_all()
        except Exception as error:
            if type(error).__name__ in _FATAL:
                os._exit(1)
            with self._changed:
                self._failure = Failure.of(error)
                self._changed.notify_all()

    def _calls(self) -> Iterator[Call]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_last)
                if not self._waiting:
                    return
                call = self._waiting.popleft()
                self._changed.notify_all()
            yield call
