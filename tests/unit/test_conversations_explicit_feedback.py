"""Explicit feedback of a source: on which reply it is, what is redacted, and that it is told once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from rlhi_dagster.base.tables import CONVERSATIONS, EXPLICIT_FEEDBACK
from rlhi_dagster.conversations.explicit_feedback import placed
from rlhi_dagster.conversations.redaction import RedactionSettings
from rlhi_dagster.conversations.sources.records import FEEDBACK, ROW_MESSAGES

START = datetime(2026, 10, 1, tzinfo=UTC)


def conversation(name: str, *kept: tuple[int, str]) -> dict[str, object]:
    messages = [
        {"message_id": f"{name}:{index}", "message_index": index, "role": role, "content": "x", "sent_at": None} for index, role in kept
    ]
    return {"conversation_id": name, "user_id": f"user of {name}", "month": "2026-10", "messages": messages}


ROWS = pl.DataFrame(
    {
        "conversation_id": ["a", "b"],
        "messages": [
            [
                {"role": role, "content": "x", "sent_at": None, "id": f"m{i}"}
                for i, role in enumerate(["system", "user", "assistant", "assistant"])
            ],
            [{"role": role, "content": "x", "sent_at": None, "id": name} for role, name in (("user", None), ("assistant", "m9"))],
        ],
    },
    schema={"conversation_id": pl.String(), "messages": ROW_MESSAGES},
)
KEPT = pl.DataFrame(
    [conversation("a", (1, "user"), (2, "assistant")), conversation("b", (0, "user"), (1, "assistant"))],
    schema={name: CONVERSATIONS.schema[name] for name in ("conversation_id", "user_id", "month", "messages")},
)


def feedback(*given: tuple[str, str, float | None, str | None]) -> pl.DataFrame:
    rows = [{"target": t, "kind": k, "value": v, "text": text, "given_at": START, "giver": "end_user"} for t, k, v, text in given]
    return pl.DataFrame(rows, schema=FEEDBACK)


def test_feedback_is_on_the_reply_that_its_message_became_part_of() -> None:
    given = feedback(("m2", "thumb", 1.0, None), ("m3", "thumb", -1.0, None), ("m9", "edit", None, "y"), ("gone", "thumb", 1.0, None))
    found = placed(ROWS, KEPT, given, RedactionSettings(), None)
    assert found.schema == EXPLICIT_FEEDBACK.schema
    assert sorted(found.select("turn_id", "reply_id", "user_id", "kind", "value", "text").rows(), key=str) == [
        ("a:1", "a:2", "user of a", "thumb", -1.0, None),
        ("a:1", "a:2", "user of a", "thumb", 1.0, None),
        ("b:0", "b:1", "user of b", "edit", None, "y"),
    ]
    assert found["feedback_id"].is_unique().all()


def test_what_is_said_twice_counts_once_and_what_is_said_of_a_user_s_message_not_at_all() -> None:
    twice = feedback(("m9", "thumb", 1.0, None), ("m9", "thumb", 1.0, None), ("m1", "comment", None, "no reply"))
    assert placed(ROWS, KEPT, twice, RedactionSettings(), None)["reply_id"].to_list() == ["b:1"]
    later = twice.with_columns(given_at=pl.Series([START, START + timedelta(days=1), START]).cast(FEEDBACK["given_at"]))
    assert len(placed(ROWS, KEPT, later, RedactionSettings(), None)) == 2


def test_texts_are_redacted() -> None:
    found = placed(ROWS, KEPT, feedback(("m9", "comment", None, "ask ann@lee.org")), RedactionSettings(), None)
    assert found["text"].to_list() == ["ask <EMAIL>"]


def test_without_a_match_the_table_is_empty() -> None:
    assert placed(ROWS, KEPT, feedback(("gone", "thumb", 1.0, None)), RedactionSettings(), None).equals(EXPLICIT_FEEDBACK.empty())
