"""Rows of a source that are read value by value, as a Parquet file in the one normalised form.

What belongs here: files in, records through a layout, conversations put together, rows out. What does not: what a layout says
(``layouts``), how records are put together (``assembly``), and files whose rows need none of this (``rows``).

Memory is bounded: records that must be put together are first sorted into files by their group (``groups``), and one file at a time
is assembled.
Every row of the source is a row here: a conversation, what cannot be read, or what another row supersedes (column ``superseded``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import feedback_file, files, parquet, partial_requests, scores, spans, traces, values
from rlhi_dagster.conversations.sources.assembly import Thread, assemble, one_request
from rlhi_dagster.conversations.sources.cells import MistypedError
from rlhi_dagster.conversations.sources.groups import Groups, group_of
from rlhi_dagster.conversations.sources.layouts import layout_in
from rlhi_dagster.conversations.sources.records import SCHEMA, Assembly, Broken, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import PLAUSIBLE_FROM, SourceSettings

ROWS, FEEDBACK_FILE = "rows.parquet", "feedback.parquet"
_GIVEN, _NAMES = "given.parquet", "names.parquet"

_ROWS_AT_ONCE = 1_000

Row = dict[str, Any]


def decode(paths: Mapping[str, str], layout: Layout, settings: SourceSettings, folder: Path, at_most: int | None = None) -> None:
    """Write the rows of files, and the feedback in them, into a folder.

    Args:
        paths: Files, with their names relative to the fixed part of the location.
        layout: Of all of them.
        settings: The source.
        folder: Where `ROWS` (`SCHEMA`) and `FEEDBACK_FILE` (`FEEDBACK`) are written.
        at_most: Rows of a file that are read; all by default.
    """
    with (
        _Sink(folder / ROWS, SCHEMA) as rows,
        _Sink(folder / _GIVEN, scores.GIVEN) as feedback,
        _Sink(folder / _NAMES, scores.NAMES) as names,
        Groups(folder) as requests,
        Groups(folder) as groups,
        Groups(folder) as single,
    ):
        chains = partial_requests.Chains()
        # Rows that may continue each other can lie beside a data set of whole conversations.
        grouped = Assembly.GROWN if layout.assembly is Assembly.WHOLE else layout.assembly
        for place, record, assembly in _records(paths, layout, settings, at_most):
            if isinstance(record, dict):
                rows.add(record)
                continue
            for given in record.feedback:
                feedback.add(given._asdict())
            if record.note is not None and record.step is None and record.part is None:
                rows.add(_row(place, record, superseded=record.note))
                if record.group is not None and layout.assembly is Assembly.TREE:
                    groups.add(record.group, place, record)
            elif assembly is Assembly.WHOLE:
                rows.add(_row(place, record))
            elif record.request is not None:
                requests.add(record.request, place, record)
                chains.add(record)
            else:
                groups.add(group_of(place, record), place, record)
        for request, same in requests.by_name():
            found = _of_request(request, same)
            for place, record in found.rows:
                if record.note is not None:
                    rows.add(_row(place, record, superseded=record.note))
                else:
                    record.group = record.group or chains.of(request)
                    groups.add(group_of(place, record), place, record)
            for name, reply in found.names.items():
                names.add({"name": name, "reply": reply})
        for _, together in groups.by_name():
            place, record = together[0]
            if len(together) == 1 and layout.assembly is Assembly.PREFIX and _is_known_by_its_history(record):
                record.group = None  # a session of one request: some systems make up a name for each
                single.add(group_of(place, record), place, record)
            else:
                _put_together(together, grouped, rows, feedback)
        for _, together in single.by_name():
            _put_together(together, grouped, rows, feedback)
    scores.settle(folder / _GIVEN, folder / _NAMES, folder / ROWS, folder / FEEDBACK_FILE)


def read(row: Mapping[str, Any], layout: Layout, settings: SourceSettings, place: Place) -> Record:
    """What a row says: of its layout, or feedback that lies beside logs of any.

    Raises:
        MistypedError: It cannot be read; the message says what is wrong.
    """
    return feedback_file.read(row) if feedback_file.fits(row) else layout.read(row, settings, place)


def _is_known_by_its_history(record: Record) -> bool:
    return record.group is not None and record.parent is None and not any(message.parent for message in record.messages or ())


def _put_together(together: list[tuple[Place, Record]], assembly: Assembly, rows: _Sink, feedback: _Sink) -> None:
    known = {each for _, record in together for each in record.feedback}
    for thread in assemble(together, assembly):
        rows.add(_row(thread.place, thread.record))
        for row in _superseded(thread):
            rows.add(row)
        for given in thread.record.feedback:
            if given not in known:
                feedback.add(given._asdict())


def source_values(file: str) -> Iterator[Any]:
    """Values of a file of any format: objects of JSON or rows of Parquet and Arrow; `Broken` where there is none."""
    for value in parquet.values(file) if files.suffix(file) in (files.PARQUET, files.ARROW) else values.read(file):
        yield from unwrapped(value)


def unwrapped(value: Any) -> Iterator[Any]:
    """The rows in a value: itself, those of a page, or those of a batch of spans."""
    for row in _of_page(value):
        yield from spans.unwrapped(row)


def _of_page(value: Any) -> Iterable[Any]:
    """The rows of a page as an API gives it: ``{"data": […], "meta": {…}}``; a page of the items of one conversation is one row."""
    is_page = isinstance(value, dict) and isinstance(value.get("data"), list) and len(value.keys() - {"data"}) <= _NAMES_OF_A_PAGE
    is_known = is_page and (len(value) == 1 or bool(value.keys() & {"meta", "object", "has_more", "next_cursor", "pagination"}))
    if not is_known:
        return (value,)
    return (value,) if any(isinstance(each, dict) and each.get("type") == "message" for each in value["data"]) else value["data"]


_NAMES_OF_A_PAGE = 5


def _records(
    paths: Mapping[str, str], layout: Layout, settings: SourceSettings, at_most: int | None
) -> Iterator[tuple[Place, Record | Row, Assembly]]:
    for file, name in paths.items():
        given = {**(layout.beside(file, name) if layout.beside else {}), **files.hive_columns(name)}
        for number, value in enumerate(islice(source_values(file), at_most)):
            place = Place(name, number)
            if isinstance(value, dict):
                row = {**value, **{name: cell for name, cell in given.items() if value.get(name) is None}} if given else value
                own = layout_in(layout, row)
                try:
                    yield place, read(row, own, settings, place), own.assembly
                    continue
                except MistypedError as error:
                    value = Broken(Reason.MISTYPED_FIELD, str(error))
            elif not isinstance(value, Broken):
                value = Broken(Reason.MISTYPED_FIELD, f"the row is no object but {type(value).__name__}")
            yield place, _unreadable(place, value), layout.assembly


def _unreadable(place: Place, broken: Broken) -> Row:
    return {
        "source_file": place.file,
        "row_number": place.number,
        "unreadable": broken.reason.value,
        "unreadable_detail": broken.detail,
        "is_start_assumed": True,
    }


def _row(place: Place, record: Record, superseded: str | None = None) -> Row:
    messages = record.messages
    started_at = record.started_at
    if started_at is None and messages:
        times = (message.sent_at for message in messages if message.sent_at is not None and message.sent_at >= PLAUSIBLE_FROM)
        started_at = min(times, default=None)
    return {
        "source_file": place.file,
        "row_number": place.number,
        "superseded": superseded,
        "conversation_id": record.conversation_id,
        "user_key": record.user_key,
        "address": record.address,
        "started_at": started_at,
        "is_start_assumed": record.is_start_assumed or started_at is None,
        "assistant": record.model,
        "language": record.language,
        "is_toxic": record.is_toxic,
        "messages": None
        if messages is None or superseded
        else [{"role": message.role, "content": message.text, "sent_at": message.sent_at, "id": message.id} for message in messages],
    }


def _superseded(thread: Thread) -> Iterator[Row]:
    started_at = _row(thread.place, thread.record)["started_at"]
    for place, why in thread.others:
        yield _row(place, thread.record, superseded=why) | {"started_at": started_at}


def _of_request(request: str, same: Sequence[tuple[Place, Record]]) -> traces.Joined:
    """The rows of a request, or of all requests in a trace, with what feedback may call the replies."""
    if any(record.step is not None for _, record in same):
        return traces.joined(same)
    threads = [one_request(same)] if same[0][1].part is None else partial_requests.joined(same)
    kept = _reply(threads[-1].record)
    names = (request, *(reply for _, record in same if (reply := _reply(record)) is not None)) if len(threads) == 1 else ()
    found = [(thread.place, thread.record) for thread in threads]
    found += [(place, replace(thread.record, note=why)) for thread in threads for place, why in thread.others]
    return traces.Joined(found, dict.fromkeys(names, kept) if kept is not None else {})


def _reply(record: Record) -> str | None:
    """The name of the last message that has one."""
    return next((message.id for message in reversed(record.messages or ()) if message.id is not None), None)


class _Sink:
    """A Parquet file that rows are added to."""

    def __init__(self, file: Path, schema: pl.Schema) -> None:
        self._schema = pl.DataFrame(schema=schema).to_arrow().schema
        self._rows: list[Row] = []
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        columns = [pa.array([row.get(field.name) for row in self._rows], field.type) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows = []
