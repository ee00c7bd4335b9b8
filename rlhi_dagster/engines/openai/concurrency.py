"""How many requests are under way at a server: fewer as it becomes too busy, more again as it recovers.

What belongs here: the limit (additive increase, multiplicative decrease) and the places under it. What does not: what counts as too
busy (``client.py``) and limits by the minute (``rate_limits.py``).
"""

from __future__ import annotations

import asyncio
from collections import deque

STEPS = 16
"""About so many round trips without a failure lead from one request under way to the most that are allowed."""
TOLERATED, OUTCOMES = 0.2, 32
"""A share of failures among about so many last outcomes that does not yet mean that a server has too much to do."""
_TRACED = 4096


class AdaptiveLimit:
    """A number of requests between 1 and ``most``.

    It is halved when a server says that it is busy, and when more than ``TOLERATED`` of the last requests failed: some servers always
    fail now and then. At most once per round trip: requests sent before the last cut say nothing about the limit after it.

    Attributes:
        most: Highest limit; also the first one.
        cuts: How often it was lowered. Whoever sends a request notes the number, and hands it in if that request fails.
        lowest: Lowest limit so far.
        trace: The limits so far, the latest 4,096 of them.
    """

    def __init__(self, most: int) -> None:
        self.most, self.cuts, self.lowest = most, 0, most
        self._exact, self._failing = float(most), 0.0
        self.trace: deque[int] = deque([most], maxlen=_TRACED)

    @property
    def allowed(self) -> int:
        """Requests that may be under way."""
        return int(self._exact)

    def succeeded(self) -> None:
        """Grow; by ``most / STEPS``, but at least 1, when all requests of a round trip succeed."""
        self._failing -= self._failing / OUTCOMES
        self._set(min(float(self.most), self._exact + max(1.0, self.most / STEPS) / self._exact))

    def failed(self, cuts: int, *, is_busy: bool) -> None:
        """Shrink, if the server says that it is busy or fails too often, and the limit was not lowered since the request was sent."""
        self._failing += (1 - self._failing) / OUTCOMES
        if cuts == self.cuts and (is_busy or self._failing > TOLERATED):
            self.cuts += 1
            self._set(max(1.0, self._exact / 2))

    def _set(self, limit: float) -> None:
        self._exact = limit
        self.lowest = min(self.lowest, self.allowed)
        if self.trace[-1] != self.allowed:
            self.trace.append(self.allowed)


class Slots:
    """Places of requests under way, as many as the limit allows; whoever waits is served in turn. For one event loop."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit, self.used = limit, 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a place."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self.serve()
        await place

    def give_back(self) -> None:
        """Leave a place."""
        self.used -= 1
        self.serve()

    async def keep(self) -> None:
        """Keep a place if the limit still allows so many, else wait for another one."""
        if self.used > self.limit.allowed:
            self.give_back()
            await self.take()

    def serve(self) -> None:
        """Give free places to those who wait; to be called when the limit has grown."""
        while self._waiting and self.used < self.limit.allowed:
            place = self._waiting.popleft()
            if not place.done():
                self.used += 1
                place.set_result(None)
