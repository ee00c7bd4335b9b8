"""Rows with a list of messages under any of the usual names: chat APIs' ``messages``, ShareGPT's ``conversations``, fine-tuning files.

What belongs here: reading such a row value by value, as far as all data sets share it. What does not: what other layouts add (their
modules), and the same column by column (``columns``).

A row may be a conversation, or a request with its whole history; of a history that grows from row to row the longest is kept. A row whose
messages name the message before them is a conversation with all its branches, and no other row continues it but one of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import polars as pl

from rlhi_dagster.conversations.sources import cells, columns, parts
from rlhi_dagster.conversations.sources.assembly import assemble
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.columns import MESSAGE_ROLE, MESSAGE_TEXT, MESSAGE_TIME, USUAL, Columns
from rlhi_dagster.conversations.sources.records import Assembly, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a time of a message that cannot be read: as impossible as that one, and cleared like any impossible time."""

LANGCHAIN = ("human", "ai", "system", "tool", "function", "chat", "AIMessageChunk", "HumanMessageChunk")
"""What LangChain calls messages, in their field ``type``."""
_SIDES = ("chosen", "rejected")
"""Columns of preference pairs, such as this project exports."""
_PARENT = ("parent", "parentId", "parent_id", "parentMessageId", "parent_message_id")


def first(
    row: Mapping[str, Any], field: SourceField, settings: SourceSettings, usual: Mapping[SourceField, tuple[str, ...]] = USUAL
) -> Any:
    """The first value of a field, by its usual names or the one in the settings, that is not absent."""
    for name in columns.names(field, settings, usual):
        value = cells.at(row, name)
        if value is not None and (not isinstance(value, str | float | bytes) or cells.key(value) is not None):
            return value
    return None


def fields(row: Mapping[str, Any], settings: SourceSettings, usual: Mapping[SourceField, tuple[str, ...]] = USUAL) -> Record:
    """What a row says beside its messages, in columns of ``usual`` names.

    Raises:
        MistypedError: A value cannot be what its field needs; the message names the field.
    """

    def read(field: SourceField, meaning: Any) -> Any:
        try:
            return meaning(first(row, field, settings, usual))
        except MistypedError as error:
            raise MistypedError(f"{field}: {error}") from None

    return Record(
        conversation_id=read(SourceField.CONVERSATION_ID, cells.key),
        group=next((found for name in columns.SHARED if (found := shared_key(row, name))), None),
        user_key=read(SourceField.USER, cells.key),
        started_at=read(SourceField.STARTED_AT, cells.time),
        model=read(SourceField.MODEL, cells.key),
        language=read(SourceField.LANGUAGE, cells.key),
        is_toxic=read(SourceField.TOXIC, cells.flag),
    )


def user(row: Mapping[str, Any], settings: SourceSettings) -> str | None:
    """The user that a row of the settings' or a usual column names, or None where there is none."""
    return next((found for name in columns.names(SourceField.USER, settings) if (found := shared_key(row, name))), None)


def shared_key(row: Mapping[str, Any], name: str) -> str | None:
    """A key under a name, or None where there is none or something else."""
    try:
        return cells.key(cells.at(row, name))
    except MistypedError:
        return None


def time_at(row: Mapping[str, Any], name: str) -> datetime | None:
    """The time under a name.

    Raises:
        MistypedError: It is none; the message has the name.
    """
    try:
        return cells.time(cells.at(row, name))
    except MistypedError as error:
        raise MistypedError(f"{name}: {error}") from None


def message_list(value: Any) -> list[Message]:
    """The messages of a list, of JSON text, or of a struct of lists, with the fields that any usual writer gives them.

    Raises:
        MistypedError: There is no list, or an entry is no message.
    """
    value = parsed(value)
    if isinstance(value, Mapping) and all(isinstance(each, list) for each in value.values()):
        value = [dict(zip(value, each, strict=True)) for each in zip_longest(*value.values())]
    if not isinstance(value, list):
        raise MistypedError("messages: no list")
    return [message(each, number) for number, each in enumerate(value)]


def message(value: Any, number: int = 0) -> Message:
    """One entry of a list of messages.

    Raises:
        MistypedError: It is no message.
    """
    value = parsed(value)
    if not isinstance(value, Mapping):
        raise MistypedError(f"messages.{number}: no message")
    value = _unwrapped(value)
    role = next((value[name] for name in MESSAGE_ROLE if value.get(name) is not None), None)
    role = role.get("role", role.get("name")) if isinstance(role, Mapping) else role
    content = next((value[name] for name in MESSAGE_TEXT if value.get(name) is not None), None)
    said = parts.said(role, content, value)
    parent = None if value.keys().isdisjoint(_PARENT) else next((k for n in _PARENT if (k := shared_key(value, n))), None)
    return Message(said.role, said.text, sent_at(value), shared_key(value, "id"), parent)


def is_message(value: Any) -> bool:
    """Whether a value is an object that says who speaks, and what."""
    if not isinstance(value, Mapping):
        return False
    value = _unwrapped(value)
    has_role = any(isinstance(value.get(name), str) for name in MESSAGE_ROLE)
    return has_role and any(name in value for name in (*MESSAGE_TEXT, "tool_calls", "function_call"))


def _unwrapped(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message of LangChain with the names that others have: serialised (``lc``, ``kwargs``), or a ``type`` and its ``data``."""
    inner = parsed(value.get("kwargs" if "lc" in value else "data"))
    path, kind = value.get("id"), value.get("type")
    kind = path[-1] if isinstance(path, list) and path else kind
    if not isinstance(inner, Mapping):
        return {"role": kind, **value} if kind in LANGCHAIN and "content" in value else value
    if "lc" not in value and kind not in LANGCHAIN:
        return value
    more = inner.get("additional_kwargs")
    return {**(more if isinstance(more, Mapping) else {}), "role": kind, **inner}


def sent_at(value: Mapping[str, Any]) -> datetime | None:
    """The time of a message; `NO_TIME` for one that cannot be read."""
    for name in MESSAGE_TIME:
        if value.get(name) is not None:
            try:
                return cells.time(value[name])
            except MistypedError:
                return NO_TIME
    return None


def believed(moment: datetime | None) -> datetime | None:
    """A time of a message, where it could be read: the start of a row that is one message."""
    return None if moment == NO_TIME else moment


def read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    """What a row says."""
    if has(row, *_SIDES):
        return Record(note="a preference pair, and no log")
    record = fields(row, settings)
    present = [value for name in columns.names(SourceField.MESSAGES, settings) if (value := cells.at(row, name)) is not None]
    found = next((value for value in present if value != []), present[0] if present else None)
    record.messages = None if found is None else message_list(found)
    if record.messages and any(each.parent for each in record.messages):  # a tree within the row, as Open WebUI's lists can be
        (thread, *_) = assemble([(place, record)], Assembly.TREE)
        record = thread.record
        record.group = record.group or record.conversation_id or f"{place.file}#{place.number}"
    return record


def standard(found: Columns, **own: pl.Expr | None) -> dict[str, pl.Expr | None]:
    """The normalised columns of a layout: its ``own`` where it is special, else each from the field of that name."""
    if has(found.schema, *_SIDES):
        return {"messages": None}
    return {
        "conversation_id": found.text(SourceField.CONVERSATION_ID),
        "user_key": found.text(SourceField.USER),
        "address": pl.lit(None, pl.String),
        "started_at": found.time(SourceField.STARTED_AT),
        "is_start_assumed": pl.lit(value=False),
        "assistant": found.text(SourceField.MODEL),
        "language": found.text(SourceField.LANGUAGE),
        "is_toxic": found.flag(SourceField.TOXIC),
        "messages": found.messages(),
        **own,
    }


def has(row: Mapping[str, Any], *names: str) -> bool:
    """Whether a row has all of some columns."""
    return all(name in row for name in names)


LAYOUT = Layout(
    SourceKind.MESSAGES,
    title="Lists of messages: chat APIs, fine-tuning files, ShareGPT",
    needs="a list of messages in " + ", ".join(columns.USUAL[SourceField.MESSAGES]),
    fits=lambda row: (
        not has(row, *_SIDES) and any(isinstance(parsed(row.get(name)), list | dict) for name in columns.USUAL[SourceField.MESSAGES])
    ),
    read=read,
    assembly=Assembly.GROWN,
    columns=standard,
)
