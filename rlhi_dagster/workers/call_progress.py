"""Progress of long work: a line with rate and time left, at most every few seconds."""

from __future__ import annotations

from rlhi_dagster.base.progress import Paced
from rlhi_dagster.engines.stats import Standing


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
            f"tokens of {stats.estimated:,} answers are estimates" if stats.estimated else "",
            f"{seconds:,.0f} s",
            f"{left:,.0f} s left",
        ]
        self.report(f"{self.what}: {', '.join(part for part in parts if part)}")
