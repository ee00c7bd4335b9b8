"""OpenAI's Responses: chains found across rows, conversations, pages of items, and whole histories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.assembly import BRANCH, CONTINUED, PART
from rlhi_dagster.conversations.sources.layouts.api_requests import FAILED, UNANSWERED
from tests.sources import lines, read, talk, turns

Row = dict[str, Any]
AT = 1_790_000_000


def said(role: str, words: str, **changes: object) -> Row:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "id": f"msg_{words}", "role": role, "content": [{"type": kind, "text": words, "annotations": []}], **changes}


def response(name: str, words: str, before: str | None = None, after: int = 0, **changes: object) -> Row:
    return {
        "id": name,
        "object": "response",
        "created_at": AT + after,
        "model": "m",
        "status": "completed",
        "error": None,
        "output": [{"type": "reasoning", "summary": []}, said("assistant", words)],
        "previous_response_id": before,
        "safety_identifier": "u",
        "metadata": {},
        **changes,
    }


def pair(asked: object, *arguments: Any, **changes: Any) -> Row:
    return {"request": {"model": "m", "input": asked}, "response": response(*arguments, **changes)}


def test_a_chain_is_one_conversation_and_a_second_answer_to_it_a_branch(tmp_path: Path) -> None:
    rows = [
        pair("y", "resp_4", "d", "resp_2", 30),
        pair("x", "resp_2", "b", "resp_1", 10),
        pair("q", "resp_1", "a"),
        pair([said("user", "z")], "resp_3", "c", "resp_2", 20),
        pair("else", "resp_9", "e"),
    ]
    found = read(tmp_path, *rows)
    assert found.kind is SourceKind.OPENAI_RESPONSES
    assert found.dialogues == {"resp_1": turns("q", "a", "x", "b", "y", "d"), "resp_9": turns("else", "e")}
    assert found.superseded == {"a.jsonl#1": CONTINUED, "a.jsonl#2": CONTINUED, "a.jsonl#3": BRANCH}
    assert found.ids("resp_1") == [None, "resp_1", None, "resp_2", None, "resp_4"]
    assert found.row("resp_1")["user_key"] == "u"


def test_a_chain_whose_rows_have_one_time_and_begin_with_the_latest(tmp_path: Path) -> None:
    rows = [pair(f"q{n}", f"resp_{n}", f"a{n}", f"resp_{n - 1}" if n else None) for n in range(30)]
    found = read(tmp_path, *reversed(rows))
    assert found.dialogues == {"resp_0": turns(*(f"{who}{n}" for n in range(30) for who in "qa"))}


def test_a_chain_whose_start_is_not_in_the_source(tmp_path: Path) -> None:
    rows = [pair("x", "resp_2", "b", "resp_1"), pair("y", "resp_3", "c", "resp_2", 1), pair("x", "resp_7", "b", "resp_6", 2)]
    found = read(tmp_path, *rows)
    assert found.dialogues["resp_2"] == turns("x", "b", "y", "c")


def test_a_chain_with_a_failed_response(tmp_path: Path) -> None:
    rows = [
        pair("q", "resp_1", "a"),
        pair("x", "resp_2", "", "resp_1", 1, status="failed", error={"code": "server_error"}, output=[]),
        pair("x", "resp_3", "b", "resp_1", 2),
        pair("x", "resp_4", "", "resp_3", 3, status="in_progress", output=[]),
    ]
    found = read(tmp_path, *rows)
    assert found.dialogues == {"resp_1": turns("q", "a", "x", "b")}
    assert found.superseded == {"a.jsonl#0": CONTINUED, "a.jsonl#1": FAILED, "a.jsonl#3": FAILED}


def test_responses_that_name_each_other_are_read_as_they_are(tmp_path: Path) -> None:
    found = read(tmp_path, pair("q", "resp_1", "a", "resp_2"), pair("x", "resp_2", "b", "resp_1", 1), pair("y", "resp_3", "c", "resp_3", 2))
    assert len(found.dialogues) == 3


def test_what_shares_a_conversation_follows_in_its_order(tmp_path: Path) -> None:
    rows = [pair(f"q{n}", f"resp_{n}", f"a{n}", None, n, conversation={"id": "conv_1"}) for n in range(3)]
    result = {"type": "function_call_output", "call_id": "c", "output": "3 C"}
    rows.append(pair([result], "resp_3", "a3", None, 3, conversation={"id": "conv_1"}))
    rows[0]["response"]["conversation"] = "conv_1"
    found = read(tmp_path, *rows)
    (messages,) = found.dialogues.values()
    assert list(found.dialogues) == ["conv_1"]
    assert messages == turns("q0", "a0", "q1", "a1", "q2", "a2\n\n[tool result]\n\na3")


def test_whole_histories_grow(tmp_path: Path) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}
    history = [said("user", "q"), call, {"type": "function_call_output", "call_id": "c", "output": "3 C"}]
    rows = [
        pair(history[:1], "resp_1", "", output=[{"type": "reasoning"}, call]),
        pair(history, "resp_2", "cold", after=1),
        pair([*history, {"role": "assistant", "content": "cold"}, {"role": "user", "content": "warmer?"}], "resp_3", "no", after=2),
    ]
    found = read(tmp_path, *rows)
    assert found.dialogues == {"resp_3": turns("q", "[tool call: weather]\n\n[tool result]\n\ncold", "warmer?", "no")}
    assert found.superseded == dict.fromkeys(("a.jsonl#0", "a.jsonl#1"), CONTINUED)


def test_commentary_is_not_the_answer(tmp_path: Path) -> None:
    output = [said("assistant", "I will look", phase="commentary"), said("assistant", "a", phase="final_answer")]
    history = [said("user", "q"), *output, said("user", "x")]
    found = read(tmp_path, pair("q", "resp_1", "", output=output), pair(history, "resp_2", "b", after=1))
    assert found.dialogues == {"resp_2": turns("q", "a", "x", "b")}


def test_a_refusal_and_tools_of_the_systems_own(tmp_path: Path) -> None:
    output = [
        {"type": "web_search_call", "status": "completed"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    found = read(tmp_path, pair("q", "resp_1", "", output=output))
    assert found.dialogues == {"resp_1": turns("q", "[tool call: web_search]\n\nno")}


FLAT: dict[str, Row] = {
    "input beside": {**response("resp_1", "a"), "input": "q"},
    "items beside": {**response("resp_1", "a"), "input_items": [said("user", "q")]},
    "a page beside": {
        "response": response("resp_1", "a"),
        "input_items": {"object": "list", "data": [said("user", "q")], "has_more": False},
    },
    "messages of the client": {"request": {"input": talk("q")}, "response": json.dumps(response("resp_1", "a"))},
    "events": {
        "request": {"input": "q"},
        "response": [
            {"type": "response.created", "response": response("resp_1", "", status="in_progress", output=[])},
            {"type": "response.output_text.delta", "delta": "a"},
            {"type": "response.completed", "response": response("resp_1", "a")},
        ],
    },
}


@pytest.mark.parametrize("name", FLAT)
def test_a_response_beside_its_input(name: str, tmp_path: Path) -> None:
    found = read(tmp_path, FLAT[name])
    assert (found.kind, found.dialogues) == (SourceKind.OPENAI_RESPONSES, {"resp_1": turns("q", "a")})


def page(*items: Row, **changes: object) -> Row:
    return {"object": "list", "data": list(items), "first_id": "x", "last_id": "y", "has_more": False, **changes}


def test_pages_of_input_items_are_joined_with_their_responses(tmp_path: Path) -> None:
    lines(tmp_path / "responses.jsonl", [response("resp_1", "a"), response("resp_2", "b", "resp_1", 1), response("resp_3", "c")])
    lines(tmp_path / "items.jsonl", [page(said("user", "q"), response_id="resp_1")])
    lines(tmp_path / "resp_2.input_items.0.json", [page(said("user", "x"), has_more=True)])
    lines(tmp_path / "resp_2.input_items.1.json", [page(said("user", "y"))])
    lines(tmp_path / "more.jsonl", [page(said("user", "z"), response_id="resp_8")])
    found = read(tmp_path)
    assert found.kind is SourceKind.OPENAI_RESPONSES
    assert found.dialogues == {"resp_1": turns("q", "a", "x\n\ny", "b")}
    assert found.superseded == {
        "items.jsonl#0": PART,
        "resp_2.input_items.0.json#0": PART,
        "resp_2.input_items.1.json#0": PART,
        "more.jsonl#0": UNANSWERED,
        "responses.jsonl#0": CONTINUED,
    }
    assert found.rejected == {"responses.jsonl#2": Reason.NO_USER_MESSAGE}


def test_a_page_of_a_conversation_may_begin_with_the_latest(tmp_path: Path) -> None:
    items = [said("system", "s"), *(said(each["role"], each["content"]) for each in talk("q", "a", "x", "b"))]
    lines(tmp_path / "conv_1.json", [page(*items)])
    lines(tmp_path / "b.jsonl", [page(*reversed(items), conversation_id="conv_2")])
    found = read(tmp_path)
    assert found.kind is SourceKind.OPENAI_RESPONSES
    assert found.dialogues == {"conv_1": turns("q", "a", "x", "b"), "conv_2": turns("q", "a", "x", "b")}


def test_a_batch_of_responses(tmp_path: Path) -> None:
    lines(tmp_path / "in.jsonl", [{"custom_id": "c", "method": "POST", "url": "/v1/responses", "body": {"model": "m", "input": "q"}}])
    body = {"status_code": 200, "body": response("resp_1", "a")}
    lines(tmp_path / "out.jsonl", [{"id": "batch", "custom_id": "c", "response": body, "error": None}])
    found = read(tmp_path)
    assert (found.kind, list(found.dialogues.values())) == (SourceKind.OPENAI_RESPONSES, [turns("q", "a")])
