"""A server's limits by the minute: when the next request may be sent, so that it need not be refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_sleep = asyncio.sleep
BURST_SECONDS = 1.0
"""What was not used of a limit is kept for so long. A whole minute's would let twice the limit through in the first minute."""


class TokenBucket:
    """An amount by the minute. May be overdrawn: the next one waits until the debt is paid.

    Args:
        per_minute: The limit.
        clock: Seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self.clock = per_minute / 60, clock
        self.most = self.per_second * BURST_SECONDS
        self.level, self.at = self.most, clock()

    def take(self, amount: float) -> float:
        """Reserve an amount; return the seconds to wait before it is used: until all that was reserved before has been paid."""
        now = self.clock()
        self.level = min(self.most, self.level + (now - self.at) * self.per_second)
        self.at = now
        wait = max(0.0, -self.level / self.per_second)
        self.level -= amount
        return wait

    def correct(self, amount: float) -> None:
        """Give back (or, negative, take) the difference between what was reserved and what was used."""
        self.level = min(self.most, self.level + amount)


class RateLimits:
    """Requests and tokens by the minute; ``None`` for no limit."""

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = TokenBucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute, clock) if tokens_per_minute else None

    async def take(self, tokens: int) -> None:
        """Wait until a request of about so many tokens may be sent."""
        waits = [self._requests.take(1) if self._requests else 0.0, self._tokens.take(tokens) if self._tokens else 0.0]
        if max(waits):
            await _sleep(max(waits))

    def correct(self, guessed: int, used: int) -> None:
        """Note how many tokens a request really used."""
        if self._tokens:
            self._tokens.correct(guessed - used)
