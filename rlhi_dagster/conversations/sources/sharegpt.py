"""ShareGPT's exports: who speaks is in ``from``, the text in ``value``; mostly without user, time and model.

What belongs here: their columns. What does not: anything another kind shares (``layout``).
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.conversations.sources.layout import Layout, Raw, message_type, standard
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings
from rlhi_dagster.tables import TIME

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}


def _columns(raw: Raw, settings: SourceSettings) -> dict[str, pl.Expr]:
    return standard(raw, messages=raw.messages("from", "value", _ROLES))


SHAREGPT = Layout(
    {
        SourceField.CONVERSATION_ID: ("id", pl.String()),
        SourceField.USER: ("user", pl.String()),
        SourceField.STARTED_AT: ("created", TIME),
        SourceField.MODEL: ("model", pl.String()),
        SourceField.LANGUAGE: ("language", pl.String()),
        SourceField.TOXIC: ("toxic", pl.Boolean()),
        SourceField.MESSAGES: ("conversations", message_type("from", "value")),
    },
    required=(SourceField.MESSAGES,),
    columns=_columns,
)
