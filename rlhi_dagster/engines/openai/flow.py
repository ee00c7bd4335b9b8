"""Calls in, answers out, and between them an event loop in a thread of its own, so that the server is busy while answers are kept.

What belongs here: which calls make the next request, and when it may go. What does not: what becomes of it (``tries.py``).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.engines.openai.concurrency import AdaptiveLimit, Slots
from rlhi_dagster.engines.openai.requests import Call, Dialect, run_length
from rlhi_dagster.engines.openai.tries import Emit

Finished = list[tuple[str, ChatAnswer]]
Settle = Callable[[list[Call], Emit], Awaitable[None]]
Opened = Callable[[Slots], AbstractAsyncContextManager[Settle]]


@dataclass(frozen=True, slots=True)
class _End:
    """The loop has ended, and why."""

    error: BaseException


class Line:
    """Calls that wait for their request; within the event loop.

    The last group in line may still grow as further samples come in, so it waits for them while others are at the server: torn apart, its
    prompt would be paid twice.
    """

    def __init__(self, most_samples: Callable[[], int]) -> None:
        self.most_samples = most_samples
        self.waiting: deque[Call] = deque()
        self.at_server = 0
        self.is_closed = self.is_filled = False
        self._changed = asyncio.Event()

    def add(self, calls: list[Call], is_last: bool) -> None:
        """Let calls line up, perhaps the last ones."""
        self.waiting.extend(calls)
        self.is_closed, self.is_filled = is_last, True
        self._changed.set()

    def settled(self, count: int) -> None:
        """So many calls have come back from the server."""
        self.at_server -= count
        self.is_filled = False
        self._changed.set()

    async def has_group(self) -> bool:
        """Wait until a group can go; false once all have gone."""
        while not self._is_ready():
            if self.is_closed and not self.waiting:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    def _is_ready(self) -> bool:
        if not self.waiting:
            return False
        is_whole = self._first() < len(self.waiting) or self._first() == self.most_samples()
        return is_whole or self.is_closed or (self.is_filled and self.at_server == 0)

    def _first(self) -> int:
        return run_length(list(islice(self.waiting, self.most_samples())), self.most_samples())

    def group(self) -> list[Call]:
        """The next group, as large as it has become."""
        taken = [self.waiting.popleft() for _ in range(self._first())]
        self.at_server += len(taken)
        return taken


class Flow:
    """An event loop in a thread, from entering the context to leaving it; leaving it ends whatever is under way.

    Args:
        dialect: Says how many samples fit into one request.
        limit: How many requests may be under way.
        opened: Makes, within the loop, what settles the calls of a request in its place.
    """

    def __init__(self, dialect: Dialect, limit: AdaptiveLimit, opened: Opened) -> None:
        self._make_line = lambda: Line(lambda: dialect.most_samples)
        self._limit, self._opened = limit, opened
        self._results: queue.SimpleQueue[Finished | _End] = queue.SimpleQueue()
        self._end: _End | None = None
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="openai-flow", daemon=True)

    def __enter__(self) -> Flow:
        self._thread.start()
        self._is_running.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._main_task:
            self._call(self._main_task.cancel)
        self._thread.join()

    def put(self, calls: list[Call], *, is_last: bool) -> None:
        """Hand calls in, and say whether further ones may come."""
        self._call(self._line.add, calls, is_last)

    def get(self) -> Finished:
        """Wait for answers, and take all that are there.

        Raises:
            Exception: What ended the loop, once all answers before it have been taken.
        """
        finished: Finished = []
        while self._end is None and not (finished and self._results.empty()):
            result = self._results.get()
            if isinstance(result, _End):
                self._end = result
            else:
                finished += result
        if self._end and not finished:
            raise self._end.error
        return finished

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended; `get` says why
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        error: BaseException = RuntimeError("the event loop ended before all calls were answered")
        try:
            asyncio.run(self._main())
        except BaseException as caught:  # whatever it is, whoever waits for answers has to get it
            error = caught
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
        self._results.put(_End(error))

    async def _main(self) -> None:
        self._loop, self._line = asyncio.get_running_loop(), self._make_line()
        self._main_task = asyncio.current_task()
        self._is_running.set()
        slots = Slots(self._limit)
        async with self._opened(slots) as settle, asyncio.TaskGroup() as tasks:
            while await self._line.has_group():
                await slots.take()
                tasks.create_task(self._settle(settle, self._line.group(), slots))

    async def _settle(self, settle: Settle, calls: list[Call], slots: Slots) -> None:
        try:
            await settle(calls, self._emit)
        finally:
            slots.give_back()

    def _emit(self, answers: Finished) -> None:
        self._line.settled(len(answers))
        self._results.put(answers)
