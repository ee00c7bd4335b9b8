"""Langfuse: its three ways out, a request counted once whichever of its rows are there, and what scores say of whom."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from tests.sources import read

TRACE: dict[str, Any] = {
    "id": "t1", "timestamp": "2026-10-01T10:00:00.000Z", "name": "chat", "userId": "cust-42", "sessionId": "s-9", "release": None,
    "version": None, "environment": "production", "tags": ["prod"], "bookmarked": False, "public": False, "input": "Summarise this ticket",
    "output": "Long text", "metadata": {}, "comments": [],
}  # fmt: skip
OBSERVATION: dict[str, Any] = {
    "id": "o1", "traceId": "t1", "traceName": "chat", "type": "GENERATION", "name": "answer", "startTime": "2026-10-01T10:00:00.100Z",
    "endTime": "2026-10-01T10:00:03.000Z", "environment": "production", "userId": "cust-42", "sessionId": "s-9", "level": "DEFAULT",
    "statusMessage": None, "modelId": "cm3x", "providedModelName": "gpt-5.6-luna", "modelParameters": {}, "usageDetails": {},
    "input": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Summarise this ticket"}],
    "output": {"role": "assistant", "content": "Long text"}, "metadata": {}, "tags": [], "parentObservationId": None, "comments": [],
}  # fmt: skip
SCORE: dict[str, Any] = {
    "id": "sc1", "timestamp": "2026-10-01T10:05:00Z", "project_id": "p", "environment": "production", "trace_id": "t1",
    "observation_id": None, "session_id": None, "dataset_run_id": None, "name": "user-feedback",
    "value": 0, "source": "API", "comment": "too long",
    "data_type": "NUMERIC", "string_value": None,
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def lines(*rows: object, name: str = "a.jsonl") -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))
        return tmp_path

    return lines


def snake(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name): value for name, value in row.items()}


SECOND = TRACE | {"id": "t2", "timestamp": "2026-10-01T10:02:00.000Z", "input": "Shorter", "output": "- a"}


def test_traces_of_a_session_are_a_conversation_and_scores_are_columns(write: Callable[..., Path]) -> None:
    scored = {"user-feedback": [0], "tone": ["formal"], "faithfulness": [0.7], "stars": None}
    found = read(write(SECOND | dict.fromkeys(scored), TRACE | scored))
    assert found.kind is SourceKind.LANGFUSE
    assert list(found.dialogues.values()) == [[("u", "Summarise this ticket"), ("a", "Long text"), ("u", "Shorter"), ("a", "- a")]]
    assert found.conversations.select("conversation_id", "assistant", "user_turns").rows() == [("s-9", "assumed", 2)]
    assert found.conversations["started_at"].item() == datetime(2026, 10, 1, 10, tzinfo=UTC)
    assert list(found.superseded) == ["a.jsonl#1"]
    assert found.feedback == [
        ("t1", "comment", None, "formal", "model"),
        ("t1", "rating", 0.7, None, "model"),
        ("t1", "thumb", -1.0, None, "end_user"),
    ]
    assert found.ids("s-9") == [None, "t1", None, "t2"]


def test_a_history_that_grows_in_traces_without_a_session_is_one_conversation(write: Callable[..., Path]) -> None:
    before = {"messages": [{"role": "user", "content": "Summarise this ticket"}]}
    after = {"messages": [*before["messages"], {"role": "assistant", "content": "Long text"}, {"role": "user", "content": "Shorter"}]}
    alone = {"sessionId": None, "user-feedback": [1]}
    found = read(write(TRACE | alone | {"input": before}, SECOND | alone | {"input": after}))
    assert list(found.dialogues.values()) == [[("u", "Summarise this ticket"), ("a", "Long text"), ("u", "Shorter"), ("a", "- a")]]
    assert found.conversations["conversation_id"].to_list() == ["t2"]
    assert [row[:3] for row in found.feedback] == [("t1", "thumb", 1.0), ("t2", "thumb", 1.0)]


def test_the_same_question_of_two_traces_without_a_session_is_two_conversations(write: Callable[..., Path]) -> None:
    rows = [
        TRACE | {"id": name, "sessionId": None, "userId": None, "timestamp": f"2026-10-0{day}T10:00:00Z"}
        for day, name in enumerate("ab", 1)
    ]
    assert read(write(*rows)).conversations["conversation_id"].sort().to_list() == ["a", "b"]


def test_a_trace_and_its_observations_are_one_request(write: Callable[..., Path]) -> None:
    steps = [
        OBSERVATION,
        OBSERVATION | {"id": "o2", "parentObservationId": "o1", "input": "Is this polite?", "output": "yes"},
        OBSERVATION | {"id": "o3", "parentObservationId": "o1", "type": "TOOL", "input": {"city": "x"}, "output": "rain"},
        OBSERVATION | {"id": "o4", "parentObservationId": "o1", "type": "SPAN"},
    ]
    found = read(write(*steps, TRACE))
    assert list(found.dialogues.values()) == [[("u", "Summarise this ticket"), ("a", "Long text")]]
    assert found.conversations["assistant"].to_list() == ["gpt-5.6-luna"]
    assert found.ingested.superseded.sort("row_id")["cause"].to_list() == [
        "another row of the same request",
        "another row of the same request",
        "a step of a trace (tool)",
        "a step of a trace (span)",
    ]


def test_older_observations_have_user_and_session_from_their_trace(write: Callable[..., Path]) -> None:
    old = {name: value for name, value in snake(OBSERVATION).items() if name not in ("user_id", "session_id", "tags", "trace_name")}
    write(snake(TRACE) | {"input": None, "output": None}, name="traces/1.jsonl")
    write(snake(SECOND), name="traces/2.jsonl")
    write(old, name="observations/1.jsonl")
    found = read(write(SCORE, SCORE | {"id": "sc2", "trace_id": "t2", "value": 1, "comment": None}, name="scores/1.jsonl"))
    assert list(found.dialogues.values()) == [[("u", "Summarise this ticket"), ("a", "Long text"), ("u", "Shorter"), ("a", "- a")]]
    assert found.conversations["conversation_id"].to_list() == ["s-9"]
    assert sorted(found.superseded.values()) == [
        "a later row repeats and continues it",
        "a score",
        "a score",
        "another row of the same request",
    ]
    # The score is on the trace, and the reply is the observation's.
    assert found.feedback == [("o1", "thumb", -1.0, "too long", "end_user"), ("t2", "thumb", 1.0, None, "end_user")]


def test_observations_alone_are_read_from_the_outermost_that_has_words(write: Callable[..., Path]) -> None:
    root = OBSERVATION | {"id": "root", "type": "SPAN", "input": {"ticket_id": 7}, "output": None, "providedModelName": None}
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "lookup", "arguments": "{}"}}]}
    first = OBSERVATION | {"id": "g1", "parentObservationId": "root", "output": call}
    second = first | {"id": "g2", "startTime": "2026-10-01T10:00:02Z", "output": "Long text"}
    second["input"] = [*first["input"], call, {"role": "tool", "name": "lookup", "content": "42"}]
    found = read(write(first, root, second, SCORE | {"observation_id": "root"}))
    assert [text for _, text in next(iter(found.dialogues.values()))] == [
        "Summarise this ticket",
        "[tool call: lookup]\n\n[tool result: lookup]\n\nLong text",
    ]
    assert found.conversations.select("assistant", "started_at").row(0) == (
        "gpt-5.6-luna",
        datetime(2026, 10, 1, 10, 0, 0, 100_000, tzinfo=UTC),
    )
    assert [row[0] for row in found.feedback] == ["g2"]


def test_a_score_on_a_step_that_is_not_exported_is_on_its_trace(write: Callable[..., Path]) -> None:
    by_api = {"name": "thumb", "source": "API", "dataType": "BOOLEAN", "value": True, "timestamp": None}
    subject = {"kind": "observation", "id": "elsewhere", "traceId": "t1"}
    found = read(write(TRACE, SCORE | {"observation_id": "elsewhere"}, by_api | {"subject": subject}))
    assert [row[:3] for row in found.feedback] == [("t1", "thumb", -1.0), ("t1", "thumb", 1.0)]


def test_pages_of_the_api(write: Callable[..., Path]) -> None:
    by_api = {
        "projectId": "p",
        "createdAt": "2026-10-02T00:00:00Z",
        "observations": ["o1"],
        "scores": ["sc1"],
        "latency": 2.5,
        "htmlPath": "/x",
    }
    page = {"data": [TRACE | by_api], "meta": {"page": 1, "limit": 50, "totalItems": 1, "totalPages": 1}}
    camel = {
        "id": "c",
        "timestamp": "2026-10-02T00:00:00Z",
        "name": "output",
        "source": "ANNOTATION",
        "observationId": None,
        "comment": None,
    }
    scores = [
        camel | {"traceId": "t1", "dataType": "CORRECTION", "value": 0, "stringValue": "Three bullets"},
        camel | {"dataType": "CORRECTION", "value": '{"role": "assistant", "content": "Two"}', "subject": {"kind": "trace", "id": "t1"}},
        camel | {"name": "user_feedback", "dataType": "BOOLEAN", "value": True, "source": "API", "subject": {"kind": "trace", "id": "t1"}},
        camel | {"name": "how was it?", "dataType": "NUMERIC", "value": 4, "source": "API", "subject": {"kind": "session", "id": "s-9"}},
    ]
    write(page, name="traces.json")
    found = read(write({"data": scores, "meta": {"limit": 50, "cursor": "x"}}, name="scores.json"))
    assert list(found.dialogues.values()) == [[("u", "Summarise this ticket"), ("a", "Long text")]]
    assert found.feedback == [
        ("t1", "edit", None, "Three bullets", "staff"),
        ("t1", "edit", None, "Two", "staff"),
        ("t1", "thumb", 1.0, None, "end_user"),
    ]


def test_a_trace_by_itself_has_its_scores_and_comments_within(write: Callable[..., Path]) -> None:
    inner = {"name": "thumbs", "source": "API", "dataType": "CATEGORICAL", "value": 1, "stringValue": "bad", "comment": None}
    note = {"id": "x", "content": "asked the customer", "author_user_id": "u", "created_at": "2026-10-02T00:00:00Z"}
    found = read(write(TRACE | {"scores": [inner, {"name": "thumbs"}, "sc1"], "comments": [note]}))
    assert found.feedback == [("t1", "comment", None, "asked the customer", "staff"), ("t1", "thumb", -1.0, None, "end_user")]


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ({"value": 1}, ("thumb", 1.0, "too long", "end_user")),
        ({"value": -1}, ("thumb", -1.0, "too long", "end_user")),
        ({"value": "1"}, ("thumb", 1.0, "too long", "end_user")),
        ({"value": 0.5}, ("rating", 0.5, "too long", "end_user")),
        ({"value": 1, "data_type": "BOOLEAN", "string_value": "True"}, ("thumb", 1.0, "too long", "end_user")),
        ({"value": 3, "data_type": "CATEGORICAL", "string_value": "Thumbs down"}, ("thumb", -1.0, "too long", "end_user")),
        ({"value": 0, "data_type": "CATEGORICAL", "string_value": "👍"}, ("thumb", 1.0, "too long", "end_user")),
        ({"value": 0, "data_type": "CATEGORICAL", "string_value": "meh"}, ("comment", None, "meh\ntoo long", "end_user")),
        ({"value": None, "data_type": "TEXT", "string_value": "no bullets"}, ("comment", None, "no bullets\ntoo long", "end_user")),
        ({"name": "User Feedback"}, ("thumb", -1.0, "too long", "end_user")),
        ({"name": "stars", "value": 1, "comment": None}, ("rating", 1.0, None, "end_user")),
        ({"source": "ANNOTATION"}, ("thumb", -1.0, "too long", "staff")),
        ({"name": "hallucination", "value": 1, "source": "EVAL"}, ("rating", 1.0, "too long", "model")),
        ({"value": None, "comment": ""}, None),
    ],
)
def test_what_a_score_says(score: dict[str, object], says: tuple[object, ...] | None, write: Callable[..., Path]) -> None:
    found = read(write(SCORE | score, TRACE))
    assert [row[1:] for row in found.feedback] == ([] if says is None else [says])


def test_a_score_may_be_called_like_a_column(write: Callable[..., Path]) -> None:
    found = read(write(TRACE | {"language": ["English"], "toxic": [0.1], "model": [1], "date": None}))
    assert found.conversations.select("language", "is_toxic", "assistant").rows() == [(None, None, "assumed")]
    assert len(found.feedback) == 3


def test_the_settings_name_the_thumb(write: Callable[..., Path]) -> None:
    location = write(SCORE | {"name": "zufrieden", "value": 1}, TRACE | {"Zufrieden": [0]})
    assert [row[1] for row in read(location).feedback] == ["rating", "rating"]
    found = read(location, thumbs=["zufrieden"]).feedback
    assert [row[1:3] + row[4:] for row in found] == [("thumb", -1.0, "end_user"), ("thumb", 1.0, "end_user")]


USER, ASSISTANT = "Summarise this ticket", "Long text"
SHAPES: dict[str, tuple[object, object]] = {
    "text": (USER, ASSISTANT),
    "messages as text": (json.dumps([{"role": "user", "content": USER}]), json.dumps({"role": "assistant", "content": ASSISTANT})),
    "OpenAI": (
        {"messages": [{"role": "user", "content": USER}]},
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": ASSISTANT}}]},
    ),
    "OpenAI's responses": (
        {"instructions": "Be kind.", "input": [{"role": "user", "content": [{"type": "input_text", "text": USER}]}]},
        {"output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "phase": "commentary", "content": [{"type": "output_text", "text": "Let me see"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ASSISTANT}]},
        ]},
    ),
    "Anthropic": (
        {"system": "Be kind.", "messages": [{"role": "user", "content": [{"type": "text", "text": USER}]}]},
        {"type": "message", "role": "assistant", "content": [{"type": "thinking", "thinking": "h"}, {"type": "text", "text": ASSISTANT}]},
    ),
    "Gemini": (
        {"config": {"system_instruction": "Be kind."}, "contents": [{"role": "user", "parts": [{"text": USER}]}]},
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "h", "thought": True}, {"text": ASSISTANT}]}}]},
    ),
    "Gemini, content only": (
        {"contents": [{"parts": [{"text": USER}], "role": "user"}]},
        {"content": {"parts": [{"text": ASSISTANT}], "role": "model"}},
    ),
    "Gemini, text only": ({"contents": USER}, [{"text": ASSISTANT}]),
    "Vercel AI SDK": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": USER}]}]},
        {"text": ASSISTANT, "finishReason": "stop", "toolCalls": []},
    ),
    "Vercel AI SDK, interface": (
        [{"id": "1", "role": "user", "parts": [{"type": "text", "text": USER}]}],
        {"role": "assistant", "parts": [{"type": "step-start"}, {"type": "text", "text": ASSISTANT, "state": "done"}]},
    ),
    "LangChain": (
        {"messages": [[{"lc": 1, "id": ["langchain", "schema", "HumanMessage"], "kwargs": {"content": USER, "type": "human"}}]]},
        {"generations": [[{"text": ASSISTANT, "message": {"lc": 1, "id": ["langchain", "AIMessage"], "kwargs": {"content": ASSISTANT}}}]]},
    ),
    "LangChain, data": ([{"type": "human", "data": {"content": USER}}], {"type": "ai", "data": {"content": ASSISTANT}}),
    "LangChain, pairs": ({"input": [["system", "Be kind."], ["human", USER]]}, {"output": ASSISTANT}),
    "LangGraph": (
        {"messages": [{"type": "human", "content": USER}]},
        {"messages": [{"type": "human", "content": USER, "id": "a"}, {"type": "ai", "content": ASSISTANT, "id": "b"}]},
    ),
    "LangGraph, named node": ({"input": {"messages": [["user", USER]]}}, {"messages": [{"type": "ai", "content": ASSISTANT}]}),
    "a chain": ({"question": USER, "chat_history": []}, {"answer": ASSISTANT, "source_documents": [{"page_content": "x"}]}),
    "a function": ({"args": [USER], "kwargs": {}}, ASSISTANT),
    "a function with names": ({"args": [], "kwargs": {"query": USER, "top_k": 3}}, {"response": ASSISTANT, "usage": {}}),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_requests_and_replies(shape: str, write: Callable[..., Path]) -> None:
    request, reply = SHAPES[shape]
    assert list(read(write(TRACE | {"input": request, "output": reply})).dialogues.values()) == [[("u", USER), ("a", ASSISTANT)]]


def test_the_history_of_a_chain_is_before_its_question(write: Callable[..., Path]) -> None:
    history = [{"type": "human", "content": "Hello"}, {"type": "ai", "content": "Good day"}]
    found = read(write(TRACE | {"input": {"chat_history": history, "input": USER}}))
    assert list(found.dialogues.values()) == [[("u", "Hello"), ("a", "Good day"), ("u", USER), ("a", ASSISTANT)]]


def test_json_that_a_user_pastes_is_what_the_user_says(write: Callable[..., Path]) -> None:
    for given in ('{"port": 80}', {"question": '{"port": 80}'}):
        assert read(write(TRACE | {"input": given})).dialogues["s-9"][0] == ("u", '{"port": 80}')


def test_json_of_arguments_is_nobodys_words(write: Callable[..., Path]) -> None:
    assert list(read(write(TRACE | {"input": {"kwargs": '{"port": 80}'}})).rejected.values()) == [Reason.NO_USER_MESSAGE]


def test_pictures_and_tools_leave_marks(write: Callable[..., Path]) -> None:
    request = {
        "contents": [
            {"role": "user", "parts": [{"text": USER}, {"inlineData": {"mimeType": "image/png", "data": "x"}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "lookup", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "lookup", "response": {}}}]},
        ]
    }
    assert list(read(write(TRACE | {"input": request})).dialogues.values()) == [
        [("u", f"{USER}\n[image]"), ("a", "[tool call: lookup]\n\n[tool result]\n\nLong text")]
    ]


ODD: dict[str, tuple[dict[str, object], str]] = {
    "no words": ({"input": {"ticket_id": 7}, "output": {"done": True}}, "no_user_message"),
    "nothing": ({"input": None, "output": None}, "no_user_message"),
    "no time": ({"timestamp": "yesterday"}, "mistyped_field"),
    "a list of users": ({"userId": ["a", "b"]}, "mistyped_field"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_traces_are_quarantined_alone(name: str, write: Callable[..., Path]) -> None:
    odd, reason = ODD[name]
    found = read(write(TRACE | {"id": "odd", "sessionId": None} | odd, TRACE))
    assert list(found.rejected.values()) == [reason]
    assert list(found.dialogues.values()) == [[("u", USER), ("a", ASSISTANT)]]


def test_a_trace_delivered_twice_and_a_session_without_text(write: Callable[..., Path]) -> None:
    session = {"id": "s-9", "createdAt": "2026-10-01T10:00:00Z", "userIds": ["cust-42"], "countTraces": 1}
    found = read(write(TRACE | {"thumb": [1]}, TRACE | {"thumb": [1]}, session))
    assert list(found.dialogues.values()) == [[("u", USER), ("a", ASSISTANT)]]
    assert sorted(found.superseded.values()) == ["a session's counts", "another row of the same request"]
    assert len(found.feedback) == 1


def test_blank_names_and_json_text_in_parquet(tmp_path: Path) -> None:
    row = snake(TRACE) | {
        "input": json.dumps({"messages": [{"role": "user", "content": USER}]}),
        "session_id": "",
        "user_id": "",
        "metadata": "{}",
    }
    pl.DataFrame([row | {"comments": None}]).drop("comments", "release", "version").write_parquet(tmp_path / "a.parquet")
    found = read(tmp_path)
    assert list(found.dialogues.values()) == [[("u", USER), ("a", ASSISTANT)]]
    assert found.conversations["conversation_id"].to_list() == ["t1"]
