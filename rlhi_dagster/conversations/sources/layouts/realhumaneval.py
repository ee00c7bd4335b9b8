"""RealHumanEval's chats.

What belongs here: their columns. What does not: anything another layout shares (``columns``, ``layouts.messages``).

The study has no calendar time: seconds count from the moment when the participant began, and here from the setting ``assumed_start``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources import cells
from rlhi_dagster.conversations.sources.columns import Columns
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_SECONDS = "start_seconds"
_AT_MOST = 1e9
"""Seconds beyond it are cut to it, so that nonsense is an impossible time and no overflow."""


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    record = messages.read(row, settings, place)
    seconds = _number(cells.at(row, settings.fields.get(SourceField.STARTED_AT, _SECONDS)))
    since = None if seconds is None else timedelta(microseconds=round(max(-_AT_MOST, min(_AT_MOST, seconds)) * 1e6))
    record.started_at = None if since is None else settings.assumed_start + since
    record.is_start_assumed = True
    return record


def _number(value: Any) -> float | None:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    text = cells.key(value)
    try:
        return None if text is None else float(text)
    except ValueError:
        raise cells.MistypedError(f"{_SECONDS}: a text that is no number") from None


def _columns(found: Columns) -> Mapping[str, pl.Expr | None]:
    name = found.settings.fields.get(SourceField.STARTED_AT, _SECONDS)
    dtype = found.schema.get(name, pl.Null())
    if not dtype.is_numeric():
        return {"started_at": None}
    seconds = pl.col(name).cast(pl.Float64).fill_nan(None).clip(-_AT_MOST, _AT_MOST)
    started_at = pl.lit(found.settings.assumed_start, TIME) + (seconds * 1e6).round().cast(pl.Int64).cast(pl.Duration("us"))
    return messages.standard(found, started_at=started_at, is_start_assumed=pl.lit(value=True))


LAYOUT = Layout(
    SourceKind.REALHUMANEVAL,
    title="RealHumanEval's chats",
    needs="conversation_id, user_id, start_seconds, conversation",
    fits=lambda row: messages.has(row, "conversation_id", "user_id", _SECONDS, "conversation"),
    read=_read,
    columns=_columns,
)
