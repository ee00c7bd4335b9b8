"""RealHumanEval's chats.

What belongs here: their columns. What does not: anything another kind shares (``layout``).

The study has no calendar time: seconds count from the moment when the participant began.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources.layout import Layout, Raw, message_type, standard
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings


def _columns(raw: Raw, settings: SourceSettings) -> dict[str, pl.Expr]:
    # Clipped, so that nonsense is an impossible time, not an overflow.
    seconds = raw.number(SourceField.STARTED_AT).fill_nan(None).clip(-1e9, 1e9)
    started_at = pl.lit(settings.assumed_start, TIME) + (seconds * 1e6).round().cast(pl.Int64).cast(pl.Duration("us"))
    return standard(raw, started_at=started_at, is_start_assumed=pl.lit(True))


REALHUMANEVAL = Layout(
    {
        SourceField.CONVERSATION_ID: ("conversation_id", pl.String()),
        SourceField.USER: ("user_id", pl.String()),
        SourceField.STARTED_AT: ("start_seconds", pl.Float64()),
        SourceField.MODEL: ("model", pl.String()),
        SourceField.LANGUAGE: ("language", pl.String()),
        SourceField.TOXIC: ("toxic", pl.Boolean()),
        SourceField.MESSAGES: ("conversation", message_type()),
    },
    required=(SourceField.CONVERSATION_ID, SourceField.USER, SourceField.MODEL, SourceField.STARTED_AT, SourceField.MESSAGES),
    columns=_columns,
)
