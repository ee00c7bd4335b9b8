"""What users and others say of replies outright: thumbs, ratings, comments, edits, regenerations, choices between drafts.

What belongs here: putting the feedback of a source to the replies of accepted conversations. What does not: which feedback a layout has
(``sources.layouts``), and what follows from it (``rlhi_dagster.preferences``).

Feedback names the message that it is about by the source's own id, or by where it is in the source's list (``feedback_file``). A reply that
was merged from several messages gets the feedback on any of them; feedback on a user's message is about no reply and is left out. The same
said twice counts once.
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.tables import EXPLICIT_FEEDBACK
from rlhi_dagster.conversations.redaction import Entities, RedactionSettings, redact


def placed(
    rows: pl.DataFrame, conversations: pl.DataFrame, feedback: pl.DataFrame, redaction: RedactionSettings, entities: Entities | None
) -> pl.DataFrame:
    """Feedback on the replies of some conversations (`tables.EXPLICIT_FEEDBACK`).

    Args:
        rows: ``conversation_id`` and ``messages`` (`records.ROW_MESSAGES`) of the rows that the conversations were made of.
        conversations: The conversations (`tables.CONVERSATIONS`).
        feedback: All feedback of the source (`records.FEEDBACK`).
        redaction: What is replaced in its texts.
        entities: Finds named entities, if they are to be replaced.
    """
    message = pl.col("messages").struct
    position = pl.int_range(pl.len(), dtype=pl.Int32).over("conversation_id").alias("message_index")
    messages = rows.select("conversation_id", "messages").explode("messages").select("conversation_id", position, message.field("id"))
    by_place = pl.format("{}:{}", "conversation_id", "message_index")
    named = pl.concat(
        messages.select("conversation_id", "message_index", target=name).drop_nulls("target").join(feedback, on="target")
        for name in (pl.col("id"), by_place)
    )
    if named.is_empty():
        return EXPLICIT_FEEDBACK.empty()
    kept = (
        conversations.select("conversation_id", "user_id", "month", "messages")
        .explode("messages")
        .select(
            "conversation_id",
            "user_id",
            "month",
            message.field("message_index"),
            message.field("role"),
            message.field("message_id").alias("reply_id"),
            message.field("message_id").shift().over("conversation_id").alias("turn_id"),
        )
        .sort("message_index")
    )
    found = (
        named.sort("message_index")
        .join_asof(kept, on="message_index", by="conversation_id", check_sortedness=False)
        .filter(pl.col("role") == "assistant")
    )
    text, _ = redact(found["text"], redaction, entities)
    found = found.with_columns(text.alias("text"))
    said = pl.struct("reply_id", "kind", "value", "text", "given_at", "giver")
    return EXPLICIT_FEEDBACK.conform(
        found.with_columns(said.struct.json_encode().alias("said"))
        .unique("said", keep="first", maintain_order=True)
        .with_columns(pl.format("{}/{}/{}", "reply_id", "kind", pl.col("said").hash(seed=0).cast(pl.String)).alias("feedback_id"))
    )
