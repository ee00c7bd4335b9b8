"""WildChat-1M and WildChat-4.8M.

What belongs here: their columns. What does not: anything another layout shares (``columns``, ``layouts.messages``).

As the dataset card has it, ``timestamp`` is the time of the *last* turn, an assistant message's ``timestamp`` the moment its full text
arrived, and ``conversation_hash`` a hash of the content, so not a unique key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rlhi_dagster.conversations.sources import cells, columns
from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.columns import Columns
from rlhi_dagster.conversations.sources.layouts import messages
from rlhi_dagster.conversations.sources.records import Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_CLIENT = ("accept-language", "user-agent")
"""Fields of ``header`` that tell users at one address apart."""


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    record = messages.read(row, settings, place)
    record.address = record.user_key
    header = parsed(row.get("header"))
    client = [header.get(name) for name in _CLIENT] if isinstance(header, Mapping) else []
    if record.address is not None and isinstance(header, Mapping):
        record.user_key = "\n".join([record.address, *("" if text is None else str(text) for text in client)])
    return record


def _columns(found: Columns) -> Mapping[str, pl.Expr | None]:
    address = found.text(SourceField.USER)
    dtype = found.schema.get("header", pl.Null())
    header = dict(dtype.to_schema()) if isinstance(dtype, pl.Struct) else {}
    is_plain = dtype == pl.Null or (header and all(columns.is_text(header.get(name, pl.Null())) for name in _CLIENT))
    if address is None or not is_plain:
        return {"user_key": None}
    client = [(pl.col("header").struct.field(name).cast(pl.String) if name in header else pl.lit(None, pl.String)) for name in _CLIENT]
    with_client = pl.concat_str(address, *(text.fill_null("") for text in client), separator="\n")
    known = pl.when(address.is_not_null() & pl.col("header").is_not_null()).then(with_client).otherwise(address) if header else address
    return messages.standard(found, user_key=known, address=address)


LAYOUT = Layout(
    SourceKind.WILDCHAT,
    title="WildChat-1M and WildChat-4.8M",
    needs="conversation_hash, conversation",
    fits=lambda row: messages.has(row, "conversation_hash", "conversation") and cells.at(row, "conversation") is not None,
    read=_read,
    columns=_columns,
)
