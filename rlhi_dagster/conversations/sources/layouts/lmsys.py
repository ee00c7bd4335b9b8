"""LMSYS-Chat-1M: as published without times and users; a conversation is toxic if the moderation flagged any of its messages.

What belongs here: its columns. What does not: anything another layout shares (``columns``, ``layouts.messages``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rlhi_dagster.conversations.sources import cells
from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.columns import Columns
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_MODERATION, _FLAGGED = "openai_moderation", "flagged"


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    record = messages.read(row, settings, place)
    if SourceField.TOXIC not in settings.fields:
        verdicts = parsed(row.get(_MODERATION))
        verdicts = [verdicts] if isinstance(verdicts, Mapping) else verdicts
        flags = [cells.flag(each.get(_FLAGGED)) for each in verdicts if isinstance(each, Mapping)] if isinstance(verdicts, list) else []
        record.is_toxic = any(flags) if flags else record.is_toxic
    return record


def _columns(found: Columns) -> Mapping[str, pl.Expr | None]:
    dtype = found.schema.get(_MODERATION, pl.Null())
    fields = dict(dtype.inner.to_schema()) if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct) else {}
    if SourceField.TOXIC in found.settings.fields or dtype == pl.Null:
        return messages.standard(found)
    flags = pl.col(_MODERATION).list.drop_nulls().list.eval(pl.element().struct.field(_FLAGGED))
    said = found.flag(SourceField.TOXIC)
    if fields.get(_FLAGGED) != pl.Boolean or said is None:
        return {"is_toxic": None}
    return messages.standard(found, is_toxic=pl.coalesce(pl.when(flags.list.len() > 0).then(flags.list.any()), said))


LAYOUT = Layout(
    SourceKind.LMSYS,
    title="LMSYS-Chat-1M",
    needs="conversation_id, openai_moderation, conversation",
    fits=lambda row: messages.has(row, "conversation_id", "openai_moderation", "conversation"),
    read=_read,
    columns=_columns,
)
