"""Which calls go to a replica next: shards in the order given, and again those whose replica died.

Knows neither Ray nor processes. A replica dies with all it had in hand, and one of these calls may be why. So they are asked again in
pieces, each alone in a replica: a call that kills replicas is told from its neighbours after few deaths, and ends as an error row.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Call = tuple[str, Any]
"""Key and request, of either kind."""
DEATHS = 3
"""A call that was in hand when so many replicas died is given up."""
PIECES = 8
"""Parts that the calls of a dead replica are asked again in: of 512 in hand at the first death, 8 at the third."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Calls for one replica.

    Attributes:
        calls: In the order given, so that those with a common prefix stay together.
        is_alone: The replica may have nothing else in hand.
    """

    calls: list[Call]
    is_alone: bool


class Shards:
    """What is left to ask.

    Args:
        calls: Read only as far as shards are handed out, and one call further.
        size: Calls of a shard at most; it ends earlier, but not before half, where the opening message changes.
    """

    def __init__(self, calls: Iterator[Call], size: int) -> None:
        self._calls, self._size = calls, size
        self._ahead: Call | None = None
        self._again: deque[list[Call]] = deque()
        self._deaths: Counter[str] = Counter()

    def next(self, is_idle: bool) -> Shard | None:
        """The next shard of a replica; ``None`` if there is none for it now. One with nothing in hand takes what has to be alone first."""
        if is_idle and self._again:
            return Shard(self._again.popleft(), is_alone=True)
        calls: list[Call] = []
        while len(calls) < self._size and (call := self._peek()):
            if 2 * len(calls) >= self._size and _opening(call) != _opening(calls[-1]):
                break
            calls.append(call)
            self._ahead = None
        return Shard(calls, is_alone=False) if calls else None

    @property
    def is_empty(self) -> bool:
        """Whether everything has been handed out."""
        return not self._again and self._peek() is None

    def give_back(self, calls: list[Call]) -> list[str]:
        """Take back what a replica had in hand when it died; returns the keys that are given up."""
        self._deaths.update(key for key, _ in calls)
        again = [call for call in calls if self._deaths[call[0]] < DEATHS]
        size = max(1, -(-len(again) // PIECES))
        self._again.extend(again[start : start + size] for start in range(0, len(again), size))
        return [key for key, _ in calls if self._deaths[key] >= DEATHS]

    def _peek(self) -> Call | None:
        self._ahead = self._ahead or next(self._calls, None)
        return self._ahead


def _opening(call: Call) -> Any:
    return call[1].messages[:1]
