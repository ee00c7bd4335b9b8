"""From a source of chat logs to accepted conversations, their turns and their users.

What belongs here: reading a source (``sources``), judging its rows (``verdicts``), repairing and delivering them (``ingest``), clusters of
copied opening requests (``templates``), the user-message-and-reply view (``turns``) and the users behind them (``users``). What does not:
what a message *means* (``rlhi_dagster.feedback``), and anything about Dagster.

Every row of a source ends in exactly one place: accepted, quarantined under one `Reason`, or superseded by another row that says the same
and more.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a source row is quarantined; a row gets the first reason that applies, in this order."""

    UNREADABLE_ROW_GROUP = "unreadable_row_group"
    """A part of a Parquet file cannot be decoded; the detail says which row group, and which of its columns or rows."""
    UNREADABLE_JSON = "unreadable_json"
    """A line that is no JSON (or no UTF-8), or the end of a compressed file from where it is damaged."""
    MISTYPED_FIELD = "mistyped_field"
    """A row that is no object, or in which a field cannot be what it must be."""
    USER_FORGOTTEN = "user_forgotten"
    """The user was forgotten (`rlhi forget`). The row's conversation id is not kept."""
    MISSING_FIELD = "missing_field"
    """No conversation id, no message list, or no name of the model that replied (and no source setting `assumed_model`)."""
    NOT_A_LIST_OF_MESSAGES = "not_a_list_of_messages"
    """The message list is empty or has an entry that is no message."""
    UNKNOWN_ROLE = "unknown_role"
    """A message of a role that is none of the usual ones, or without a role."""
    NO_USER_MESSAGE = "no_user_message"
    """Nobody asks anything in words."""
    UNANSWERED_ONLY = "unanswered_only"
    """No user message has a reply."""
    INVALID_UNICODE = "invalid_unicode"
    """NUL or a Unicode noncharacter in a message, or more than one replacement character in twenty characters."""
    MESSAGE_TOO_LONG = "message_too_long"
    """A message longer than the source setting `max_message_characters`."""
    CONVERSATION_TOO_LONG = "conversation_too_long"
    """More messages than the source setting `max_messages`."""
    IMPOSSIBLE_TIMESTAMP = "impossible_timestamp"
    """A start before chat assistants were public (2022-11) or in the future."""
    TOXIC = "toxic"
    """The source flags the conversation as toxic and the source setting `drop_toxic` is on."""
    LANGUAGE = "language"
    """Not in one of the languages of the source setting `languages`."""
    DUPLICATE_CONVERSATION = "duplicate_conversation"
    """An earlier accepted row of the source has the same id, or the same messages from the same user."""


class Repair(StrEnum):
    """What was changed in the message list of an accepted conversation, in the order in which it is done."""

    CLEARED_TIME = "cleared_time"
    """An impossible time of a message was set to null."""
    DROPPED_SYSTEM = "dropped_system"
    """System messages were left out; the positions of the others are kept."""
    DROPPED_EMPTY = "dropped_empty"
    """Messages without text, or with thoughts only, were left out; the positions of the others are kept."""
    DROPPED_GREETING = "dropped_greeting"
    """What the assistant says before the user does was left out."""
    DROPPED_UNANSWERED = "dropped_unanswered"
    """Closing user messages that nobody answered were left out: too long, too many or not legible, so no last word (`has_last_word`)."""
    MERGED_CONSECUTIVE = "merged_consecutive"
    """Consecutive messages of one role became one, under the position of the first."""
