"""What a source holds, told before any run: layout, columns, rows, users, times, languages, feedback, and what is rejected.

What belongs here: looking at a source. What does not: printing (``cli.inspect_command``), and reading it for a run (``ingest``).

A large source is looked at in part: the first rows of each of some files spread over it. What was counted and what is an estimate is said.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import CONVERSATIONS
from rlhi_dagster.conversations.ingest import judge
from rlhi_dagster.conversations.sources import (
    SourceKind,
    SourceRows,
    SourceSettings,
    columns,
    decoded,
    detect_kind,
    feedback_file,
    files,
    month_counts,
    parquet,
    values,
)
from rlhi_dagster.conversations.sources.cells import MistypedError
from rlhi_dagster.conversations.sources.layouts import LAYOUTS
from rlhi_dagster.conversations.sources.records import Layout, Place, Record

AT_MOST = 20_000
"""Rows that are looked at."""
_TRACED, _COMPARED = 200, 20
"""Rows of a file of which is told which columns are read, and of these how many are read again without one."""
_SECONDS_OF_COUNTING = 5.0
_SALT = "user ids are not shown"
_ASSUMED_START = datetime(2023, 1, 1, tzinfo=UTC)
_MESSAGES_FOR_LANGUAGES = 1_000


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        location: As given.
        kind: Name of the layout.
        title: What people call it.
        files: One line on the files that were read and left out.
        rows: Rows of the source.
        is_rows_estimated: Whether they were not all counted.
        looked_at: Rows that the rest is about.
        accepted: Conversations among them.
        quarantined: Rows that would be rejected, by reason, with the detail and the place of one.
        superseded: Rows that belong to the conversation of another, by cause.
        columns_used: Columns that are read, and are there.
        columns_unused: Columns that are not read, the most frequent first.
        columns_in_doubt: Those of them that look like a time or a user.
        users: Users among the conversations, and conversations whose row names one.
        months: Accepted conversations by month.
        is_time_missing: Conversations whose start is assumed.
        languages: Languages of opening requests, as they are told, the most frequent first.
        feedback: Explicit feedback by kind and giver.
        models: Models that replied, the most frequent first; empty names are not there.
    """

    location: str
    kind: SourceKind
    title: str
    files: str
    rows: int
    is_rows_estimated: bool
    looked_at: int
    accepted: int
    quarantined: Mapping[str, tuple[int, str]]
    superseded: Mapping[str, int]
    columns_used: tuple[str, ...]
    columns_unused: tuple[str, ...]
    columns_in_doubt: tuple[str, ...]
    users: tuple[int, int]
    months: Mapping[str, int]
    is_time_missing: int
    languages: Mapping[str, int]
    feedback: Mapping[tuple[str, str], int] = field(default_factory=dict)
    models: Mapping[str, int] = field(default_factory=dict)


def inspect(
    location: str, language_of: Callable[[list[str]], list[str]], *, at_most: int = AT_MOST, now: datetime | None = None
) -> Inspection:
    """Look at a source.

    Args:
        location: A file, a folder, a pattern or an ``hf://datasets/…`` path.
        language_of: Tells the languages of texts.
        at_most: Rows to look at.
        now: Later times are impossible; the present by default.

    Raises:
        ValueError: There is nothing at the location, or its layout is not known.
    """
    kind = detect_kind(location)
    settings = SourceSettings(name=location, kind=kind, location=location, assumed_start=_ASSUMED_START, assumed_model=_NO_MODEL)
    rows = SourceRows(settings, now=now, at_most=at_most)
    months = month_counts(rows)
    judged = judge(settings, list(months), _SALT, now=now, rows=rows)
    conversations = pl.concat([CONVERSATIONS.empty(), *judged.conversations()])
    looked_at = sum(months.values())
    every = files.look(location)
    longest = rows.collect(lambda each: each.group_by("source_file").len().select(pl.col("len").max())).item() or 0
    is_whole = rows.found.files == every.files and longest < (rows.rows_of_a_file or 0)
    counted, is_estimated = (looked_at, False) if is_whole else _count(every.files)
    used, unused = _columns(rows.found.files, LAYOUTS[kind], settings)
    known = rows.collect(lambda each: each.filter(pl.col("superseded").is_null(), pl.col("user_key").is_not_null()).select(pl.len())).item()
    opening = conversations["messages"].list.first().struct.field("content").head(_MESSAGES_FOR_LANGUAGES).to_list()
    feedback = rows.feedback().group_by("kind", "giver").len().sort("len", descending=True).collect()
    assistants = conversations["assistant"].value_counts(sort=True).filter(pl.col("assistant") != _NO_MODEL)
    return Inspection(
        location=location,
        kind=kind,
        title=LAYOUTS[kind].title,
        files=every.account,
        rows=counted,
        is_rows_estimated=is_estimated,
        looked_at=looked_at,
        accepted=len(conversations),
        quarantined=_with_example(judged.quarantine),
        superseded=dict(judged.superseded["cause"].value_counts(sort=True).iter_rows()),
        columns_used=used,
        columns_unused=unused,
        columns_in_doubt=tuple(columns.unread(unused, settings)),
        users=(conversations["user_id"].n_unique(), known),
        months=dict(conversations.filter(~pl.col("is_start_assumed")).group_by("month").len().sort("month").iter_rows()),
        is_time_missing=int(conversations["is_start_assumed"].sum()),
        languages=dict(Counter(language_of(opening)).most_common()) if opening else {},
        feedback={(kind_, giver): count for kind_, giver, count in feedback.iter_rows()},
        models=dict(assistants.iter_rows()),
    )


_NO_MODEL = "(not said)"


def _with_example(quarantine: pl.DataFrame) -> dict[str, tuple[int, str]]:
    found = quarantine.group_by("reason").agg(pl.len(), pl.format("{}: {}", "row_id", "detail").first().alias("example"))
    return {reason: (count, example) for reason, count, example in found.sort("len", "reason", descending=[True, False]).iter_rows()}


class _Watched(dict[str, Any]):
    """A row that remembers which of its columns were read."""

    def __init__(self, row: Mapping[str, Any], seen: set[str]) -> None:
        super().__init__(row)
        self._seen = seen

    def __getitem__(self, name: str) -> Any:
        self._seen.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._seen.add(name)
        return super().get(name, default)


def _columns(paths: Sequence[str], layout: Layout, settings: SourceSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of some rows: those that the layout looks at, or without which it would read something else; and the others."""
    there, seen = Counter[str](), set[str]()
    for file in paths:
        for number, value in enumerate(islice(decoded.source_values(file), _TRACED)):
            if not isinstance(value, dict):
                continue
            there.update(name for name, cell in value.items() if cell is not None)
            place = Place(file, number)
            whole = _read(layout, _Watched(value, seen), settings, place)
            if number < _COMPARED and not feedback_file.fits(value):
                without = ((name, {other: cell for other, cell in value.items() if other != name}) for name in value.keys() - seen)
                seen.update(name for name, row in without if not layout.fits(row) or _read(layout, row, settings, place) != whole)
    names = [name for name, _ in there.most_common()]
    return tuple(name for name in names if name in seen), tuple(name for name in names if name not in seen)


def _read(layout: Layout, row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record | None:
    try:
        return decoded.read(row, layout, settings, place)
    except MistypedError:
        return None


def _count(paths: Sequence[str]) -> tuple[int, bool]:
    """Rows of files, and whether some are an estimate: JSON is read for some seconds only."""
    whole = rows = read = total = 0
    is_estimated = False
    deadline = time.monotonic() + _SECONDS_OF_COUNTING
    for file in paths:
        if files.suffix(file) in (files.PARQUET, files.ARROW):
            whole += parquet.count(file)
            continue
        with files.open_file(file) as stream:
            total += stream.seek(0, 2)
            stream.seek(0)
            for value in values.of(stream) if not is_estimated else ():
                rows += sum(1 for _ in decoded.unwrapped(value))
                if time.monotonic() > deadline:
                    is_estimated = True
                    break
            read += stream.tell()
    return whole + (round(rows * total / read) if read else 0), is_estimated
