"""Chat completions as request and response, batches, stored completions: one conversation from requests that repeat their history."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import polars as pl
import pytest
from hypothesis import strategies as st

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings
from rlhi_dagster.conversations.sources.assembly import CONTINUED, PART
from rlhi_dagster.conversations.sources.cells import MistypedError
from rlhi_dagster.conversations.sources.layouts import LAYOUTS
from rlhi_dagster.conversations.sources.layouts.api_requests import FAILED, NO_CHAT, UNANSWERED
from rlhi_dagster.conversations.sources.records import Place
from tests.sources import START, completion, lines, read, talk, turns

Row = dict[str, Any]


def pair(name: str, *texts: str, created: int = 1_790_000_000, **request: object) -> tuple[Row, Row]:
    """A request with its history, and the response."""
    return {"model": "m", "messages": talk(*texts[:-1]), **request}, completion(name, texts[-1], created)


def test_requests_that_repeat_their_history_are_one_conversation(tmp_path: Path) -> None:
    first, second, other = pair("r1", "q", "a"), pair("r2", "q", "a", "shorter", "b", created=1_790_000_060), pair("r3", "else", "c")
    found = read(tmp_path, *({"request": request, "response": response} for request, response in (first, second, other)))
    assert found.kind is SourceKind.OPENAI
    assert found.dialogues == {"r2": turns("q", "a", "shorter", "b"), "r3": turns("else", "c")}
    assert found.superseded == {"a.jsonl#0": CONTINUED}
    assert found.ids("r2") == [None, "r1", None, "r2"]
    assert found.row("r2")["started_at"] == datetime.fromtimestamp(1_790_000_000, UTC)
    assert [time.timestamp() for time in found.times("r2") if time] == [1_790_000_000] * 2 + [1_790_000_060] * 2
    assert found.row("r2")["assistant"] == "m"


REQUEST, RESPONSE = pair("r", "q", "a", user="u")
SHAPES: dict[str, Row] = {
    "request and response": {"request": REQUEST, "response": RESPONSE},
    "as JSON text": {"request": json.dumps(REQUEST), "response": json.dumps(RESPONSE)},
    "input and output": {"input": REQUEST, "output": RESPONSE},
    "bare lists": {"input": REQUEST["messages"], "output": {"role": "assistant", "content": "a"}, "model": "m", "user": "u", "id": "r"},
    "body": {"body": REQUEST, "response": RESPONSE},
    "bodies": {"request_body": REQUEST, "response_body": RESPONSE},
    "with method and status": {
        "request": {"method": "POST", "url": "/v1/chat/completions", "body": REQUEST},
        "response": {"status_code": 200, "body": RESPONSE},
    },
    "beside each other": {**REQUEST, "response": RESPONSE},
    "response as text": {**REQUEST, "id": "r", "response": "a"},
    "choices": {**REQUEST, **RESPONSE},
    "a question as text": {"input": "q", "output": RESPONSE, "user": "u"},
    "Ollama's": {"request": REQUEST, "response": {"id": "r", "message": {"role": "assistant", "content": "a"}, "done": True}},
    "conversational prompt and completion": {
        "id": "r",
        "model": "m",
        "user": "u",
        "prompt": talk("q"),
        "completion": [{"role": "assistant", "content": "a"}],
    },
    "the reply twice": {"id": "r", "model": "m", "user": "u", "messages": talk("q", "a"), "completion": "a"},
    "prompt and completion": {"id": "r", "model": "m", "user": "u", "prompt": "q", "completion": "a"},
    "completions": {"request": {"model": "m", "prompt": "q", "user": "u"}, "response": {"id": "r", "choices": [{"index": 0, "text": "a"}]}},
    "content in parts": {
        "request": {**REQUEST, "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]},
        "response": {**RESPONSE, "choices": [{"message": {"role": "assistant", "content": [{"type": "text", "text": "a"}]}}]},
    },
    "safety_identifier": {"request": {**REQUEST, "user": None, "safety_identifier": "u"}, "response": RESPONSE},
    "metadata": {"request": {"model": "m", "messages": talk("q"), "metadata": {"user_id": "u"}}, "response": RESPONSE},
    "chunks": {
        "request": REQUEST,
        "response": [
            {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
            {"id": "r", "model": "m", "choices": [{"index": 1, "delta": {"content": "other"}}]},
            {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]},
            {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"id": "r", "model": "m", "choices": [], "usage": {"total_tokens": 3}},
        ],
    },
    "a stream as text": {
        "request": REQUEST,
        "response": 'data: {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n',
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_request_beside_its_response(name: str, tmp_path: Path) -> None:
    found = read(tmp_path, SHAPES[name])
    assert found.kind is SourceKind.OPENAI
    assert found.dialogues == {"r": turns("q", "a")}
    assert (found.row("r")["user_key"], found.row("r")["assistant"]) == ("u", "m")
    assert found.ids("r")[-1] == "r"


def test_nobody_is_told_apart_without_a_session_but_by_user_and_history(tmp_path: Path) -> None:
    rows = [pair("r1", "hi", "hello", user="u"), pair("r2", "hi", "hello", "more", "b", user="v"), pair("r3", "hi", "good day", user="u")]
    found = read(tmp_path, *({"request": request, "response": response} for request, response in rows))
    assert set(found.dialogues) == {"r1", "r2", "r3"}


def test_requests_of_a_session_that_depart_from_each_other_are_branches(tmp_path: Path) -> None:
    metadata = {"session_id": "s"}
    rows = [
        pair("r1", "q", "a", metadata=metadata),
        pair("r2", "q", "a", "x", "b", metadata=metadata, created=1_790_000_001),
        pair("r3", "q", "a", "y", "c", metadata=metadata, created=1_790_000_002),
        pair("r4", "q", "d", metadata=metadata, created=1_790_000_003),
    ]
    found = read(tmp_path, *({"request": request, "response": response} for request, response in rows))
    assert found.dialogues == {"s": turns("q", "d")}
    assert set(found.superseded) == {"a.jsonl#0", "a.jsonl#1", "a.jsonl#2"}
    assert found.feedback == [("r4", "regeneration", None, "a", "end_user")]


def test_sessions_of_one_request_are_joined_by_their_history(tmp_path: Path) -> None:
    rows = [pair("r1", "q", "a"), pair("r2", "q", "a", "x", "b")]
    found = read(tmp_path, *({"session_id": f"made-up-{n}", "request": request, "response": r} for n, (request, r) in enumerate(rows)))
    assert found.dialogues == {"made-up-1": turns("q", "a", "x", "b")}


FAILURES: dict[str, Row] = {
    "an error": {"request": REQUEST, "response": {"error": {"message": "rate limit", "type": "requests"}}},
    "an error beside": {"request": REQUEST, "response": None, "error": "timed out"},
    "a status": {"request": REQUEST, "response": {"status_code": 500, "body": "oh no"}},
    "a status as text": {"request": REQUEST, "response": RESPONSE, "status": "error"},
    "cut off by the client": {"request": REQUEST, "response": RESPONSE, "status": "cancelled"},
}


@pytest.mark.parametrize("name", FAILURES)
def test_failed_requests_are_no_replies(name: str, tmp_path: Path) -> None:
    sound = {"request": pair("s", "p", "b")[0], "response": completion("s", "b"), "error": {"code": None}, "status": "ok"}
    found = read(tmp_path, sound, FAILURES[name])
    assert found.dialogues == {"s": turns("p", "b")}
    assert found.superseded == {"a.jsonl#1": FAILED}


def test_tools_pictures_and_thoughts(tmp_path: Path) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    called = {"request": {"messages": asked}, "response": completion("r1", None, tool_calls=calls)}
    history = [*asked, {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "tool_call_id": "c", "content": "3 C"}]
    answered = {"request": {"messages": history}, "response": completion("r2", "<think>hm</think>cold", 1_790_000_001)}
    found = read(tmp_path, called, answered)
    assert found.dialogues == {"r2": turns("[image]", "[tool call: weather]\n\n[tool result]\n\ncold")}
    assert found.superseded == {"a.jsonl#0": CONTINUED}


def test_a_tool_call_in_pieces_is_the_same_as_in_the_history(tmp_path: Path) -> None:
    pieces = [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "w", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ]
    called = {"request": {"messages": talk("q")}, "response": [{"id": "r1", "choices": [{"index": 0, "delta": each}]} for each in pieces]}
    calls = [{"id": "c", "function": {"name": "w", "arguments": "{}"}}]
    history = [*talk("q"), {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "content": "1"}]
    found = read(tmp_path, called, {"request": {"messages": history}, "response": completion("r2", "a")})
    assert list(found.dialogues) == ["r2"]


def asked_in_batch(name: str, *texts: str) -> Row:
    return {
        "custom_id": name,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "user": "u", "messages": talk(*texts)},
    }


def replied_in_batch(name: str, text: str, **changes: object) -> Row:
    body = completion(f"chatcmpl-{name}", text)
    return {
        "id": f"batch-{name}",
        "custom_id": name,
        "response": {"status_code": 200, "request_id": "x", "body": body},
        "error": None,
        **changes,
    }


def test_a_batch_is_joined_by_custom_id(tmp_path: Path) -> None:
    lines(tmp_path / "input.jsonl", [*(asked_in_batch(f"r{n}", f"q{n}") for n in range(4))])
    failed = replied_in_batch("r1", "", response={"status_code": 400, "body": {"error": {"message": "no"}}})
    expired = replied_in_batch("r2", "", response=None, error={"code": "batch_expired", "message": "no"})
    lines(tmp_path / "output.jsonl", [replied_in_batch("r0", "a0"), failed, expired, replied_in_batch("r9", "a9")])
    found = read(tmp_path)
    assert found.kind is SourceKind.OPENAI
    assert found.dialogues == {"batch-r0": turns("q0", "a0")}
    assert (found.row("batch-r0")["user_key"], found.ids("batch-r0")) == ("u", [None, "chatcmpl-r0"])
    assert found.superseded == {
        "input.jsonl#0": PART,
        "input.jsonl#1": PART,
        "input.jsonl#2": PART,
        "input.jsonl#3": UNANSWERED,
        "output.jsonl#1": FAILED,
        "output.jsonl#2": FAILED,
    }
    assert found.rejected == {"output.jsonl#3": Reason.NO_USER_MESSAGE}


def test_what_failed_in_one_batch_and_was_asked_again_has_the_later_reply(tmp_path: Path) -> None:
    failed = replied_in_batch("r1", "", response=None, error={"code": "batch_expired", "message": "no"})
    found = read(tmp_path, asked_in_batch("r1", "q"), failed, asked_in_batch("r1", "q"), replied_in_batch("r1", "a"))
    assert (found.dialogues, set(found.superseded)) == ({"batch-r1": turns("q", "a")}, {"a.jsonl#0", "a.jsonl#1", "a.jsonl#2"})


def test_batches_that_share_their_ids_are_not_mixed_up(tmp_path: Path) -> None:
    lines(tmp_path / "input.jsonl", [asked_in_batch("1", "q"), asked_in_batch("2", "p"), asked_in_batch("2", "p")])
    lines(tmp_path / "second_input.jsonl", [asked_in_batch("1", "other")])
    lines(tmp_path / "output.jsonl", [replied_in_batch("1", "a"), replied_in_batch("2", "b")])
    found = read(tmp_path)
    assert found.dialogues == {"batch-2": turns("p", "b")}
    assert found.superseded == {
        "input.jsonl#0": UNANSWERED,
        "input.jsonl#1": PART,
        "input.jsonl#2": PART,
        "second_input.jsonl#0": UNANSWERED,
    }
    assert list(found.rejected) == ["output.jsonl#0"]


def test_a_batch_without_the_other_file(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "o").mkdir()
    found = read(tmp_path / "i", asked_in_batch("r1", "q"))
    assert (found.kind, found.superseded) == (SourceKind.OPENAI, {"a.jsonl#0": UNANSWERED})
    found = read(tmp_path / "o", replied_in_batch("r1", "a"))
    assert (found.kind, list(found.rejected.values())) == (SourceKind.OPENAI, [Reason.NO_USER_MESSAGE])


def test_stored_completions_are_joined_with_the_pages_of_their_messages(tmp_path: Path) -> None:
    listed = [completion("chatcmpl-A", "a") | {"metadata": {"user_id": "u"}}, completion("chatcmpl-B", "b")]
    (tmp_path / "completions.json").write_text(json.dumps({"object": "list", "data": listed, "has_more": False}))
    parts = [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {}}]
    pages = [
        [{"id": "chatcmpl-A-2", "role": "user", "content": "more", "content_parts": None}],
        [
            {"id": "chatcmpl-A-0", "role": "user", "content": None, "content_parts": parts},
            {"id": "chatcmpl-A-1", "role": "assistant", "content": "x"},
        ],
    ]
    for number, page in enumerate(pages):
        whole = {"object": "list", "data": page, "first_id": page[0]["id"], "last_id": page[-1]["id"], "has_more": number == 0}
        (tmp_path / f"messages-{number}.json").write_text(json.dumps(whole))
    found = read(tmp_path)
    assert found.kind is SourceKind.OPENAI
    assert found.dialogues == {"chatcmpl-A": turns("q\n[image]", "x", "more", "a")}
    assert found.row("chatcmpl-A")["user_key"] == "u"
    assert set(found.superseded.values()) == {PART}
    assert list(found.rejected) == ["completions.json#1"]


def test_requests_that_are_none_of_a_chat_are_noted(tmp_path: Path) -> None:
    embedded = {"object": "list", "data": [{"object": "embedding", "embedding": [0.1]}], "model": "e"}
    rows = [
        {"request": REQUEST, "response": RESPONSE},
        {"request": {"model": "e", "input": ["q"]}, "response": embedded},
        {"url": "https://images.example/v1/embeddings", "request": {"model": "e", "input": "q"}, "response": {"ok": 1}},
    ]
    found = read(tmp_path, *rows)
    assert found.dialogues == {"r": turns("q", "a")}
    assert set(found.superseded.values()) == {NO_CHAT}


def test_rows_of_parquet_are_read_as_lines_are(tmp_path: Path) -> None:
    rows = [{"request": json.dumps(r), "response": json.dumps(a)} for r, a in (pair("r1", "q", "a"), pair("r2", "q", "a", "x", "b"))]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    found = read(tmp_path)
    assert (found.kind, found.dialogues) == (SourceKind.OPENAI, {"r2": turns("q", "a", "x", "b")})


NOT_OF_THIS_LAYOUT = {
    "messages alone": {"id": "x", "messages": talk("q", "a")},
    "a data set of instructions": {"instruction": "i", "input": "q", "output": "a"},
    "mail": {"body": "q", "result": "a"},
    "messages without a reply": {"id": "x", "messages": talk("q", "a"), "response": None},
}


@pytest.mark.parametrize("name", NOT_OF_THIS_LAYOUT)
def test_what_is_something_else(name: str, tmp_path: Path) -> None:
    row = NOT_OF_THIS_LAYOUT[name]
    if "messages" in row:
        assert read(tmp_path, row).kind is SourceKind.MESSAGES
    else:
        with pytest.raises(ValueError, match="Looked for"):
            read(tmp_path, row)


ODD: list[object] = [
    {"request": 3, "response": []},
    {"request": [], "response": {"choices": None}},
    {"request": {"messages": [None, 3, "q"]}, "response": {"choices": [None]}},
    {"request": {"messages": "q"}, "response": {"choices": [{"message": "a"}]}},
    {"request": "q", "response": {"choices": [{"delta": None}]}},
    {"request": {"messages": [{"role": None, "content": {}}]}, "response": {"output": [None], "id": {}}},
    {"custom_id": [], "body": None, "url": 3},
    {"custom_id": "c", "response": "x", "error": 0},
    {"id": "x-1", "role": 3, "content": None},
    {"response": "data: {", "request": "q"},
    {"response": ["data", {"type": "content_block_delta", "index": {}, "delta": {"text": 3}}], "request": "q"},
    {"response": {"status": {"a": []}, "error": [None], "choices": []}, "request": {"created": {}}},
]


KINDS = (SourceKind.OPENAI, SourceKind.ANTHROPIC, SourceKind.OPENAI_RESPONSES, SourceKind.LITELLM, SourceKind.HELICONE)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_rows_are_told_and_spoil_no_others(kind: SourceKind, tmp_path: Path) -> None:
    sound = {"request": REQUEST, "response": RESPONSE, "request_body": REQUEST, "response_body": RESPONSE, "messages": REQUEST["messages"]}
    found = read(tmp_path, sound, *ODD, kind=kind)
    assert turns("q", "a") in found.dialogues.values()
    assert "a.jsonl#0" not in found.rejected


NAMES = st.sampled_from(
    [
        "request", "response", "messages", "choices", "message", "delta", "content", "role", "output", "input", "type", "data", "id",
        "body", "custom_id", "url", "error", "status", "metadata",
        "request_body", "response_body", "previous_response_id", "conversation", "index",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    ["user", "assistant", "message", "message_start", "content_block_delta", "response.completed", "a", "data: {}", "[{}]"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(row=st.dictionaries(NAMES, VALUES, max_size=8), kind=st.sampled_from(KINDS))
def test_any_row_is_read_or_told(row: Row, kind: SourceKind) -> None:
    source = SourceSettings(name="s", kind=kind, location="a", assumed_start=START)
    place = Place("a", 0)
    for layout in LAYOUTS.values():
        layout.fits(row)
    with contextlib.suppress(MistypedError):
        found = LAYOUTS[kind].read(row, source, place)
        assert all(isinstance(message.text, str) for message in found.messages or ())
