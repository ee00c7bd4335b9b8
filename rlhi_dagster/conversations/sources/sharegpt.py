"""ShareGPT's exports: who speaks is in ``from``, the text in ``value``; mostly without user, time and model.

What belongs here: their columns. What does not: anything another kind shares (``layout``).
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.conversations.sources.layout import Layout, Raw, message_type, standard
from rlhi_dagster.conversations.sources.messages import MESSAGES
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}


def _columns(raw: Raw, settings: SourceSettings) -> dict[str, pl.Expr]:
    return standard(raw, messages=raw.messages("from", "value", _ROLES))


SHAREGPT = Layout(
    {**MESSAGES.fields, SourceField.MESSAGES: ("conversations", message_type("from", "value"))},
    required=(SourceField.MESSAGES,),
    columns=_columns,
)
