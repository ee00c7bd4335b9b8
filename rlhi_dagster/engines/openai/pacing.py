"""What may go to a server, and when: which calls make the next request, how many are under way, and what a minute allows.

What belongs here: the line of calls, the limit that follows what the server can take (additive increase, multiplicative decrease) with
the places under it, and limits by the minute. What does not: what counts as too busy, and what becomes of a request (``server.py``).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from rlhi_dagster.engines.base import ChatCall
from rlhi_dagster.engines.openai.wording import Dialect, run_length

STEPS = 16
"""About so many round trips without a failure lead from one request under way to the most that are allowed."""
TOLERATED, OUTCOMES = 0.2, 32
"""A share of failures among about so many last outcomes that does not yet mean that a server has too much to do."""
BURST_SECONDS = 1.0
"""What was not used of a limit is kept for so long. A whole minute's would let twice the limit through in the first minute."""
_TRACED = 4096
_sleep = asyncio.sleep


class Line:
    """Calls that wait for their request; within the event loop.

    The last group in line may still grow as further samples come in, so it waits for them while others are at the server: torn apart, its
    prompt would be paid twice.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect, self._waiting = dialect, deque[ChatCall]()
        self._at_server = 0
        self._is_closed = self._is_filled = False
        self._changed = asyncio.Event()

    def add(self, calls: list[ChatCall], is_last: bool) -> None:
        """Let calls line up, perhaps the last ones."""
        self._waiting.extend(calls)
        self._is_closed, self._is_filled = is_last, True
        self._changed.set()

    def settled(self, count: int) -> None:
        """So many calls have come back from the server."""
        self._at_server -= count
        self._is_filled = False
        self._changed.set()

    async def has_group(self) -> bool:
        """Wait until a group can go; false once all have gone."""
        while not self._is_ready():
            if self._is_closed and not self._waiting:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    def _is_ready(self) -> bool:
        if not self._waiting:
            return False
        is_whole = len(self._waiting) >= self._dialect.most_samples or self._first() < len(self._waiting)
        return is_whole or self._is_closed or (self._is_filled and self._at_server == 0)

    def _first(self) -> int:
        most = self._dialect.most_samples
        return run_length(list(islice(self._waiting, most)), most)

    def group(self) -> list[ChatCall]:
        """The next group, as large as it has become."""
        taken = [self._waiting.popleft() for _ in range(self._first())]
        self._at_server += len(taken)
        return taken


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


class TokenBucket:
    """An amount by the minute. May be overdrawn: the next one waits until the debt is paid.

    Args:
        per_minute: The limit; ``None`` for none.
        clock: Seconds.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self.clock = (per_minute or 0.0) / 60, clock
        self.most = self.per_second * BURST_SECONDS
        self.level, self.at = self.most, clock()

    def take(self, amount: float) -> float:
        """Reserve an amount; return the seconds to wait before it is used: until all that was reserved before has been paid."""
        if not self.per_second:
            return 0.0
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
    """A server's limits by the minute, so that the next request need not be refused; ``None`` for no limit."""

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests, self._tokens = TokenBucket(requests_per_minute, clock), TokenBucket(tokens_per_minute, clock)

    async def take(self, tokens: int) -> None:
        """Wait until a request of about so many tokens may be sent."""
        wait = max(self._requests.take(1), self._tokens.take(tokens))
        if wait:
            await _sleep(wait)

    def correct(self, guessed: int, used: int) -> None:
        """Note how many tokens a request really used."""
        self._tokens.correct(guessed - used)
