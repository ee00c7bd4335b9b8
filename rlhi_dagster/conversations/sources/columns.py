"""Where the layouts of data sets keep what we read, and reading it column by column.

What belongs here: the usual names of columns, and normalised columns as expressions over a Parquet file's own, where its types are those
that the layouts are published with. What does not: values one by one, which any other file gets (``layouts.messages``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl
from polars.datatypes import DataTypeClass

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.base.thoughts import MAY_THINK, spoken
from rlhi_dagster.conversations.sources.cells import ABSENT, WHITE, named
from rlhi_dagster.conversations.sources.parts import ROLES, TOOL_RESULT
from rlhi_dagster.conversations.sources.records import ROW_MESSAGES
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings

DType = pl.DataType | DataTypeClass

USUAL: Mapping[SourceField, tuple[str, ...]] = {
    SourceField.CONVERSATION_ID: (
        "conversation_hash", "id", "_id", "uuid", "conversation_id", "conversationId", "chat_id", "thread_id", "session_id", "sessionId",
        "metadata.conversation_id", "metadata.session_id", "metadata.thread_id",
    ),
    SourceField.USER: (
        "user", "user_id", "userId", "hashed_ip", "user.id", "end_user", "end_user_id", "customer_id", "safety_identifier",
        "metadata.user_id", "metadata.user", "metadata.userId",
    ),
    SourceField.STARTED_AT: (
        "created", "created_at", "createdAt", "timestamp", "create_time", "started_at", "start_time", "startTime", "time", "date",
        "datetime", "tstamp", "created_date", "metadata.created_at", "metadata.timestamp",
    ),
    SourceField.MODEL: ("model", "model_id", "model_name", "modelId", "metadata.model"),
    SourceField.LANGUAGE: ("language", "lang"),
    SourceField.TOXIC: ("toxic",),
    SourceField.MESSAGES: ("messages", "conversation", "conversations", "chat", "dialogue", "dialog"),
}  # fmt: skip
"""The usual names of columns by our names; the first that a row has counts."""

SHARED = (
    "conversation_id", "conversationId", "chat_id", "thread_id", "session_id", "sessionId",
    "metadata.conversation_id", "metadata.session_id", "metadata.thread_id",
)  # fmt: skip
"""Columns that several rows of one conversation share, where rows are requests."""

MESSAGE_ROLE = ("role", "from", "author", "speaker", "sender")
MESSAGE_TEXT = ("content", "value", "text", "parts", "message")
MESSAGE_TIME = ("timestamp", "created_at", "createdAt", "create_time", "created", "sent_at", "time", "date", "created_date")

_BESIDE = ("tool_calls", "function_call", "tool_call_id", "name", "refusal", "id", "parent", "parentId", "parent_id", "parentMessageId")
"""Fields of a message that only its values can be read with."""
_LIKE_TIME_OR_USER = ("time", "date", "created", "user", "customer", "author", "account", "member")


def names(field: SourceField, settings: SourceSettings, usual: Mapping[SourceField, tuple[str, ...]] = USUAL) -> tuple[str, ...]:
    """Columns that a field is read from: the one that the settings name, or the usual ones."""
    return (settings.fields[field],) if field in settings.fields else usual.get(field, ())


def unread(found: Iterable[str], settings: SourceSettings) -> list[str]:
    """Columns that look like a time or a user and are not read."""
    read = {name.split(".")[0] for field in SourceField for name in names(field, settings)}
    return [name for name in found if name not in read and any(word in name.lower() for word in _LIKE_TIME_OR_USER)]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a Parquet file. Every method gives what the values would, or None if they must be looked at one by one.

    Attributes:
        schema: Columns with their types.
        settings: The source.
    """

    schema: pl.Schema
    settings: SourceSettings

    def names(self, field: SourceField) -> tuple[str, ...]:
        """Columns that a field is read from."""
        return names(field, self.settings)

    def text(self, field: SourceField) -> pl.Expr | None:
        """A column as text, null where it says that there is none."""
        return self._first(field, is_text, text)

    def flag(self, field: SourceField) -> pl.Expr | None:
        """A column of true and false."""
        return self._first(field, lambda dtype: dtype in (pl.Boolean, pl.Null), lambda column, _: column.cast(pl.Boolean))

    def time(self, field: SourceField) -> pl.Expr | None:
        """A column of times, UTC if they have no zone."""
        return self._first(field, _is_time, _time)

    def messages(self) -> pl.Expr | None:
        """The message list as `ROW_MESSAGES`."""
        found = self._message_list()
        if found is None:
            return None
        column, fields = found
        message = pl.element().struct
        role, words, time = (self._present(usual, fields)[:1] for usual in (MESSAGE_ROLE, MESSAGE_TEXT, MESSAGE_TIME))
        name = message.field(role[0]).str.strip_chars(WHITE)
        name = pl.when(name != "").then(name)
        ours = name.str.to_lowercase().replace_strict(ROLES, default=name, return_dtype=pl.String)
        is_tool = ours == "tool"
        said = message.field(words[0]).fill_null("")
        answer = said.map_batches(_spoken, return_dtype=pl.String(), is_elementwise=True)
        normalised = pl.struct(
            pl.when(is_tool).then(pl.lit("assistant")).otherwise(ours).alias("role"),
            pl.when(is_tool).then(pl.lit(TOOL_RESULT)).when(ours == "assistant").then(answer).otherwise(said).alias("content"),
            (_time(message.field(time[0]), fields[time[0]]) if time else pl.lit(None, TIME)).alias("sent_at"),
            pl.lit(None, pl.String).alias("id"),
        )
        # A struct built from a null entry would be a struct of nulls, and the entry could no longer be told from a message without role.
        return pl.col(column).list.eval(pl.when(pl.element().is_not_null()).then(normalised)).cast(ROW_MESSAGES)

    @property
    def has_message_times(self) -> bool:
        """Whether messages have times of their own."""
        found = self._message_list()
        return found is not None and bool(self._present(MESSAGE_TIME, found[1]))

    def _message_list(self) -> tuple[str, dict[str, DType]] | None:
        """Name of the one column of messages, and the fields of a message, if these are texts and times."""
        present = [name for name in names(SourceField.MESSAGES, self.settings) if self.schema.get(name, pl.Null()) != pl.Null]
        dtype = self.schema[present[0]] if len(present) == 1 else None
        if not (isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)):
            return None
        fields = dict(dtype.inner.to_schema())
        role, words, time = (self._present(usual, fields) for usual in (MESSAGE_ROLE, MESSAGE_TEXT, MESSAGE_TIME))
        is_plain = (
            len(role) == len(words) == 1
            and len(time) <= 1
            and not self._present(_BESIDE, fields)
            and fields[role[0]] == fields[words[0]] == pl.String
            and all(_is_time(fields[name]) for name in time)
        )
        return (present[0], fields) if is_plain else None

    @staticmethod
    def _present(usual: tuple[str, ...], fields: Mapping[str, DType]) -> list[str]:
        return [name for name in usual if fields.get(name, pl.Null()) != pl.Null]

    def _first(self, field: SourceField, is_fit: Callable[[DType], bool], make: Callable[[pl.Expr, DType], pl.Expr]) -> pl.Expr | None:
        found = []
        for path in names(field, self.settings):
            column, _, within = path.partition(".")
            dtype: DType | None = self.schema.get(path if path in self.schema else column)
            if dtype is None or path in self.schema:
                expression = pl.col(path)
            elif isinstance(dtype, pl.Struct) and "." not in within:
                dtype, expression = dict(dtype.to_schema()).get(within), pl.col(column).struct.field(within)
            elif column == within or dtype == pl.Null or (column != "metadata" and field not in self.settings.fields):
                continue
            else:
                return None
            if dtype is not None and not is_fit(dtype):
                return None
            if dtype is not None:
                found.append(make(expression, dtype))
        return pl.coalesce(found) if found else make(pl.lit(None), pl.Null())


def is_text(dtype: DType) -> bool:
    """Whether the text of a column's values is what a cast to text gives."""
    return dtype in (pl.String, pl.Null) or dtype.is_integer() or dtype == pl.Categorical


def text(column: pl.Expr, dtype: DType) -> pl.Expr:
    """A column that `is_text` as text, null where it says that there is none."""
    found = column.cast(pl.String)
    if not dtype.is_integer():
        found = found.map_batches(_named, return_dtype=pl.String(), is_elementwise=True)
    return pl.when(~found.str.strip_chars(WHITE).str.to_lowercase().is_in(ABSENT)).then(found)


def _named(texts: pl.Series) -> pl.Series:
    """Texts, but of objects in JSON text their ids; only what looks like one is looked at one by one."""
    objects = texts.str.strip_chars_start(WHITE).str.starts_with("{").arg_true()
    return texts.scatter(objects, [named(text) for text in texts.gather(objects)]) if len(objects) else texts


def _spoken(texts: pl.Series) -> pl.Series:
    """Texts without thoughts; only those that have a tag are looked at one by one."""
    thinking = texts.str.contains(MAY_THINK).arg_true()
    return texts.scatter(thinking, [spoken(text) for text in texts.gather(thinking)]) if len(thinking) else texts


def _is_time(dtype: DType) -> bool:
    return isinstance(dtype, pl.Datetime) or dtype == pl.Null


def _time(time: pl.Expr, dtype: DType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        time = time.dt.replace_time_zone("UTC") if dtype.time_zone is None else time.dt.convert_time_zone("UTC")
    return time.cast(TIME)
