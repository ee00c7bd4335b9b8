"""The rows of a source in one normalised form, whatever their layout and file format.

What belongs here: recognising a layout, and scanning and collecting its rows. What does not: how a layout is laid out (``layouts``), how a
file format is read (``parquet``, ``values``), and judging the rows.

Parquet files of data sets are scanned column by column, as they are. All others are read value by value, once, into a temporary file that
is removed with the `SourceRows` that made it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base.owned import TemporaryFolder
from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources import decoded, feedback_file, files, parquet
from rlhi_dagster.conversations.sources.cells import WHITE
from rlhi_dagster.conversations.sources.columns import Columns
from rlhi_dagster.conversations.sources.layouts import LAYOUTS, layout_in, layout_of
from rlhi_dagster.conversations.sources.parquet import DETAIL, REASON, ROW_NUMBER
from rlhi_dagster.conversations.sources.records import FEEDBACK, SCHEMA, Assembly, Broken
from rlhi_dagster.conversations.sources.settings import PLAUSIBLE_FROM, SourceField, SourceKind, SourceSettings

_ROWS_LOOKED_AT, _FILES_LOOKED_AT = 200, 20
_OBJECTS = "has objects with"


def source_files(settings: SourceSettings) -> list[str]:
    """List the files of a source, sorted.

    Raises:
        ValueError: Nothing matches; the message names the location.
    """
    return files.find(settings.location)


def detect_kind(location: str) -> SourceKind:
    """Tell the layout of a source from its first rows: the one that most of them fit.

    Raises:
        ValueError: Nothing is at ``location``, or no row fits a layout; the message says what each file looked at has instead.
    """
    there = files.look(location)
    found, said, looked_at = Counter[SourceKind](), [], 0
    for file in there.files:
        try:
            rows, broken = _first_rows(file)
        except ValueError as error:
            said.append(str(error))
            continue
        if not rows and files.suffix(file) == files.PARQUET:
            rows = [{name: [] for name in _polars_schema(file) or ()}]  # without rows, the columns tell
        given = files.hive_columns(file.removeprefix(there.root))
        told = [row for row in rows if isinstance(row, dict) and not feedback_file.fits(row)]
        fitting = [layout.kind for row in told if (layout := layout_of({**given, **row})) is not None]
        found.update(fitting)
        if not fitting:
            said.append(f"{file} {_instead(rows, broken)}")
        looked_at += bool(rows)
        if sum(found.values()) >= _ROWS_LOOKED_AT or looked_at == _FILES_LOOKED_AT:
            break
    if found:
        most = max(found.values())
        return next(kind for kind in LAYOUTS if found[kind] == most)
    looked_for = "; ".join(f"{kind}: {layout.needs}" for kind, layout in LAYOUTS.items())
    hint = f". Looked for {looked_for}" if any(_OBJECTS in each for each in said) else ""
    more = f"; and {len(said) - _FILES_LOOKED_AT:,} more" if len(said) > _FILES_LOOKED_AT else ""
    raise ValueError(f"nothing at {location} can be read as conversations: {'; '.join(said[:_FILES_LOOKED_AT])}{more}{hint}")


def _first_rows(file: str) -> tuple[list[Any], Broken | None]:
    """The first values of a file that are not broken, and the first that is."""
    rows: list[Any] = []
    broken = None
    for value in decoded.source_values(file):
        if isinstance(value, Broken):
            broken = broken or value
        else:
            rows.append(value)
        if len(rows) == _ROWS_LOOKED_AT:
            break
    return rows, broken


def _instead(rows: list[Any], broken: Broken | None) -> str:
    """What a file has, if it has nothing that can be read."""
    objects = [row for row in rows if isinstance(row, dict)]
    if objects and all(map(feedback_file.fits, objects)):
        return "has feedback on conversations, and none of these"
    if objects:
        return f"{_OBJECTS} {', '.join(sorted({str(name) for row in objects for name in row})[:20]) or 'no columns'}"
    if broken is not None:
        return f"cannot be read: {broken.detail}"
    return f"has no objects but values such as {type(rows[0]).__name__}" if rows else "is empty"


SPILLED = "rlhi-rows-"
"""How the system's temporary folders begin in which rows lie that are read value by value."""


class SourceRows:
    """The rows of a source, for queries that the streaming engine runs.

    Columns: those of `records.SCHEMA`: ``source_file`` (relative to the fixed part of the location), ``row_number`` (0-based among the rows
    of the file), ``conversation_id``, ``user_key`` (what identifies the connection, in clear; null if the row does not tell), ``address``
    (of the network, in clear; null likewise), ``started_at`` (as the source has it, else the earliest time of a message; null if absent),
    ``is_start_assumed``, ``assistant``, ``language``, ``is_toxic``, ``messages``; for rows that cannot be read ``unreadable`` (a `Reason`)
    and ``unreadable_detail``, for rows that another one supersedes ``superseded`` (why); and ``month`` (partition: of ``started_at`` if
    plausible, else of the setting `assumed_start`).

    A row without an id gets a digest of its user, start and messages: the same wherever the row lies, so that files can be split and sorted
    anew, and a conversation delivered twice is found. Rows without user and start that say the same are one conversation by this.

    If a query fails, the Parquet files are searched once for row groups that cannot be decoded, and from then on the rows of those are
    there, marked as unreadable. A row keeps its month if its time can be decoded, so every query finds the same number of rows in a month.
    """

    def __init__(self, settings: SourceSettings, *, now: datetime | None = None, at_most: int | None = None) -> None:
        """Remember what to read; nothing is opened yet.

        Args:
            settings: The source.
            now: Later times are implausible; the present by default.
            at_most: Rows that are read, the first of each of some files spread over the source; all by default.
        """
        self._settings = settings
        self._layout = LAYOUTS[settings.kind]
        self._now = now or datetime.now(UTC)
        self._damage: Mapping[str, parquet.Damage] = {}
        self._at_most = at_most
        self._folder: TemporaryFolder | None = None

    @cached_property
    def found(self) -> files.Found:
        """The files of the source that are read."""
        found = files.look(self._settings.location)
        if self._at_most is None or len(found.files) <= _FILES_LOOKED_AT:
            return found
        step = len(found.files) / _FILES_LOOKED_AT
        return replace(found, files=tuple(found.files[int(number * step)] for number in range(_FILES_LOOKED_AT)))

    def state(self) -> Mapping[str, tuple[int, ...]]:
        """What tells of each local file that it was replaced or written to: inode, size, and times of change, which nobody can set back."""
        local = [file for file in self.found.files if "://" not in file]
        return {file: (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for file in local if (stat := Path(file).stat())}

    @property
    def rows_of_a_file(self) -> int | None:
        """How many rows of each file are read; None if all are."""
        return None if self._at_most is None else -(-self._at_most // len(self.found.files))

    def collect(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
        """The result of a query, in memory.

        Raises:
            ValueError: No file matches, or a file cannot be read or lacks a column.
        """
        try:
            return query(self.scan()).collect(engine="streaming", optimizations=self._flags)
        except parquet.DECODING_ERRORS:
            if self._damage or not self._find_damage():
                raise
        return query(self.scan()).collect(engine="streaming", optimizations=self._flags)

    def batches(self, query: Callable[[pl.LazyFrame], pl.LazyFrame], rows: int) -> Iterator[pl.DataFrame]:
        """The result of a query, some ``rows`` at a time and in the order of the source; damage must have been met by `collect` before."""
        yield from query(self.scan()).collect_batches(chunk_size=rows, engine="streaming", optimizations=self._flags)

    def scan(self) -> pl.LazyFrame:
        """Every row, lazily. The scan is good as long as this object lives."""
        self._check_named_columns()
        scans = [self._scan_of_columns(file, columns) for file, columns in self._by_columns.items()]
        if len(scans) < len(self.found.files):
            scans.append(pl.scan_parquet(self._decoded / decoded.ROWS))
        rows = pl.concat(scans)
        rows = rows.with_columns(_named())
        if self._settings.assumed_model is not None:
            rows = rows.with_columns(pl.col("assistant").fill_null(self._settings.assumed_model))
        believed = pl.when(is_plausible(pl.col("started_at"), self._now)).then("started_at")
        start = believed.fill_null(pl.lit(self._settings.assumed_start, TIME))
        return rows.with_columns(start.dt.strftime("%Y-%m").alias("month"))

    def feedback(self) -> pl.LazyFrame:
        """Explicit feedback in the source (`records.FEEDBACK`), with the messages that it is about by their ids.

        What the source says in several places, with a time or without, is there once.
        """
        if len(self._by_columns) == len(self.found.files):
            return pl.LazyFrame(schema=FEEDBACK)
        given = pl.scan_parquet(self._decoded / decoded.FEEDBACK_FILE).with_row_index()
        said = [name for name in FEEDBACK if name != "given_at"]
        return given.sort("given_at", nulls_last=True).unique(said, keep="first", maintain_order=True).sort("index").drop("index")

    @cached_property
    def _by_columns(self) -> Mapping[str, Mapping[str, pl.Expr]]:
        """Files that can be scanned column by column, with the normalised columns."""
        fitting, grown, beside = {}, set(), 0
        for file in self.found.files:
            if files.suffix(file) != files.PARQUET or files.hive_columns(file.removeprefix(self.found.root)):
                continue
            if (schema := _polars_schema(file)) is None:
                continue
            if feedback_file.fits(schema):
                beside += 1
                continue
            found = Columns(schema, self._settings)
            layout = layout_in(self._layout, {name: [] for name in schema})
            columns = layout.columns(found) if layout.columns is not None else {"messages": None}
            if all(expression is not None for expression in columns.values()):
                fitting[file] = self._with_start({name: each for name, each in columns.items() if each is not None}, found, file)
                grown |= {file} if layout.assembly is not Assembly.WHOLE else set()
        is_partial = len(fitting) + beside < len(self.found.files)
        may_continue = {file: fitting[file] for file in grown}
        if grown and (is_partial or self._openings_repeat(may_continue)):
            return {file: columns for file, columns in fitting.items() if file not in grown}
        return fitting

    def _with_start(self, columns: dict[str, pl.Expr], found: Columns, file: str) -> dict[str, pl.Expr]:
        """The columns, with the earliest time of a message where there is no start; messages are read for it only where one may lack."""
        started_at, assumed = columns["started_at"], columns["is_start_assumed"]
        by_column = next((name for name in found.names(SourceField.STARTED_AT) if name in found.schema), None)
        if found.has_message_times and (by_column is None or parquet.has_nulls(file, by_column)):
            sent_at = pl.element().struct.field("sent_at")
            times = columns["messages"].list.eval(pl.when(sent_at >= pl.lit(PLAUSIBLE_FROM, TIME)).then(sent_at))
            started_at = pl.coalesce(started_at, times.list.min())
        return {**columns, "started_at": started_at, "is_start_assumed": assumed | started_at.is_null()}

    def _openings_repeat(self, fitting: Mapping[str, Mapping[str, pl.Expr]]) -> bool:
        """Whether rows may be requests of one conversation: the same user with the same first exchange."""
        message = pl.element().struct
        is_told = (message.field("role") != "system") & (message.field("content").str.strip_chars(WHITE) != "")
        said = pl.col("messages").list.filter(is_told).list.head(2)
        opening = pl.struct("user_key", said.list.eval(message.field("content"))).hash()
        try:
            found = (
                pl.concat(self._scan_of_columns(file, columns) for file, columns in fitting.items())
                .select(pl.when(said.list.len() > 0).then(opening))
                .drop_nulls()
                .collect(engine="streaming")
            )
        except parquet.DECODING_ERRORS:
            return False  # damage is met by the query that comes
        return bool(found.to_series().is_duplicated().any())

    def _scan_of_columns(self, file: str, columns: Mapping[str, pl.Expr]) -> pl.LazyFrame:
        scan = parquet.scan(file, self._damage.get(file))
        scan = scan if self.rows_of_a_file is None else scan.head(self.rows_of_a_file)
        given = {
            "source_file": pl.lit(file.removeprefix(self.found.root)),
            "row_number": pl.col(ROW_NUMBER).cast(pl.Int64),
            "unreadable": pl.col(REASON),
            "unreadable_detail": pl.col(DETAIL),
            "superseded": pl.lit(None, pl.String),
            **columns,
        }
        return scan.select(given[name].alias(name) for name in SCHEMA)

    @cached_property
    def _decoded(self) -> Path:
        """A folder with the rows that are read value by value."""
        self._folder = TemporaryFolder(SPILLED)
        paths = {file: file.removeprefix(self.found.root) for file in self.found.files if file not in self._by_columns}
        decoded.decode(paths, self._layout, self._settings, self._folder.path, self.rows_of_a_file)
        return self._folder.path

    def _check_named_columns(self) -> None:
        """Raise ValueError if a column that the settings name is in no Parquet file; of JSON, any row may have it."""
        if not self._settings.fields:
            return
        schemas = [_polars_schema(file) for file in self.found.files if files.suffix(file) == files.PARQUET]
        if not schemas or len(schemas) < len(self.found.files):
            return
        for field, name in self._settings.fields.items():
            if not any(schema is None or name in schema or name.split(".")[0] in schema for schema in schemas):
                raise ValueError(f"{self._settings.location}: no file has the column {name}, which the settings name for {field}")

    @property
    def _flags(self) -> pl.QueryOptFlags:
        # What the row groups' scans have in common must not become one scan of the whole file, which would fail again.
        return pl.QueryOptFlags(comm_subplan_elim=not self._damage)

    def _find_damage(self) -> bool:
        found = {}
        for file, columns in self._by_columns.items():
            read = sorted({name for expression in columns.values() for name in expression.meta.root_names()})
            found[file] = parquet.damage(file, read)
        self._damage = {file: damage for file, damage in found.items() if damage}
        return bool(self._damage)


def _polars_schema(file: str) -> pl.Schema | None:
    """Columns of a Parquet file; None if it has a type that Polars cannot read, or another reader must say what is wrong."""
    try:
        return parquet.schema(file)
    except ValueError:
        return None


def month_counts(source: SourceSettings | SourceRows, *, now: datetime | None = None) -> dict[str, int]:
    """Count the rows of a source by month, sorted; where a Parquet file gives every start, no message of it is read."""
    rows = source if isinstance(source, SourceRows) else SourceRows(source, now=now)
    counts = rows.collect(lambda scanned: scanned.group_by("month").agg(pl.len().alias("rows"))).sort("month")
    return dict(counts.iter_rows())


def is_plausible(time: pl.Expr, now: datetime) -> pl.Expr:
    """Whether a time lies between `PLAUSIBLE_FROM` and ``now``."""
    return time.is_between(pl.lit(PLAUSIBLE_FROM, TIME), pl.lit(now, TIME))


def _named() -> pl.Expr:
    """The id of a conversation; where there is none 16 bytes of BLAKE2b, as hex, of user, start and messages, if there are messages."""

    def names(rows: pl.Series) -> pl.Series:
        given = rows.struct.field("conversation_id")
        nameless = given.is_null().arg_true()
        if nameless.is_empty():
            return given
        said = pl.struct(pl.element().struct.field(name) for name in ("role", "content", "sent_at"))
        messages = pl.col("messages").list.eval(pl.when(pl.element().is_not_null()).then(said)).alias("messages")
        text = pl.when(pl.col("messages").is_not_null()).then(pl.struct("user_key", "started_at", messages).struct.json_encode())
        texts = rows.gather(nameless).struct.unnest().select(text).to_series()
        return given.scatter(nameless, [text and hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts])

    columns = pl.struct("conversation_id", "user_key", "started_at", "messages")
    return columns.map_batches(names, return_dtype=pl.String(), is_elementwise=True).alias("conversation_id")
