"""Requests that no row says all of: question and reply in rows of their own, and what goes on from an earlier request.

What belongs here: joining the parts of one request (`Record.part`), and finding the requests of a chain (`Record.parent`). What does not:
requests that are there several times (``assembly``, ``traces``), and the order of a chain (``assembly``).
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_dagster.conversations.sources.assembly import PART, Thread, filled
from rlhi_dagster.conversations.sources.records import Place, Record


def joined(records: Sequence[tuple[Place, Record]]) -> list[Thread]:
    """Put together what was asked and what was replied, where a system has them in rows of their own (`Record.part`).

    Of a part that failed and came later, the latter counts. Parts that stand in the same place and say different things are of several
    requests that share a name, as those of two batches can: whose reply is whose is not known, and each part remains by itself.
    """
    places: dict[str, list[tuple[Place, Record]]] = {}
    for each in sorted(records, key=lambda each: each[1].part or ""):
        places.setdefault(each[1].part or "", []).append(each)
    places = {part: [each for each in same if each[1].note is None] or same for part, same in places.items()}
    if any(record.messages != same[0][1].messages for same in places.values() for _, record in same):
        return [Thread(record, place) for place, record in records]
    parts = [same[0] for same in places.values()]
    place, last = parts[-1]
    asked = [message for _, record in parts[:-1] for message in record.messages or ()]
    said = [message[:2] for message in last.messages or ()]
    is_whole = said[: len(asked)] == [message[:2] for message in asked]  # a reply that was logged with its request
    whole = filled(last, [record for _, record in parts])
    whole.messages = [*([] if is_whole else asked), *(last.messages or ())]
    return [Thread(whole, place, [(other, PART) for other, _ in records if other != place])]


class Chains:
    """Requests that name the one that they go on from, by the first of their chain."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._named: set[str] = set()

    def add(self, record: Record) -> None:
        """Remember what a request goes on from, if it names no conversation."""
        if record.request is not None and record.parent is not None and record.group is None:
            self._parents[record.request] = record.parent
            self._named.add(record.parent)

    def of(self, request: str) -> str | None:
        """A name for the chain of a request, if it is in one."""
        if request not in self._parents and request not in self._named:
            return None
        passed = {request}
        while (before := self._parents.get(request)) is not None and before not in passed:
            passed.add(request := before)
        self._parents.update(dict.fromkeys(passed - {request}, request))
        return f"chain of {request}"
