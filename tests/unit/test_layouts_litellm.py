"""LiteLLM's payloads and its table of spending: sessions, users, and what is no reply."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.conversations.sources import SourceField, SourceKind, groups
from rlhi_dagster.conversations.sources.assembly import BRANCH, CONTINUED
from rlhi_dagster.conversations.sources.layouts.api_requests import FAILED, NO_CHAT
from rlhi_dagster.conversations.sources.layouts.litellm import REDACTED
from tests.sources import completion, read, talk, turns

Row = dict[str, Any]
AT = 1_790_000_000


def payload(name: str, *texts: str, after: float = 0, **changes: object) -> Row:
    """A payload as it is logged, with the fields that matter and some that do not."""
    return {
        "id": name,
        "trace_id": f"trace of {name}",
        "litellm_call_id": f"call of {name}",
        "call_type": "acompletion",
        "stream": False,
        "status": "success",
        "startTime": AT + after,
        "endTime": AT + after + 2.5,
        "completionStartTime": AT + after + 1,
        "model": "m",
        "model_group": "group",
        "messages": talk(*texts[:-1]),
        "response": completion(name, texts[-1]),
        "end_user": "u",
        "requester_ip_address": "10.0.0.1",
        "metadata": {"user_api_key_user_id": "owner", "user_api_key_end_user_id": None, "requester_metadata": None},
        "model_parameters": {"temperature": 1},
        "error_str": None,
        "error_information": {"error_code": "", "error_message": ""},
        **changes,
    }


def test_a_session_is_one_conversation(tmp_path: Path) -> None:
    rows = [
        payload("r3", "q", "a", "x", "b", "y", "c", after=20, session_id="s"),
        payload("r1", "q", "a", session_id="s"),
        payload("r2", "q", "a", "x", "b", after=10, session_id="s"),
        payload("r0", "q", "z", after=5, session_id="s"),
        payload("t1", "title of this", "t", after=30, session_id="s"),
    ]
    found = read(tmp_path, *rows)
    assert found.kind is SourceKind.LITELLM
    assert found.dialogues == {"s": turns("q", "a", "x", "b", "y", "c"), "s#2": turns("title of this", "t")}
    assert found.superseded == {"a.jsonl#1": CONTINUED, "a.jsonl#2": CONTINUED, "a.jsonl#3": BRANCH}
    assert found.ids("s") == [None, "r1", None, "r2", None, "r3"]
    assert found.times("s") == [datetime.fromtimestamp(AT + seconds, UTC) for seconds in (0, 2.5, 10, 12.5, 20, 22.5)]
    row = found.row("s")
    assert (row["user_key"], row["address"], row["assistant"]) == ("u", "10.0.0.1", "m")
    assert found.feedback == [("r1", "regeneration", None, "z", "end_user")]


def test_the_example_of_few_fields(tmp_path: Path) -> None:
    response = {"choices": [{"message": {"role": "assistant", "content": "a"}}]}
    row = {"id": "c1", "session_id": "s-9", "end_user": "cust-42", "startTime": AT, "model": "m", "status": "success"}
    found = read(tmp_path, {**row, "messages": talk("q"), "response": response})
    assert (found.kind, found.dialogues, found.row("s-9")["user_key"]) == (SourceKind.LITELLM, {"s-9": turns("q", "a")}, "cust-42")


def spent(name: str, *texts: str, **changes: object) -> Row:
    """A row of the table of spending, where the proxy makes up a session for each request and stores the request's body."""
    return {
        "request_id": name,
        "call_type": "acompletion",
        "spend": 0.1,
        "startTime": "2026-10-01 10:02:00.123",
        "endTime": "2026-10-01 10:02:02",
        "model": "m",
        "user": "owner",
        "end_user": "u",
        "session_id": f"made up for {name}",
        "messages": "{}",
        "response": json.dumps(completion(name, texts[-1])),
        "proxy_server_request": json.dumps({"model": "m", "messages": talk(*texts[:-1])}),
        "status": "success",
        **changes,
    }


def test_the_table_of_spending(tmp_path: Path) -> None:
    found = read(tmp_path, spent("r1", "q", "a"), spent("r2", "q", "a", "x", "b"), spent("r3", "q", "a", "y", "c", end_user="v"))
    assert found.kind is SourceKind.LITELLM
    assert found.dialogues == {"made up for r2": turns("q", "a", "x", "b"), "made up for r3": turns("q", "a", "y", "c")}
    assert found.superseded == {"a.jsonl#0": CONTINUED}
    assert [found.row(f"made up for {name}")["user_key"] for name in ("r2", "r3")] == ["u", "v"]
    assert found.ids("made up for r2") == [None, "r1", None, "r2"]


NOTES = {
    "failure": (payload("f", "q", "", status="failure", response="", error_str="no"), FAILED),
    "embedding": (payload("f", "q", "", call_type="aembedding", messages="q", response={"data": []}), NO_CHAT),
    "picture": (payload("f", "q", "", call_type="aimage_generation", response={"data": [{"url": "x"}]}), NO_CHAT),
    "redacted": (payload("f", "redacted-by-litellm", "redacted-by-litellm"), REDACTED),
}


@pytest.mark.parametrize("name", NOTES)
def test_rows_without_a_reply(name: str, tmp_path: Path) -> None:
    row, note = NOTES[name]
    found = read(tmp_path, payload("r", "p", "b"), row)
    assert (found.dialogues, found.superseded) == ({"r": turns("p", "b")}, {"a.jsonl#1": note})


RESPONSES: dict[str, Row] = {
    "of the Responses API": {
        "call_type": "aresponses",
        "messages": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]}],
        "response": {"id": "r", "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]},
    },
    "input as text": {"messages": "q"},
    "of Anthropic's": {
        "call_type": "anthropic_messages",
        "response": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]},
    },
    "of Gemini's": {
        "call_type": "agenerate_content",
        "messages": [{"role": "user", "parts": [{"text": "q"}]}],
        "response": {"candidates": [{"content": {"role": "model", "parts": [{"text": "a"}]}}]},
    },
    "a text completion": {"call_type": "atext_completion", "response": {"choices": [{"text": "a", "index": 0}]}},
    "of JSON text": {"messages": json.dumps(talk("q")), "response": json.dumps(completion("r", "a"))},
    "through the proxy": {"call_type": "pass_through_endpoint"},
}


@pytest.mark.parametrize("name", RESPONSES)
def test_replies_of_any_api(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, payload("r", "q", "a", **RESPONSES[name])).dialogues == {"r": turns("q", "a")}


USERS: dict[str, tuple[Row, str | None]] = {
    "of the key's end user": ({"end_user": "", "metadata": {"user_api_key_end_user_id": "e"}}, "e"),
    "of the request": ({"end_user": None, "model_parameters": {"user": "p"}}, "p"),
    "of the client's metadata": ({"end_user": None, "metadata": {"requester_metadata": {"user_id": "c"}}}, "c"),
    "not the key's owner": ({"end_user": None}, None),
}


@pytest.mark.parametrize("name", USERS)
def test_who_the_user_is(name: str, tmp_path: Path) -> None:
    changes, user = USERS[name]
    found = read(tmp_path, payload("r", "q", "a", **changes))
    assert found.row("r")["user_key"] == user


def test_the_settings_can_name_the_keys_owner(tmp_path: Path) -> None:
    found = read(tmp_path, payload("r", "q", "a", end_user=None), fields={SourceField.USER: "metadata.user_api_key_user_id"})
    assert found.row("r")["user_key"] == "owner"


def test_a_log_that_is_larger_than_memory_is_sorted_in_several_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [(f"s{number}", [f"{number}{letter}" for letter in "abcdef"]) for number in range(200)]
    rows = [payload(f"{name}-{n}", *texts[:n], after=n, session_id=name) for n in (2, 4, 6) for name, texts in sessions]
    monkeypatch.setattr(groups, "_BYTES_AT_ONCE", 2_000)
    found = read(tmp_path, *rows)
    assert found.dialogues == {name: turns(*texts) for name, texts in sessions}
    assert len(found.superseded) == 400
