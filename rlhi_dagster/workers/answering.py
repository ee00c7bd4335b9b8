"""What workers that answer requests share: stopping at a signal, progress, limits, and a record of what the work cost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rlhi_dagster.engines import forecast
from rlhi_dagster.engines.calls import CallStats, Finished, Request, Standing, fulfil
from rlhi_dagster.engines.loading import EngineSettings, engine_settings
from rlhi_dagster.engines.store import ResponseStore


class Stop:
    """Whether somebody wants this process to end: true from the first SIGTERM or SIGINT on; a second one ends it at once."""

    def __init__(self, log: Callable[[str], None]) -> None:
        """Take over both signals; must be made in the main thread."""
        self._log = log
        self.is_wanted = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.is_wanted

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_wanted = True
        signal.signal(number, signal.SIG_DFL)
        self._log(f"{signal.Signals(number).name}: finishing the requests in hand; a second signal ends this at once")


class CallProgress:
    """Reports how far answering has come: counts, tokens, rate, cost, time left.

    Args:
        report: Where lines go.
        what: Name of the work, first word of each line.
        every_seconds: Shortest time between two lines; the last one is always reported.
    """

    def __init__(self, report: Callable[[str], None], what: str, every_seconds: float = 10.0) -> None:
        self.report, self.what, self.every_seconds = report, what, every_seconds
        self.last = time.monotonic()

    def __call__(self, standing: Standing) -> None:
        """Note where the work stands."""
        now = time.monotonic()
        stats = standing.stats
        if stats.answered < standing.missing and now - self.last < self.every_seconds:
            return
        self.last = now
        seconds = max(stats.seconds, 1e-9)
        left = seconds * (1 - standing.fraction) / max(standing.fraction, 1e-9)
        parts = [
            f"{stats.answered:,} of {standing.missing:,} ({stats.answered / standing.missing:.0%})",
            *([f"{stats.cached:,} cached"] if stats.cached else []),
            *([f"{stats.errors:,} errors"] if stats.errors else []),
            f"{stats.prompt_tokens:,} tokens in",
            *(
                [f"{stats.completion_tokens:,} out", f"{stats.completion_tokens / seconds:,.0f} tokens/s"]
                if stats.completion_tokens
                else []
            ),
            *([f"${stats.cost_usd:,.2f}"] if stats.cost_usd else []),
            f"{seconds:,.0f} s",
            f"{left:,.0f} s left",
        ]
        self.report(f"{self.what}: {', '.join(parts)}")


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

    def fulfil(
        self,
        requests: Mapping[str, Request],
        store: ResponseStore,
        answers: Callable[[Iterator[tuple[str, Request]]], Iterable[Finished]],
        settings: Callable[[Request], str],
        what: str,
    ) -> CallStats:
        """See ``engines.calls.fulfil``; ``what`` names the work in progress lines.

        Raises:
            OverLimitError: What the job has spent exceeds its limits.
        """
        progress = CallProgress(self.log, what)

        def note(standing: Standing) -> None:
            progress(standing)
            forecast.guard(self.limits, self.spent + standing.stats)

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
