"""Records on disk, sorted by what they are put together by.

What belongs here: records that share a name, brought together in bounded memory. What does not: what they are put together for
(``decoded``), and how (``assembly``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from pydantic_core import from_json, to_json

from rlhi_dagster.conversations.sources.records import Feedback, Message, Place, Record

_BUCKETS = 64
_BYTES_AT_ONCE = 16 << 20
"""Of a file of records that is held in memory; a larger one is first sorted into several, unless it is all one group."""
_DEEPEST = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Groups:
    """Records, sorted into files by what they are put together by."""

    def __init__(self, folder: Path, depth: int = 0) -> None:
        self._folder = folder
        self._depth = depth
        self._open: dict[int, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, group: str, place: Place, record: Record) -> None:
        """Put a record to those of its group."""
        self._add(group, to_json([group, *place, _packed(record)]) + b"\n")

    def _add(self, group: str, line: bytes) -> None:
        digest = hashlib.blake2b(group.encode(errors="replace"), digest_size=8).digest()
        bucket = digest[self._depth] % _BUCKETS
        if bucket not in self._open:
            self._open[bucket] = self._stack.enter_context(TemporaryFile(dir=self._folder))  # noqa: SIM115 - it is of the stack
        self._open[bucket].write(line)

    def by_name(self) -> Iterator[tuple[str, list[tuple[Place, Record]]]]:
        """The records of each group, in the order of the source. They can be had once."""
        for _, file in sorted(self._open.items()):
            size = file.tell()
            file.seek(0)
            if size > _BYTES_AT_ONCE and self._depth < _DEEPEST:
                with Groups(self._folder, self._depth + 1) as smaller:
                    for line in file:
                        smaller._add(from_json(line)[0], line)
                    file.close()
                    yield from smaller.by_name()
            else:
                read = sorted((from_json(line) for line in file), key=lambda each: each[:3])
                file.close()
                for name, group in groupby(read, key=lambda each: each[0]):
                    yield name, [(Place(file_name, number), _unpacked(packed)) for _, file_name, number, packed in group]


def group_of(place: Place, record: Record) -> str:
    """What records of one conversation share: a name, or else the user and the first exchange."""
    if record.group is not None:
        return record.group
    said = [message for message in record.messages or () if message.role != "system" and message.text.strip()]
    if not said:
        return f"{place.file}#{place.number}"
    replied = next((number for number, message in enumerate(said) if message.role == "assistant"), len(said))
    opening = "\x00".join([record.user_key or "", *(message.text for message in said[: replied + 1])])
    return hashlib.blake2b(opening.encode(errors="replace"), digest_size=16).hexdigest()


def _packed(record: Record) -> list[Any]:
    def at(moment: datetime | None) -> int | None:
        return None if moment is None else (moment - _EPOCH) // _MICROSECOND

    return [
        [record.conversation_id, record.group, record.user_key, record.address, at(record.started_at), record.is_start_assumed],
        [record.model, record.language, record.is_toxic, record.current],
        [record.note, record.request, record.depth, at(record.written_at)],
        [record.step, record.above, record.names, record.part, record.parent],
        None if record.messages is None else [[m.role, m.text, at(m.sent_at), *m[3:]] for m in record.messages],
        [[f.target, f.kind, f.value, f.text, at(f.given_at), *f[5:]] for f in record.feedback],
    ]


def _unpacked(packed: list[Any]) -> Record:
    def at(microseconds: int | None) -> datetime | None:
        return None if microseconds is None else _EPOCH + microseconds * _MICROSECOND

    (conversation_id, group, user_key, address, started_at, is_start_assumed), of_model, of_request, of_parts, messages, feedback = packed
    model, language, is_toxic, current = of_model
    note, request, depth, written_at = of_request
    return Record(
        conversation_id,
        group,
        user_key,
        address,
        at(started_at),
        is_start_assumed,
        model,
        language,
        is_toxic,
        None if messages is None else [Message(role, text, at(sent), *rest) for role, text, sent, *rest in messages],
        current,
        [Feedback(target, kind, value, text, at(given), *last) for target, kind, value, text, given, *last in feedback],
        note,
        request,
        depth,
        at(written_at),
        *of_parts,
    )
