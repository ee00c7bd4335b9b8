"""What a kind of source must say about itself, and the building blocks to say it with.

What belongs here: `Layout`, and normalised columns as expressions over a file's own. What does not: any particular kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl
from polars.datatypes import DataTypeClass

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings

ROW_NUMBER, REASON, DETAIL = "_row_number", "_reason", "_detail"
"""Columns that the readers of file formats add: position of a row, and why it cannot be read (null if it can)."""

ROW_MESSAGES = pl.List(pl.Struct({"role": pl.String(), "content": pl.String(), "sent_at": TIME}))


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows of one kind are laid out.

    Attributes:
        fields: Each `SourceField`, with the source's usual name for the column and its type in JSON lines.
        required: What the kind is recognised by, and without which a Parquet file cannot be read.
        columns: Makes the normalised columns; see `standard`.
        extra: Further columns that are read, with their types in JSON lines.
    """

    fields: Mapping[SourceField, tuple[str, pl.DataType]]
    required: tuple[SourceField, ...]
    columns: Callable[[Raw, SourceSettings], Mapping[str, pl.Expr]]
    extra: Mapping[str, pl.DataType] = field(default_factory=dict)

    @property
    def usual_columns(self) -> list[str]:
        """Columns by which the kind is recognised."""
        return [self.fields[field][0] for field in self.required]

    def names(self, settings: SourceSettings) -> dict[SourceField, str]:
        """The source's columns by our names."""
        return {field: settings.fields.get(field, usual) for field, (usual, _) in self.fields.items()}

    def types(self, settings: SourceSettings) -> pl.Schema:
        """Columns that are read, with their types in JSON lines."""
        names = self.names(settings)
        return pl.Schema({**{names[field]: dtype for field, (_, dtype) in self.fields.items()}, **self.extra})


@dataclass(frozen=True, slots=True)
class Raw:
    """The columns of a file as the source has them.

    Every method gives an expression; null where the file lacks the column.

    Raises:
        TypeError: From every method: the column is of a type that cannot be what is asked for.
    """

    schema: pl.Schema
    names: Mapping[SourceField, str]

    def text(self, field: SourceField) -> pl.Expr:
        """A column as text."""
        name, dtype = self._column(field)
        if dtype.is_nested():
            raise TypeError(f"the column {name} is {dtype}, not text")
        return pl.col(name).cast(pl.String) if name in self.schema else pl.lit(None, pl.String)

    def flag(self, field: SourceField) -> pl.Expr:
        """A column of true and false."""
        name, dtype = self._column(field)
        if dtype not in (pl.Boolean, pl.Null):
            raise TypeError(f"the column {name} is {dtype}, not a flag")
        return pl.col(name).cast(pl.Boolean) if name in self.schema else pl.lit(None, pl.Boolean)

    def number(self, field: SourceField) -> pl.Expr:
        """A column of numbers."""
        name, dtype = self._column(field)
        if not dtype.is_numeric():
            raise TypeError(f"the column {name} is {dtype}, not a number")
        return pl.col(name).cast(pl.Float64)

    def time(self, field: SourceField) -> pl.Expr:
        """A column of times; UTC if they have no zone."""
        name, dtype = self._column(field)
        return _time(pl.col(name), dtype, name) if name in self.schema else pl.lit(None, TIME)

    def messages(self, role: str = "role", content: str = "content", roles: Mapping[str, str] | None = None) -> pl.Expr:
        """The message list as `ROW_MESSAGES`.

        Args:
            role: Name of a message's role in the source.
            content: Name of a message's text in the source.
            roles: The source's names of roles, where they are not ours.
        """
        name, dtype = self._column(SourceField.MESSAGES)
        fields = dict(dtype.inner.to_schema()) if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct) else {}
        if not {role, content} <= fields.keys():
            raise TypeError(f"the column {name} is {dtype}, not a list of structs with {role} and {content}")
        mistyped = [f"{name}.{each}" for each in (role, content) if fields[each] not in (pl.String, pl.Null)]
        if mistyped:
            raise TypeError(f"not text: {', '.join(mistyped)}")
        message = pl.element().struct
        sent_at = pl.lit(None, TIME)
        if "timestamp" in fields:
            sent_at = _time(message.field("timestamp"), fields["timestamp"], f"{name}.timestamp")
        normalised = pl.struct(
            message.field(role).cast(pl.String).replace(roles or {}).alias("role"),
            message.field(content).cast(pl.String).alias("content"),
            sent_at.alias("sent_at"),
        )
        # A struct built from a null entry would be a struct of nulls, and the entry could no longer be told from a message without role.
        return pl.col(name).list.eval(pl.when(pl.element().is_not_null()).then(normalised)).cast(ROW_MESSAGES)

    def _column(self, field: SourceField) -> tuple[str, pl.DataType]:
        name = self.names[field]
        return name, self.schema.get(name, pl.Null())


def standard(raw: Raw, **own: pl.Expr) -> dict[str, pl.Expr]:
    """The normalised columns of a kind: its ``own`` where it is special, else each from the field of that name."""
    usual: dict[str, Callable[[], pl.Expr]] = {
        "conversation_id": lambda: raw.text(SourceField.CONVERSATION_ID),
        "user_key": lambda: raw.text(SourceField.USER),
        "address": lambda: pl.lit(None, pl.String),
        "started_at": lambda: raw.time(SourceField.STARTED_AT),
        "is_start_assumed": lambda: raw.time(SourceField.STARTED_AT).is_null(),
        "assistant": lambda: raw.text(SourceField.MODEL),
        "language": lambda: raw.text(SourceField.LANGUAGE),
        "is_toxic": lambda: raw.flag(SourceField.TOXIC),
        "messages": lambda: raw.messages(),
    }
    return {name: own[name] if name in own else make() for name, make in usual.items()}


def message_type(role: str = "role", content: str = "content") -> pl.DataType:
    """Type of a message list in JSON lines."""
    return pl.List(pl.Struct({role: pl.String(), content: pl.String(), "timestamp": TIME}))


def _time(time: pl.Expr, dtype: pl.DataType | DataTypeClass, name: str) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        aware = time.dt.replace_time_zone("UTC") if dtype.time_zone is None else time.dt.convert_time_zone("UTC")
        return aware.cast(TIME)
    if dtype == pl.Null:
        return time.cast(TIME)
    raise TypeError(f"the column {name} is {dtype}, not a time")
