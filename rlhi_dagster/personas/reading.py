"""What a language model reads of a user, update by update.

What belongs here: cutting a user's messages into updates, and how a message is shown. What does not: what is asked of the model
(``chat_writer``).

A user's messages are read in the order of time, and a new update begins with the message that opens one conversation more than fit into
the update before. So which messages an update has is known when the next one begins, later conversations change no earlier update, and
whatever is known at the moment of a message comes from updates that hold earlier messages only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import polars as pl

from rlhi_dagster.engines.questions import Block, shortened

SHOWN_MESSAGES = 40
"""Of an update with more, the latest are shown."""
SHOWN_CHARACTERS = {"message": 1_500, "reply": 300}
"""Longer texts are shown with their middle left out, which is marked."""


@dataclass(frozen=True, slots=True)
class Message:
    """A user message in an update.

    Attributes:
        turn_id: The message.
        conversation_id: Its conversation.
        asked_at: Its time.
        text: Its text.
        answered: The reply that it reacts to; ``None`` for an opening request.
    """

    turn_id: str
    conversation_id: str
    asked_at: datetime
    text: str
    answered: str | None


def updates(turns: pl.LazyFrame, conversations_per_update: int) -> Iterator[dict[str, list[Message]]]:
    """The first update of every user, then the second of those who have one, and so on.

    Args:
        turns: Rows of ``tables.TURNS``.
        conversations_per_update: Conversations that begin in an update; the last update may have fewer.

    Yields:
        User to messages in the order of time.
    """
    conversation = pl.col("conversation_id")
    read = (
        turns.sort("conversation_id", "turn")
        .with_columns(answered=pl.col("reply").shift(1).over("conversation_id"))
        .select("user_id", "turn_id", "conversation_id", "asked_at", "turn", "prompt", "answered")
        .sort("user_id", "asked_at", "conversation_id", "turn")
        .with_columns(begun=conversation.is_first_distinct().cum_sum().over("user_id"))
        .with_columns(update=(pl.col("begun") - 1) // conversations_per_update)
        .sort("update", "user_id", maintain_order=True)
        .select("update", "user_id", "turn_id", "conversation_id", "asked_at", "prompt", "answered")
        .collect()
    )
    for _, wave in groupby(read.iter_rows(), key=lambda row: row[0]):
        yield {user_id: [Message(*row[2:]) for row in rows] for user_id, rows in groupby(wave, key=lambda row: row[1])}


def shown(messages: list[Message]) -> list[Block]:
    """Numbered messages as the model reads them, with the replies that they react to and the conversations that they belong to."""
    numbers = {conversation_id: n for n, conversation_id in enumerate(dict.fromkeys(each.conversation_id for each in messages), 1)}
    return [_shown(n, numbers[message.conversation_id], message) for n, message in enumerate(messages, 1)]


def _shown(number: int, conversation: int, message: Message) -> Block:
    reply = [] if message.answered is None else [Block("answered", shortened(message.answered, SHOWN_CHARACTERS["reply"]))]
    said = Block("user", shortened(message.text, SHOWN_CHARACTERS["message"]))
    return Block("message", [*reply, said], {"number": number, "conversation": conversation})
