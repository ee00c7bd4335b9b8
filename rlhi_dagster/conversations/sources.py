"""Where conversations come from: settings of a source, its files, and its rows in one normalised form.

What belongs here: everything that differs between kinds of source; a new kind is a `SourceKind` and a `_Reader`. What does not: judging
the rows (``ingest``).

WildChat's own fields, as its dataset card has them: ``timestamp`` is the time of the *last* turn, an assistant message's ``timestamp``
the moment its full text arrived, and ``conversation_hash`` a hash of the content, so not a unique key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import polars as pl
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from rlhi_dagster.tables import TIME

PLAUSIBLE_FROM = datetime(2022, 11, 1, tzinfo=UTC)
"""No chat assistant of the kind was public before this moment; an earlier start is an error in the source."""

_HUB = "hf://"
ROW_MESSAGES = pl.List(pl.Struct({"role": pl.String(), "content": pl.String(), "sent_at": TIME}))


class SourceKind(StrEnum):
    """The layouts of source rows that can be read."""

    WILDCHAT = "wildchat"
    REALHUMANEVAL = "realhumaneval"


class SourceSettings(BaseModel, frozen=True, extra="forbid"):
    """A source of conversations and what is accepted from it."""

    name: str = Field(min_length=1, description="Name of the source, as it appears in the column `source`.")
    kind: SourceKind = Field(description="Layout of the rows.")
    location: str = Field(min_length=1, description="Parquet files: a path, a folder, a glob, or an `hf://datasets/…` path or glob.")
    assumed_start: AwareDatetime = Field(description="Start of a conversation whose row has no time; with a time zone, 2022-11 or later.")
    max_message_characters: int = Field(default=20_000, ge=1, description="A conversation with a longer message is quarantined.")
    max_messages: int = Field(default=200, ge=2, description="A conversation with more messages is quarantined.")
    drop_toxic: bool = Field(default=True, description="Quarantine conversations that the source itself flags as toxic.")

    @field_validator("assumed_start")
    @classmethod
    def _plausible(cls, value: datetime) -> datetime:
        if value < PLAUSIBLE_FROM:
            raise ValueError(f"assumed_start is before {PLAUSIBLE_FROM:%Y-%m}, from which on a start is believed")
        return value


@dataclass(frozen=True, slots=True)
class _Reader:
    """How rows of one kind are read.

    Attributes:
        required: Columns by which the kind is recognised and without which a file cannot be read.
        columns: Makes the normalised columns from a file's schema and the settings.
    """

    required: tuple[str, ...]
    columns: Callable[[pl.Schema, SourceSettings], Mapping[str, pl.Expr]]


def source_files(settings: SourceSettings) -> list[str]:
    """List the Parquet files of a source, sorted.

    Raises:
        ValueError: Nothing matches; the message names the location.
    """
    return _files(settings.location)


def detect_kind(location: str) -> SourceKind:
    """Tell the kind of a source from the columns of its first file.

    Raises:
        ValueError: Nothing is at ``location``, or its columns fit no kind; the message lists what was looked for.
    """
    file = _files(location)[0]
    found = _schema(file)
    for kind, reader in _READERS.items():
        if all(name in found for name in reader.required):
            return kind
    looked_for = "; ".join(f"{kind}: {', '.join(reader.required)}" for kind, reader in _READERS.items())
    raise ValueError(f"{file} is of no known kind; looked for the columns of {looked_for}; it has {', '.join(found) or 'none'}")


def scan_rows(settings: SourceSettings, *, now: datetime | None = None) -> pl.LazyFrame:
    """Scan every row of a source in one normalised form, lazily.

    Columns: ``source_file`` (relative to the fixed part of the location), ``row_number`` (0-based in the file), ``month`` (partition:
    of ``started_at`` if plausible, else of the setting `assumed_start`), ``conversation_id``, ``user_key`` (what identifies the
    connection, in clear; null if the row does not tell), ``started_at`` (as the source has it; null if absent), ``is_start_assumed``,
    ``assistant``, ``language``, ``is_toxic`` and ``messages`` (role, content, sent_at; nulls where the source has nothing).

    Args:
        settings: The source.
        now: Later times are implausible; the present by default.

    Raises:
        ValueError: No file matches, or a file lacks a column or has one of the wrong type.
    """
    now = now or datetime.now(UTC)
    reader = _READERS[settings.kind]
    root, _ = _split(settings.location)
    scans = []
    for file in source_files(settings):
        schema = _schema(file)
        missing = [name for name in reader.required if name not in schema]
        if missing:
            raise ValueError(f"{file}: a {settings.kind} file must have the column(s) {', '.join(missing)}")
        try:
            columns = reader.columns(schema, settings)
        except TypeError as error:
            raise ValueError(f"{file}: {error}") from error
        scan = pl.scan_parquet(file, row_index_name="_row_number", glob=False).select(
            pl.lit(file.removeprefix(root)).alias("source_file"),
            pl.col("_row_number").cast(pl.Int64).alias("row_number"),
            *(expression.alias(name) for name, expression in columns.items()),
        )
        scans.append(scan)
    start = pl.when(is_plausible(pl.col("started_at"), now)).then(pl.col("started_at")).otherwise(pl.lit(settings.assumed_start, TIME))
    return pl.concat(scans).with_columns(start.dt.strftime("%Y-%m").alias("month"))


def month_counts(settings: SourceSettings, *, now: datetime | None = None) -> dict[str, int]:
    """Count the rows of a source by month, sorted; reads no message."""
    counts = read(scan_rows(settings, now=now).group_by("month").agg(pl.len().alias("rows")), settings).sort("month")
    return dict(counts.iter_rows())


def read(rows: pl.LazyFrame, settings: SourceSettings) -> pl.DataFrame:
    """Collect a query over `scan_rows` with the streaming engine.

    Raises:
        ValueError: A file cannot be decoded (text that is not UTF-8, a truncated file); the message names it.
    """
    try:
        return rows.collect(engine="streaming")
    except pl.exceptions.ComputeError as error:
        for file in source_files(settings):
            try:
                pl.scan_parquet(file, glob=False).select(pl.col(_READERS[settings.kind].required).null_count()).collect(engine="streaming")
            except pl.exceptions.ComputeError as cause:
                raise ValueError(f"source {settings.name}: {file} cannot be decoded: {cause}") from cause
        raise error


def is_plausible(time: pl.Expr, now: datetime) -> pl.Expr:
    """Whether a time lies between `PLAUSIBLE_FROM` and ``now``."""
    return time.is_between(pl.lit(PLAUSIBLE_FROM, TIME), pl.lit(now, TIME))


def _wildchat(schema: pl.Schema, settings: SourceSettings) -> dict[str, pl.Expr]:
    header = schema.get("header")
    fields = sorted(field.name for field in header.fields) if isinstance(header, pl.Struct) else []
    client = [pl.col("header").struct.field(name).cast(pl.String).fill_null("") for name in fields]
    hashed_ip = _text(schema, "hashed_ip")
    started_at = _time(pl.col("timestamp"), schema["timestamp"], "timestamp")
    return {
        "conversation_id": _text(schema, "conversation_hash"),
        "user_key": pl.when(hashed_ip.is_not_null()).then(pl.concat_str(hashed_ip, *client, separator="\n")),
        "started_at": started_at,
        "is_start_assumed": started_at.is_null(),
        "assistant": _text(schema, "model"),
        "language": _text(schema, "language"),
        "is_toxic": _flag(schema, "toxic"),
        "messages": _messages(schema),
    }


def _realhumaneval(schema: pl.Schema, settings: SourceSettings) -> dict[str, pl.Expr]:
    # The study has no calendar time: seconds since the participant began. Clipped, so that nonsense is an impossible time, not an overflow.
    if not schema["start_seconds"].is_numeric():
        raise TypeError(f"the column start_seconds is {schema['start_seconds']}, not a number")
    seconds = pl.col("start_seconds").cast(pl.Float64).fill_nan(None).clip(-1e9, 1e9)
    started_at = pl.lit(settings.assumed_start, TIME) + (seconds * 1e6).round().cast(pl.Int64).cast(pl.Duration("us"))
    return {
        "conversation_id": _text(schema, "conversation_id"),
        "user_key": _text(schema, "user_id"),
        "started_at": started_at,
        "is_start_assumed": pl.lit(True),
        "assistant": _text(schema, "model"),
        "language": _text(schema, "language"),
        "is_toxic": pl.lit(None, pl.Boolean),
        "messages": _messages(schema),
    }


_READERS: Mapping[SourceKind, _Reader] = {
    SourceKind.WILDCHAT: _Reader(("conversation_hash", "model", "timestamp", "conversation"), _wildchat),
    SourceKind.REALHUMANEVAL: _Reader(("conversation_id", "user_id", "model", "start_seconds", "conversation"), _realhumaneval),
}


def _messages(schema: pl.Schema) -> pl.Expr:
    dtype = schema["conversation"]
    fields = dict(dtype.inner.to_schema()) if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct) else {}
    if not {"role", "content"} <= fields.keys():
        raise TypeError(f"the column conversation is {dtype}, not a list of structs with role and content")
    mistyped = [f"conversation.{name}" for name in ("role", "content") if fields[name] not in (pl.String, pl.Null)]
    if mistyped:
        raise TypeError(f"not text: {', '.join(mistyped)}")
    message = pl.element().struct
    if "timestamp" in fields:
        sent_at = _time(message.field("timestamp"), fields["timestamp"], "conversation.timestamp")
    else:
        sent_at = pl.lit(None, TIME)
    normalised = pl.struct(
        message.field("role").cast(pl.String).alias("role"),
        message.field("content").cast(pl.String).alias("content"),
        sent_at.alias("sent_at"),
    )
    # A struct built from a null entry would be a struct of nulls, and the entry could no longer be told from a message without role.
    return pl.col("conversation").list.eval(pl.when(pl.element().is_not_null()).then(normalised)).cast(ROW_MESSAGES)


def _text(schema: pl.Schema, name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String) if name in schema else pl.lit(None, pl.String)


def _flag(schema: pl.Schema, name: str) -> pl.Expr:
    if name in schema and schema[name] not in (pl.Boolean, pl.Null):
        raise TypeError(f"the column {name} is {schema[name]}, not a flag")
    return pl.col(name).cast(pl.Boolean) if name in schema else pl.lit(None, pl.Boolean)


def _time(time: pl.Expr, dtype: object, name: str) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        aware = time.dt.replace_time_zone("UTC") if dtype.time_zone is None else time.dt.convert_time_zone("UTC")
        return aware.cast(TIME)
    if dtype == pl.Null:
        return time.cast(TIME)
    raise TypeError(f"the column {name} is {dtype}, not a time")


def _schema(file: str) -> pl.Schema:
    try:
        return pl.scan_parquet(file, glob=False).collect_schema()
    except (pl.exceptions.ComputeError, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {error}") from error


def _files(location: str) -> list[str]:
    root, pattern = _split(location)
    if root.startswith(_HUB):
        from huggingface_hub import HfFileSystem  # the one kind of location that needs the network

        matches = HfFileSystem().glob(root.removeprefix(_HUB) + pattern)
        found = [f"{_HUB}{path}" for path in matches if str(path).endswith(".parquet")]
    else:
        found = [str(path) for path in Path(root or ".").glob(pattern) if path.is_file()]
    if not found:
        raise ValueError(f"no Parquet file matches the location {location}")
    return sorted(found)


def _split(location: str) -> tuple[str, str]:
    """Split a location into what all its files share (empty, or ending in a slash) and a pattern below that."""
    is_on_hub = location.startswith(_HUB)
    path = location if is_on_hub else str(Path(location).expanduser())
    has_wildcard = re.search(r"[*?\[]", path) is not None
    is_folder = not path.endswith(".parquet") and not has_wildcard if is_on_hub else Path(path).is_dir()
    if is_folder:
        return path.rstrip("/") + "/", "**/*.parquet"
    fixed = re.split(r"[*?\[]", path, maxsplit=1)[0]
    root = fixed[: fixed.rfind("/") + 1]
    return root, path[len(root) :]
