"""LMSYS-Chat-1M: as published without times and users; a conversation is toxic if the moderation flagged any of its messages.

What belongs here: its columns. What does not: anything another kind shares (``layout``).
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources.layout import Layout, Raw, message_type, standard
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings

_FLAGGED = "flagged"
_MODERATION = pl.List(pl.Struct({_FLAGGED: pl.Boolean()}))


def _columns(raw: Raw, settings: SourceSettings) -> dict[str, pl.Expr]:
    name = raw.names[SourceField.TOXIC]
    dtype = raw.schema[name]
    fields = dict(dtype.inner.to_schema()) if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct) else {}
    if fields.get(_FLAGGED) not in (pl.Boolean, pl.Null):
        raise TypeError(f"the column {name} is {dtype}, not a list of structs with a flag named {_FLAGGED}")
    flags = pl.col(name).list.eval(pl.element().struct.field(_FLAGGED).cast(pl.Boolean))
    return standard(raw, is_toxic=flags.list.any())


LMSYS = Layout(
    {
        SourceField.CONVERSATION_ID: ("conversation_id", pl.String()),
        SourceField.USER: ("user", pl.String()),
        SourceField.STARTED_AT: ("timestamp", TIME),
        SourceField.MODEL: ("model", pl.String()),
        SourceField.LANGUAGE: ("language", pl.String()),
        SourceField.TOXIC: ("openai_moderation", _MODERATION),
        SourceField.MESSAGES: ("conversation", message_type()),
    },
    required=(SourceField.CONVERSATION_ID, SourceField.MODEL, SourceField.TOXIC, SourceField.MESSAGES),
    columns=_columns,
)
