"""WildChat-1M and WildChat-4.8M.

What belongs here: their columns. What does not: anything another kind shares (``layout``).

As the dataset card has it, ``timestamp`` is the time of the *last* turn, an assistant message's ``timestamp`` the moment its full text
arrived, and ``conversation_hash`` a hash of the content, so not a unique key.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources.layout import Layout, Raw, message_type, standard
from rlhi_dagster.conversations.sources.settings import SourceField, SourceSettings

_HEADER = "header"


def _columns(raw: Raw, settings: SourceSettings) -> dict[str, pl.Expr]:
    header = raw.schema.get(_HEADER)
    fields = sorted(field.name for field in header.fields) if isinstance(header, pl.Struct) else []
    client = [pl.col(_HEADER).struct.field(name).cast(pl.String).fill_null("") for name in fields]
    address = raw.text(SourceField.USER)
    user_key = pl.when(address.is_not_null()).then(pl.concat_str(address, *client, separator="\n"))
    return standard(raw, user_key=user_key, address=address)


WILDCHAT = Layout(
    {
        SourceField.CONVERSATION_ID: ("conversation_hash", pl.String()),
        SourceField.USER: ("hashed_ip", pl.String()),
        SourceField.STARTED_AT: ("timestamp", TIME),
        SourceField.MODEL: ("model", pl.String()),
        SourceField.LANGUAGE: ("language", pl.String()),
        SourceField.TOXIC: ("toxic", pl.Boolean()),
        SourceField.MESSAGES: ("conversation", message_type()),
    },
    required=(SourceField.CONVERSATION_ID, SourceField.MODEL, SourceField.STARTED_AT, SourceField.MESSAGES),
    columns=_columns,
    extra={_HEADER: pl.Struct({"accept-language": pl.String(), "user-agent": pl.String()})},
)
