"""Progress of long work: a line with rate and time left, at most every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Paced:
    """Reports how far a piece of work has come.

    Args:
        report: Where lines go.
        what: Name of the work, first word of each line.
        every_seconds: Shortest time between two lines; the last one is always reported.
    """

    def __init__(self, report: Callable[[str], None], what: str, every_seconds: float = 10.0) -> None:
        self.report, self.what, self.every_seconds = report, what, every_seconds
        self.started = self.last = time.monotonic()

    def is_due(self, done: int, total: int) -> bool:
        """Whether it is time for a line; the answer counts as one."""
        now = time.monotonic()
        if done < total and now - self.last < self.every_seconds:
            return False
        self.last = now
        return True


class Silence:
    """Says from time to time that nothing was heard; a context manager around work that may hang.

    Args:
        report: Where lines go.
        what: Name of the work, first word of each line.
        every_seconds: Of silence, between two lines.
    """

    def __init__(self, report: Callable[[str], None], what: str, every_seconds: float = 60.0) -> None:
        self._report, self._what, self._every = report, what, every_seconds
        self._heard_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="silence", daemon=True)

    def heard(self) -> None:
        """Note that something came."""
        self._heard_at = time.monotonic()

    def __enter__(self) -> Silence:
        self.heard()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        said_at = self._heard_at
        while not self._ended.wait(self._every / 20):
            now, said_at = time.monotonic(), max(said_at, self._heard_at)
            if now - said_at >= self._every:
                said_at = now
                self._report(f"{self._what}: waiting, nothing came for {now - self._heard_at:,.0f} s")


class Progress(Paced):
    """Progress of work whose pieces take about the same time."""

    def __call__(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` are done."""
        if self.is_due(done, total):
            elapsed = max(self.last - self.started, 1e-9)
            left = (total - done) * elapsed / max(done, 1)
            self.report(f"{self.what}: {done:,} of {total:,} ({done / max(total, 1):.0%}) in {elapsed:,.0f} s, {left:,.0f} s left")
