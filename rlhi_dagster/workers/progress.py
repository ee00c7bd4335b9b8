"""Progress of long work: a line with rate and time left, at most every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from rlhi_dagster.engines.calls import Standing


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


class Progress(Paced):
    """Progress of work whose pieces take about the same time."""

    def __call__(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` are done."""
        if self.is_due(done, total):
            elapsed = max(self.last - self.started, 1e-9)
            left = (total - done) * elapsed / max(done, 1)
            self.report(f"{self.what}: {done:,} of {total:,} ({done / max(total, 1):.0%}) in {elapsed:,.0f} s, {left:,.0f} s left")


class CallProgress(Paced):
    """Progress of model calls: counts, tokens, rate, cost; the time left goes by what is left to read."""

    def __call__(self, standing: Standing) -> None:
        """Note where the work stands."""
        stats = standing.stats
        if not self.is_due(stats.answered, standing.missing):
            return
        seconds = max(stats.seconds, 1e-9)
        left = seconds * (1 - standing.fraction) / max(standing.fraction, 1e-9)
        parts = [
            f"{stats.answered:,} of {standing.missing:,} ({stats.answered / standing.missing:.0%})",
            f"{stats.cached:,} cached" if stats.cached else "",
            f"{stats.errors:,} errors" if stats.errors else "",
            f"{stats.prompt_tokens:,} tokens in",
            f"{stats.completion_tokens:,} out" if stats.completion_tokens else "",
            f"{(stats.completion_tokens or stats.prompt_tokens) / seconds:,.0f} tokens/s",
            f"${stats.cost_usd:,.2f}" if stats.cost_usd else "",
            f"{seconds:,.0f} s",
            f"{left:,.0f} s left",
        ]
        self.report(f"{self.what}: {', '.join(part for part in parts if part)}")
