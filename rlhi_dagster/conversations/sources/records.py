"""What a row of a source says, in the one form that all layouts are read into.

What belongs here: the record and its parts, and what a layout has to say about itself. What does not: any particular layout
(``layouts``), and how records become conversations (``assembly``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

if TYPE_CHECKING:
    from rlhi_dagster.conversations.sources.columns import Columns

ROW_MESSAGES = pl.List(pl.Struct({"role": pl.String(), "content": pl.String(), "sent_at": TIME, "id": pl.String()}))
SCHEMA = pl.Schema(
    {
        "source_file": pl.String(),
        "row_number": pl.Int64(),
        "unreadable": pl.String(),
        "unreadable_detail": pl.String(),
        "superseded": pl.String(),
        "conversation_id": pl.String(),
        "user_key": pl.String(),
        "address": pl.String(),
        "started_at": TIME,
        "is_start_assumed": pl.Boolean(),
        "assistant": pl.String(),
        "language": pl.String(),
        "is_toxic": pl.Boolean(),
        "messages": ROW_MESSAGES,
    }
)
FEEDBACK = pl.Schema(
    {"target": pl.String(), "kind": pl.String(), "value": pl.Float64(), "text": pl.String(), "given_at": TIME, "giver": pl.String()}
)


class Giver(StrEnum):
    """Who gave explicit feedback. Only what end users give is a preference by default."""

    END_USER = "end_user"
    STAFF = "staff"
    MODEL = "model"


class FeedbackKind(StrEnum):
    """What explicit feedback is."""

    THUMB = "thumb"
    """``value`` is 1 (up) or -1 (down)."""
    RATING = "rating"
    """``value`` is a number on the source's own scale."""
    COMMENT = "comment"
    EDIT = "edit"
    """``text`` is the reply as the user would have it."""
    REGENERATION = "regeneration"
    """The user asked for another reply; ``text`` is the one that was left, and ``value`` the thumb that it had got, if any."""
    CHOICE = "choice"
    """The user chose between drafts; ``text`` is the one that was not chosen."""


class Message(NamedTuple):
    """One message of a conversation.

    Attributes:
        role: ``user``, ``assistant`` or ``system``; another name is the source's own, and quarantines the row.
        text: What is said; empty if nothing is.
        sent_at: When, in UTC.
        id: Name of the message in the source, or of the request that it answers; feedback refers to it.
        parent: Name of the message before it, where the source has trees or chains.
        is_whole: False for what is no whole reply: it broke off, or is an error in place of one. It is neither preferred to a sibling nor
            left for one.
        slot: Which of several answers it is that were given side by side; a sibling in the same slot is another try.
        rank: Place among its siblings that annotators gave it, the best the lowest; ``math.inf`` if none.
    """

    role: str | None
    text: str
    sent_at: datetime | None = None
    id: str | None = None
    parent: str | None = None
    is_whole: bool = True
    slot: str | None = None
    rank: float | None = None


class Feedback(NamedTuple):
    """Explicit feedback on one message.

    Attributes:
        target: `Message.id` of the message that it is about.
        kind: A `FeedbackKind`.
        value: A number, where the kind has one.
        text: A comment, a reason or a reply, where there is one.
        given_at: When, in UTC.
        giver: A `Giver`.
        request: `Record.request` of that message, for a source that may name a step of it as the target.
        pair: What feedback on replies that were compared shares; ``value`` then ranks the reply.
    """

    target: str | None
    kind: str
    value: float | None = None
    text: str | None = None
    given_at: datetime | None = None
    giver: str = Giver.END_USER
    request: str | None = None
    pair: str | None = None


class Assembly(StrEnum):
    """How the records of a layout become conversations."""

    WHOLE = "whole"
    """A record is a conversation."""
    GROWN = "grown"
    """A record is a conversation, or a request with its whole history: the longest is kept of a history that grows in a user's rows."""
    TREE = "tree"
    """Messages name the message before them; records of one conversation are put together. The path to the latest leaf is kept."""
    PREFIX = "prefix"
    """A record is a request with its whole history, or with what is new since its parent: the longest of each history is kept."""
    SESSION = "session"
    """As `PREFIX`, and requests of a session that carry no history follow each other."""


@dataclass(slots=True)
class Record:
    """What one row says.

    Attributes:
        conversation_id: Name of the conversation, or of the request where requests have no other.
        group: What records of one conversation share, where the layout assembles; None if only their history tells.
        user_key: What identifies the user or the connection, in clear.
        address: Of the network, in clear.
        started_at: The start, in UTC; None if the row does not say.
        is_start_assumed: Whether ``started_at`` is no calendar time.
        model: The model that replied.
        language: As the source spells it.
        is_toxic: The source's own flag.
        messages: In order; of a `Assembly.TREE` in any order.
        current: `Message.id` of the leaf that is shown, where the source of a tree says.
        feedback: On messages of this or of another record.
        note: Why the row is no part of a conversation ("a score", "a span of a tool"); such a row is accounted for and not quarantined. Of
            an `Assembly.TREE`, it may name the user, the model and the leaf of the conversation of its group, and its ``messages`` are
            passed over: what names them as the message before it follows theirs.
        request: What records of one request share, where a system logs a request and its steps: one of them is kept.
        depth: How deep a record lies within its request; what lies further out is what the user saw.
        written_at: The moment that the row shows a conversation at, where several rows may show it at different ones; the latest counts.
        step: Of what lies in a trace (named in ``request``), the step that it is of; empty if the row does not say. All rows of a trace are
            then put together by their steps (``traces``).
        above: The step that a step is part of.
        names: What feedback may call the reply beside its `Message.id`.
        part: Where the record belongs in its request, if it is only a part of it, by the order of texts: a reply after what was asked.
        parent: ``request`` that this one goes on from, where it holds what is new; its own ``group`` for whatever came last in it.
    """

    conversation_id: str | None = None
    group: str | None = None
    user_key: str | None = None
    address: str | None = None
    started_at: datetime | None = None
    is_start_assumed: bool = False
    model: str | None = None
    language: str | None = None
    is_toxic: bool | None = None
    messages: list[Message] | None = None
    current: str | None = None
    feedback: list[Feedback] = field(default_factory=list)
    note: str | None = None
    request: str | None = None
    depth: int = 0
    written_at: datetime | None = None
    step: str | None = None
    above: str | None = None
    names: list[str] = field(default_factory=list)
    part: str | None = None
    parent: str | None = None


class Broken(NamedTuple):
    """Stands for a row that cannot be read.

    Attributes:
        reason: Why it will be quarantined.
        detail: Where it is and what is wrong, without any text of it.
    """

    reason: Reason
    detail: str


class Place(NamedTuple):
    """Where a row lies: file (relative to the fixed part of the location) and position."""

    file: str
    number: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout of rows. A module of ``layouts`` has one or more; adding one is adding one such file.

    Attributes:
        kind: Its name in settings.
        title: What people call it.
        needs: What it is recognised by, for people.
        fits: Whether a row is of this layout.
        read: What a row says.
        assembly: How its records become conversations.
        beside: What the surroundings of a file say of each of its rows, as columns; arguments are the file and its name relative to the
            fixed part of the location.
        columns: The columns of `SCHEMA` of a Parquet file as expressions over its own, for layouts whose files can be read so; an
            expression is None where values must be looked at one by one.
    """

    kind: SourceKind
    title: str
    needs: str
    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], SourceSettings, Place], Record]
    assembly: Assembly = Assembly.WHOLE
    beside: Callable[[str, str], Mapping[str, Any]] | None = None
    columns: Callable[[Columns], Mapping[str, pl.Expr | None]] | None = None
