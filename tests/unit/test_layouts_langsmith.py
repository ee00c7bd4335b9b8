"""LangSmith: runs of the SDK and of the bulk export, threads by metadata, and feedback, also of pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations.sources import SourceKind
from tests.sources import read

USER, ASSISTANT = "Summarise this ticket", "Long text"
THREAD = {"metadata": {"thread_id": "t-9", "user_id": "cust-42"}}
HUMAN = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain", "schema", "messages", "HumanMessage"],
    "kwargs": {"content": USER, "type": "human"},
}
AI = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain", "schema", "messages", "AIMessage"],
    "kwargs": {"content": ASSISTANT, "type": "ai"},
}
LLM: dict[str, Any] = {
    "id": "r1", "name": "ChatOpenAI", "run_type": "llm", "trace_id": "r1", "parent_run_id": None, "dotted_order": "x",
    "session_id": "project", "start_time": "2026-10-01T10:00:00",
    "end_time": "2026-10-01T10:00:03", "status": "success", "error": None, "tags": [],
    "inputs": {"messages": [{"role": "user", "content": USER}]},
    "outputs": {"choices": [{"message": {"role": "assistant", "content": ASSISTANT}}]},
    "extra": THREAD | {"invocation_params": {"model": "gpt-5.6-luna"}},
}  # fmt: skip
SECOND = LLM | {
    "id": "r2", "trace_id": "r2", "start_time": "2026-10-01T10:02:00", "end_time": None,
    "inputs": {"messages": [
        {"role": "user", "content": USER}, {"role": "assistant", "content": ASSISTANT}, {"role": "user", "content": "Shorter"},
    ]},
    "outputs": {"role": "assistant", "content": "- a"},
}  # fmt: skip
FEEDBACK: dict[str, Any] = {
    "id": "f1", "run_id": "r1", "trace_id": "r1", "session_id": "project", "key": "thumb", "score": 0, "value": None, "comment": "too long",
    "correction": {"output": "three bullets"}, "feedback_source": {"type": "api", "user_id": None, "metadata": {}},
    "created_at": "2026-10-01T10:05:00", "modified_at": "2026-10-01T10:05:00", "feedback_group_id": None, "comparative_experiment_id": None,
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def lines(*rows: object, name: str = "a.jsonl") -> Path:
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))
        return tmp_path

    return lines


def test_runs_of_a_thread_are_a_conversation_with_feedback(write: Callable[..., Path]) -> None:
    write(SECOND, LLM, name="runs.jsonl")
    found = read(write(FEEDBACK, name="feedback.jsonl"))
    assert found.kind is SourceKind.LANGSMITH
    assert list(found.dialogues.values()) == [[("u", USER), ("a", ASSISTANT), ("u", "Shorter"), ("a", "- a")]]
    assert found.conversations.select("conversation_id", "assistant").rows() == [("t-9", "gpt-5.6-luna")]
    times = [message["sent_at"] for message in found.conversations["messages"][0]]
    assert times == [datetime(2026, 10, 1, 10, *at, tzinfo=UTC) for at in ((0, 0), (0, 3), (2, 0))] + [None]
    assert sorted(found.superseded.values()) == ["a later row repeats and continues it", "feedback on a run"]
    assert found.feedback == [("r1", "edit", None, "three bullets", "end_user"), ("r1", "thumb", -1.0, "too long", "end_user")]


def test_feedback_without_fields_that_may_lack(write: Callable[..., Path]) -> None:
    bare = {"run_id": "r1", "key": "thumb", "score": 0, "comment": "too long", "feedback_source": {"type": "api"}}
    assert read(write(LLM, bare)).feedback == [("r1", "thumb", -1.0, "too long", "end_user")]


@pytest.mark.parametrize("name", ["session_id", "thread_id", "conversation_id"])
def test_the_thread_is_any_of_three_names_and_never_the_project(name: str, write: Callable[..., Path]) -> None:
    extra = {"metadata": {name: "t-9"}, "invocation_params": LLM["extra"]["invocation_params"]}
    other = LLM | {"id": "r3", "trace_id": "r3", "inputs": {"question": "Hello"}, "extra": {"metadata": {"ls_model_name": "m"}}}
    found = read(write(LLM | {"extra": extra}, SECOND | {"extra": extra}, other))
    assert found.conversations["conversation_id"].sort().to_list() == ["r3", "t-9"]


def test_a_trace_is_its_root_and_has_the_model_of_its_llm_run(write: Callable[..., Path]) -> None:
    root = LLM | {
        "id": "root",
        "trace_id": "root",
        "run_type": "chain",
        "extra": THREAD,
        "inputs": {"input": USER},
        "outputs": {"output": ASSISTANT},
    }
    within = {"trace_id": "root", "parent_run_id": "root"}
    llm = LLM | within | {"inputs": {"messages": [[HUMAN]]}, "outputs": {"generations": [[{"text": ASSISTANT, "message": AI}]]}}
    steps = [LLM | within | {"id": name, "run_type": name} for name in ("retriever", "prompt", "tool")]
    found = read(write(llm, *steps, root, FEEDBACK | {"correction": None}, FEEDBACK | {"run_id": "tool", "trace_id": "root", "score": 1}))
    assert list(found.dialogues.values()) == [[("u", USER), ("a", ASSISTANT)]]
    assert found.conversations["assistant"].to_list() == ["gpt-5.6-luna"]
    assert found.ingested.superseded["cause"].value_counts().sort("cause").rows() == [
        ("a step of a run (prompt)", 1),
        ("a step of a run (retriever)", 1),
        ("a step of a run (tool)", 1),
        ("another row of the same request", 1),
        ("feedback on a run", 2),
    ]
    assert [row[:3] for row in found.feedback] == [("root", "edit", None), ("root", "thumb", -1.0), ("root", "thumb", 1.0)]


def test_the_llm_run_speaks_where_the_root_has_no_dialogue(write: Callable[..., Path]) -> None:
    root = LLM | {
        "id": "root",
        "trace_id": "root",
        "run_type": "chain",
        "inputs": {"ticket_id": 7},
        "outputs": {"done": True},
        "extra": THREAD,
    }
    llm = LLM | {"trace_id": "root", "parent_run_id": "root", "extra": {"invocation_params": {"model": "m"}}}
    found = read(write(root, llm, FEEDBACK | {"run_id": "root", "trace_id": None, "correction": None}))
    assert list(found.dialogues.values()) == [[("u", USER), ("a", ASSISTANT)]]
    assert found.conversations["conversation_id"].to_list() == ["t-9"]
    assert [row[0] for row in found.feedback] == ["r1"]


def test_the_bulk_export(tmp_path: Path) -> None:
    lc = {"inputs": {"messages": [[HUMAN]]}, "outputs": {"generations": [[{"text": ASSISTANT, "message": AI}]]}}
    rows = [
        row
        | {name: json.dumps(row[name]) for name in ("inputs", "outputs", "extra")}
        | {"start_time": datetime.fromisoformat(row["start_time"])}
        for row in (LLM | lc, SECOND)
    ]
    pl.DataFrame(rows).drop("tags", "error", "end_time").write_parquet(tmp_path / "runs.parquet")
    found = read(tmp_path)
    assert found.kind is SourceKind.LANGSMITH
    assert list(found.dialogues.values()) == [[("u", USER), ("a", ASSISTANT), ("u", "Shorter"), ("a", "- a")]]
    assert found.conversations.select("conversation_id", "assistant").rows() == [("t-9", "gpt-5.6-luna")]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"score": True}, [("thumb", 1.0, "too long", "end_user")]),
        ({"score": None, "value": "good", "comment": None}, [("thumb", 1.0, None, "end_user")]),
        ({"key": "correctness", "score": 0.2, "feedback_source": {"type": "evaluator"}}, [("rating", 0.2, "too long", "model")]),
        ({"key": "note", "score": None, "feedback_source": {"type": "model"}}, [("comment", None, "too long", "model")]),
        ({"feedback_source": json.dumps({"type": "app"})}, [("thumb", -1.0, "too long", "end_user")]),
        ({"score": None, "comment": None, "correction": "four bullets"}, [("edit", None, "four bullets", "end_user")]),
        ({"score": None, "comment": None, "correction": {"score": 1}}, []),
        ({"run_id": None, "trace_id": None}, []),
    ],
)
def test_what_feedback_says(row: dict[str, object], says: list[tuple[object, ...]], write: Callable[..., Path]) -> None:
    assert [found[1:] for found in read(write(LLM, FEEDBACK | {"correction": None} | row)).feedback] == says


def test_replies_that_were_compared_are_a_choice(write: Callable[..., Path]) -> None:
    alone = {"extra": {"metadata": {"ls_model_name": "m"}}}
    other = LLM | alone | {"id": "r3", "trace_id": "r3", "outputs": {"output": "Short text"}}
    pair = FEEDBACK | {"key": "ranked_preference", "feedback_group_id": "g", "correction": None, "comment": None}
    tie = pair | {"feedback_group_id": "h", "score": 0.5}
    rows = [
        pair | {"run_id": "r1", "trace_id": "r1", "score": 0},
        pair | {"run_id": "r3", "trace_id": "r3", "score": 1},
        tie | {"run_id": "r1", "trace_id": "r1"},
        tie | {"run_id": "r3", "trace_id": "r3"},
    ]
    assert read(write(LLM | alone, other, *rows)).feedback == [("r3", "choice", None, ASSISTANT, "end_user")]


def test_a_run_that_failed_and_odd_rows_are_told(write: Callable[..., Path]) -> None:
    failed = LLM | {"id": "r3", "trace_id": "r3", "outputs": None, "extra": None, "error": "timeout"}
    odd = LLM | {"id": "r4", "trace_id": "r4", "start_time": "yesterday"}
    found = read(write(LLM | {"extra": "{}"}, failed, odd), assumed_model="m")
    assert found.ingested.quarantine.sort("row_id")["reason"].to_list() == ["unanswered_only", "mistyped_field"]
    assert found.conversations["conversation_id"].to_list() == ["r1"]
