"""The rows of a source in one normalised form, whatever its kind and file format.

What belongs here: recognising a kind, scanning and collecting its rows. What does not: how a kind is laid out (its module), how a file
format is read (``parquet``, ``lines``), and judging the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources import files, lines, parquet
from rlhi_dagster.conversations.sources.layout import DETAIL, REASON, ROW_NUMBER, Layout, Raw
from rlhi_dagster.conversations.sources.lmsys import LMSYS
from rlhi_dagster.conversations.sources.messages import MESSAGES
from rlhi_dagster.conversations.sources.realhumaneval import REALHUMANEVAL
from rlhi_dagster.conversations.sources.settings import PLAUSIBLE_FROM, SourceField, SourceKind, SourceSettings
from rlhi_dagster.conversations.sources.sharegpt import SHAREGPT
from rlhi_dagster.conversations.sources.wildchat import WILDCHAT

LAYOUTS: Mapping[SourceKind, Layout] = {
    SourceKind.WILDCHAT: WILDCHAT,
    SourceKind.REALHUMANEVAL: REALHUMANEVAL,
    SourceKind.LMSYS: LMSYS,
    SourceKind.MESSAGES: MESSAGES,
    SourceKind.SHAREGPT: SHAREGPT,
}
"""The kinds, in the order in which they are tried when a kind is to be recognised."""


def source_files(settings: SourceSettings) -> list[str]:
    """List the files of a source, sorted.

    Raises:
        ValueError: Nothing matches; the message names the location.
    """
    return files.find(settings.location)


def detect_kind(location: str) -> SourceKind:
    """Tell the kind of a source from the columns of its first file, or the names in its first JSON object.

    Raises:
        ValueError: Nothing is at ``location``, or its columns fit no kind; the message lists what was looked for.
    """
    file = files.find(location)[0]
    found = parquet.columns(file) if file.endswith(files.PARQUET) else lines.columns(file)
    for kind, layout in LAYOUTS.items():
        if all(name in found for name in layout.usual_columns):
            return kind
    looked_for = "; ".join(f"{kind}: {', '.join(layout.usual_columns)}" for kind, layout in LAYOUTS.items())
    raise ValueError(f"{file} is of no known kind; looked for the columns of {looked_for}; it has {', '.join(found) or 'none'}")


def scan_rows(settings: SourceSettings, *, now: datetime | None = None, damage: Mapping[str, parquet.Damage] | None = None) -> pl.LazyFrame:
    """Scan every row of a source in one normalised form, lazily.

    Columns: ``source_file`` (relative to the fixed part of the location), ``row_number`` (0-based in the file), ``month`` (partition:
    of ``started_at`` if plausible, else of the setting `assumed_start`), ``conversation_id``, ``user_key`` (what identifies the
    connection, in clear; null if the row does not tell), ``address`` (of the network, in clear; null likewise), ``started_at`` (as the
    source has it; null if absent), ``is_start_assumed``, ``assistant``, ``language``, ``is_toxic``, ``messages`` (role, content, sent_at;
    nulls where the source has nothing), and for rows that cannot be read ``unreadable`` (a `Reason`) and ``unreadable_detail``.

    A row without an id, of a kind whose rows need none, gets a digest of its user, start and messages: the same wherever the row lies, so
    that files can be split and sorted anew, and a conversation delivered twice is found. Rows without user and start that say the same
    are one conversation by this.

    Args:
        settings: The source.
        now: Later times are implausible; the present by default.
        damage: Damaged row groups of the files; see `SourceRows`.

    Raises:
        ValueError: No file matches, or a Parquet file lacks a column or has one of the wrong type.
    """
    now = now or datetime.now(UTC)
    layout = LAYOUTS[settings.kind]
    names = layout.names(settings)
    needed = dict.fromkeys(names[field] for field in (*layout.required, *settings.fields))
    root, _ = files.split(settings.location)
    scans = []
    for file in source_files(settings):
        is_parquet = file.endswith(files.PARQUET)
        scan = parquet.scan(file, (damage or {}).get(file)) if is_parquet else lines.scan(file, layout.types(settings))
        schema = scan.collect_schema()
        missing = [name for name in needed if name not in schema]
        if missing:
            raise ValueError(f"{file}: a {settings.kind} file must have the column(s) {', '.join(missing)}")
        try:
            columns = layout.columns(Raw(schema, names), settings)
        except TypeError as error:
            raise ValueError(f"{file}: {error}") from error
        scans.append(
            scan.select(
                pl.lit(file.removeprefix(root)).alias("source_file"),
                pl.col(ROW_NUMBER).cast(pl.Int64).alias("row_number"),
                pl.col(REASON).alias("unreadable"),
                pl.col(DETAIL).alias("unreadable_detail"),
                *(expression.alias(name) for name, expression in columns.items()),
            )
        )
    rows = pl.concat(scans)
    if SourceField.CONVERSATION_ID not in layout.required:
        rows = rows.with_columns(pl.coalesce("conversation_id", _digest("user_key", "started_at", "messages")))
    if settings.assumed_model is not None:
        rows = rows.with_columns(pl.col("assistant").fill_null(settings.assumed_model))
    start = pl.when(is_plausible(pl.col("started_at"), now)).then(pl.col("started_at")).otherwise(pl.lit(settings.assumed_start, TIME))
    return rows.with_columns(start.dt.strftime("%Y-%m").alias("month"))


class SourceRows:
    """The rows of a source, for queries over `scan_rows` that the streaming engine runs.

    If a query fails, the Parquet files are searched once for row groups that cannot be decoded, and from then on the rows of those are
    there, marked as unreadable. A row keeps its month if its time can be decoded, so every query finds the same number of rows in a month.
    """

    def __init__(self, settings: SourceSettings, *, now: datetime | None = None) -> None:
        """Remember what to read; nothing is opened yet."""
        self._settings = settings
        self._now = now
        self._damage: Mapping[str, parquet.Damage] = {}

    def collect(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
        """The result of a query, in memory."""
        try:
            return self._plan(query).collect(engine="streaming", optimizations=self._flags)
        except parquet.DECODING_ERRORS:
            if self._damage or not self._find_damage():
                raise
        return self._plan(query).collect(engine="streaming", optimizations=self._flags)

    def batches(self, query: Callable[[pl.LazyFrame], pl.LazyFrame], rows: int) -> Iterator[pl.DataFrame]:
        """The result of a query, some ``rows`` at a time and in the order of the source; damage must have been met by `collect` before."""
        yield from self._plan(query).collect_batches(chunk_size=rows, engine="streaming", optimizations=self._flags)

    def _plan(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.LazyFrame:
        return query(scan_rows(self._settings, now=self._now, damage=self._damage))

    @property
    def _flags(self) -> pl.QueryOptFlags:
        # What the row groups' scans have in common must not become one scan of the whole file, which would fail again.
        return pl.QueryOptFlags(comm_subplan_elim=not self._damage)

    def _find_damage(self) -> bool:
        columns = list(LAYOUTS[self._settings.kind].types(self._settings))
        found = {file: parquet.damage(file, columns) for file in source_files(self._settings) if file.endswith(files.PARQUET)}
        self._damage = {file: damage for file, damage in found.items() if damage}
        return bool(self._damage)


def month_counts(settings: SourceSettings, *, now: datetime | None = None) -> dict[str, int]:
    """Count the rows of a source by month, sorted; of Parquet files no message is read."""
    counts = SourceRows(settings, now=now).collect(lambda rows: rows.group_by("month").agg(pl.len().alias("rows"))).sort("month")
    return dict(counts.iter_rows())


def is_plausible(time: pl.Expr, now: datetime) -> pl.Expr:
    """Whether a time lies between `PLAUSIBLE_FROM` and ``now``."""
    return time.is_between(pl.lit(PLAUSIBLE_FROM, TIME), pl.lit(now, TIME))


def _digest(*columns: str) -> pl.Expr:
    """16 bytes of BLAKE2b, as hex, of some columns; null if the last one is."""

    def digests(texts: pl.Series) -> pl.Series:
        found = [text and hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
        return pl.Series(texts.name, found, dtype=pl.String)

    text = pl.when(pl.col(columns[-1]).is_not_null()).then(pl.struct(*columns).struct.json_encode())
    return text.map_batches(digests, return_dtype=pl.String, is_elementwise=True)
