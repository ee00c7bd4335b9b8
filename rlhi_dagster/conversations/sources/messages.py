"""Rows with a list of messages as chat APIs take it: role and content.

What belongs here: their columns. What does not: anything another kind shares (``layout``).
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources.layout import Layout, Raw, message_type, standard
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings


def _columns(raw: Raw, settings: SourceSettings) -> dict[str, pl.Expr]:
    return standard(raw, messages=raw.messages(roles={"developer": "system"}))


MESSAGES = Layout(
    {
        SourceField.CONVERSATION_ID: ("id", pl.String()),
        SourceField.USER: ("user", pl.String()),
        SourceField.STARTED_AT: ("created", TIME),
        SourceField.MODEL: ("model", pl.String()),
        SourceField.LANGUAGE: ("language", pl.String()),
        SourceField.TOXIC: ("toxic", pl.Boolean()),
        SourceField.MESSAGES: ("messages", message_type()),
    },
    required=(SourceField.MESSAGES,),
    columns=_columns,
)
