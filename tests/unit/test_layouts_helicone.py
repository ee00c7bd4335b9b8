"""Helicone's rows: bodies, properties, and the rating as the end user's thumb."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.assembly import CONTINUED
from rlhi_dagster.conversations.sources.layouts.api_requests import FAILED
from tests.sources import completion, read, talk, turns

Row = dict[str, Any]


def row(name: str, *texts: str, minute: int = 0, **changes: object) -> Row:
    """A row with the fields that matter and some that do not."""
    return {
        "request_id": name,
        "request_created_at": f"2026-10-01T10:{minute:02}:00.000Z",
        "request_body": {"model": "m", "messages": talk(*texts[:-1])},
        "request_path": "https://api.openai.com/v1/chat/completions",
        "request_user_id": "u",
        "request_properties": {"Helicone-Session-Id": "s", "Helicone-Session-Path": "/chat"},
        "request_model": "m",
        "response_id": f"response of {name}",
        "response_created_at": f"2026-10-01T10:{minute:02}:05.000Z",
        "response_body": completion(f"chatcmpl-{name}", texts[-1]),
        "response_status": 200,
        "response_model": "m-2026",
        "feedback_created_at": None,
        "feedback_id": None,
        "feedback_rating": None,
        "scores": {"accuracy": {"value": 1}},
        "properties": {},
        **changes,
    }


def test_a_session_and_its_thumbs(tmp_path: Path) -> None:
    rated = {"feedback_rating": False, "feedback_created_at": "2026-10-01T11:00:00Z"}
    found = read(tmp_path, row("r1", "q", "a", **rated), row("r2", "q", "a", "x", "b", minute=1, feedback_rating=True))
    assert found.kind is SourceKind.HELICONE
    assert found.dialogues == {"s": turns("q", "a", "x", "b")}
    assert found.superseded == {"a.jsonl#0": CONTINUED}
    assert found.ids("s") == [None, "r1", None, "r2"]
    assert found.times("s") == [datetime(2026, 10, 1, 10, minute, second, tzinfo=UTC) for minute in (0, 1) for second in (0, 5)]
    assert (found.row("s")["user_key"], found.row("s")["assistant"]) == ("u", "m-2026")
    assert found.feedback == [("r1", "thumb", -1.0, None, "end_user"), ("r2", "thumb", 1.0, None, "end_user")]
    assert found.given_at == [datetime(2026, 10, 1, 11, tzinfo=UTC), None]


def test_the_example_of_few_fields(tmp_path: Path) -> None:
    short = {
        "request_id": "r1",
        "request_user_id": "cust-42",
        "request_properties": {"Helicone-Session-Id": "s-9"},
        "feedback_rating": False,
    }
    bodies = {"request_body": {"messages": talk("q")}, "response_body": {"choices": [{"message": {"content": "a"}}]}}
    found = read(tmp_path, short | bodies)
    assert (found.dialogues, found.row("s-9")["user_key"], len(found.feedback)) == ({"s-9": turns("q", "a")}, "cust-42", 1)


def test_without_a_session_the_history_tells_and_thumbs_keep_their_replies(tmp_path: Path) -> None:
    none = {"request_properties": {}}
    rows = [row("r1", "q", "a", feedback_rating=True, **none), row("r2", "q", "a", "x", "b", minute=1, **none)]
    found = read(tmp_path, *rows)
    assert found.dialogues == {"r2": turns("q", "a", "x", "b")}
    assert found.ids("r2") == [None, "r1", None, "r2"]
    assert [target for target, *_ in found.feedback] == ["r1"]


def test_a_table_of_texts(tmp_path: Path) -> None:
    """As its warehouse has it: bodies and properties as JSON text, the user and the status under other names."""
    texts = {name: json.dumps(row("r1", "q", "a")[name]) for name in ("request_body", "response_body")}
    other = {"user_id": "u", "status": 200, "model": "m", "properties": json.dumps({"Helicone-Session-Id": "s"})}
    pl.DataFrame([{"request_id": "r1", "request_created_at": "2026-10-01 10:00:00", **texts, **other}]).write_parquet(
        tmp_path / "a.parquet"
    )
    found = read(tmp_path)
    assert (found.kind, found.dialogues) == (SourceKind.HELICONE, {"s": turns("q", "a")})
    assert found.row("s")["user_key"] == "u"


@pytest.mark.parametrize("status", [500, 429, "404", -3, -2])
def test_failed_requests_keep_their_feedback(status: object, tmp_path: Path) -> None:
    failed = row("f", "q", "a", response_status=status, feedback_rating=False)
    found = read(tmp_path, row("r", "p", "b"), failed)
    assert (found.dialogues, found.superseded, len(found.feedback)) == ({"s": turns("p", "b")}, {"a.jsonl#1": FAILED}, 1)


STREAMS: dict[str, Row] = {
    "chunks": {"response_body": {"streamed_data": "", "choices": [{"delta": {"content": "a"}, "index": 0}]}},
    "text": {"response_body": 'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: [DONE]'},
    "Anthropic's": {
        "request_body": {"messages": talk("q"), "system": "s"},
        "response_body": [
            {"type": "message_start", "message": {"id": "x", "model": "c"}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        ],
    },
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, row("r", "q", "a", **STREAMS[name])).dialogues == {"s": turns("q", "a")}


def test_odd_rows_are_told(tmp_path: Path) -> None:
    elsewhere = row("b1", "q", "a", request_body={}, response_body=None, signed_body_url="https://x")
    rated = row("b2", "q", "a", feedback_rating="maybe")
    found = read(tmp_path, row("r", "q", "a"), elsewhere, rated, row("b3", "p", "b", request_properties="no JSON", properties=None))
    assert found.rejected == dict.fromkeys(("a.jsonl#1", "a.jsonl#2"), Reason.MISTYPED_FIELD)
    assert "signed_body_url" in found.details["a.jsonl#1"]
    assert set(found.dialogues) == {"s", "b3"}
