"""What workers that answer requests share: stopping at a signal, limits, and a record of what the work cost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rlhi_dagster.base.progress import Silence
from rlhi_dagster.engines import forecast
from rlhi_dagster.engines.ask import Finished, Request, fulfil
from rlhi_dagster.engines.settings import EngineSettings, TransformersSettings, engine_settings
from rlhi_dagster.engines.stats import CallStats, Standing
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.workers import emulated
from rlhi_dagster.workers.call_progress import CallProgress

ECHO_SECONDS = 3.0
"""A signal so soon after the first is its echo: Ctrl-C reaches a whole process group, and Dagster passes it on once more."""


class Stop:
    """Whether somebody wants this process to end: true from the first SIGTERM or SIGINT on; a later second one ends it at once."""

    def __init__(self, log: Callable[[str], None], in_hand: str = "the requests in hand") -> None:
        """Take over both signals, which let ``in_hand`` be finished; must be made in the main thread."""
        self._log, self._in_hand = log, in_hand
        self._wanted_at: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._wanted_at is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._wanted_at is None:
            self._wanted_at = now
            self._log(f"{signal.Signals(number).name}: finishing {self._in_hand}; another signal in some seconds ends this at once")
        elif now - self._wanted_at > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class Desk:
    """Answers requests through the store for one job: with its engine settings, its limits, and somebody who may stop it.

    Args:
        job: Pipes extras with ``store``, ``engine`` (``EngineSettings``) and ``limits`` (``forecast.Limits``).
        log: Where progress goes.
        stop: Whether to stop.
    """

    def __init__(self, job: Mapping[str, Any], log: Callable[[str], None], stop: Callable[[], bool]) -> None:
        self.root = Path(job["store"])
        self.settings: EngineSettings = engine_settings(job["engine"])
        self.limits = forecast.Limits(**job["limits"])
        self.log, self.stop = log, stop
        self.spent = CallStats()

    def tell_of_arithmetic(self) -> None:
        """Say so if the engine about to be loaded works in an arithmetic that this machine is slow at."""
        is_bfloat16 = isinstance(self.settings, TransformersSettings) and self.settings.dtype == "bfloat16"
        emulated.tell("the engine's dtype to float32", self.log, is_bfloat16=is_bfloat16)

    def fulfil(
        self,
        requests: Mapping[str, Request],
        store: ResponseStore,
        answers: Callable[[Iterator[tuple[str, Request]]], Iterable[Finished]],
        settings: Callable[[Request], str],
        what: str,
    ) -> CallStats:
        """See ``engines.ask.fulfil``; ``what`` names the work in progress lines.

        Raises:
            OverLimitError: What the job has spent exceeds its limits.
        """
        progress, silence = CallProgress(self.log, what), Silence(self.log, what)

        def note(standing: Standing) -> None:
            silence.heard()
            progress(standing)
            forecast.guard(self.limits, self.spent + standing.stats)

        with silence:
            stats = fulfil(
                requests,
                store,
                answers,
                settings,
                chunk_size=self.settings.chunk_size,
                max_error_fraction=self.settings.max_error_fraction,
                usd_per_hour=self.settings.usd_per_hour,
                on_progress=note,
                is_stopping=self.stop,
            )
        self.spent += stats
        forecast.note(self.root, store.kind, store.model, self.settings.identity, stats)
        return stats
