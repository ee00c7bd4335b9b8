"""Anthropic's Messages: blocks, results of tools in the user's role, and whose requests they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.assembly import CONTINUED, PART
from rlhi_dagster.conversations.sources.layouts.api_requests import FAILED, UNANSWERED
from tests.sources import lines, read, talk, turns

Row = dict[str, Any]


def text(words: str) -> Row:
    return {"type": "text", "text": words}


def reply(name: str, *content: Row) -> Row:
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": list(content),
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1},
    }


def request(*messages: Row, **changes: object) -> Row:
    return {"model": "claude", "max_tokens": 100, "messages": list(messages), **changes}


def test_tools_thoughts_and_system_blocks(tmp_path: Path) -> None:
    called = [{"type": "thinking", "thinking": "hm"}, text("Let me look."), {"type": "tool_use", "id": "t", "name": "weather", "input": {}}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text("3 C")]}
    settings = {"system": [text("be brief")], "metadata": {"user_id": "u"}}
    first = [{"role": "user", "content": [text("weather?")]}]
    second = [*first, {"role": "assistant", "content": called}, {"role": "user", "content": [result]}]
    third = [*second, {"role": "assistant", "content": [text("cold")]}, {"role": "system", "content": "from now on"}]
    third.append({"role": "user", "content": [result, text("in Fahrenheit?")]})
    rows = [
        {"request": request(*first, **settings), "response": reply("m1", *called)},
        {"request": request(*second, **settings), "response": reply("m2", text("cold"))},
        {"request": request(*third, **settings), "response": reply("m3", text("37 F"))},
    ]
    found = read(tmp_path, *rows)
    assert found.kind is SourceKind.ANTHROPIC
    assert found.dialogues == {
        "m3": [
            ("u", "weather?"),
            ("a", "Let me look.\n[tool call: weather]\n\n[tool result]\n\ncold"),
            ("u", "in Fahrenheit?"),
            ("a", "37 F"),
        ]
    }
    assert found.superseded == dict.fromkeys(("a.jsonl#0", "a.jsonl#1"), CONTINUED)
    assert (found.row("m3")["user_key"], found.row("m3")["assistant"]) == ("u", "claude")


SHAPES: dict[str, Row] = {
    "pair": {"request": request(*talk("q")), "response": reply("r", text("a"))},
    "response beside the request": {**request(*talk("q")), "response": reply("r", text("a"))},
    "as JSON text": {"input": json.dumps(request(*talk("q"))), "output": json.dumps(reply("r", text("a")))},
    "events": {
        "request": request(*talk("q")),
        "response": [
            {"type": "message_start", "message": reply("r")},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        ],
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_reply_beside_its_request(name: str, tmp_path: Path) -> None:
    found = read(tmp_path, SHAPES[name])
    assert (found.kind, found.dialogues) == (SourceKind.ANTHROPIC, {"r": turns("q", "a")})
    assert found.ids("r")[-1] == "r"


def test_a_reply_alone_has_no_question(tmp_path: Path) -> None:
    found = read(tmp_path, reply("r", text("a")))
    assert (found.kind, list(found.rejected.values())) == (SourceKind.ANTHROPIC, [Reason.NO_USER_MESSAGE])


def test_errors_are_no_replies(tmp_path: Path) -> None:
    failed = {"request": request(*talk("q")), "response": {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}}
    found = read(tmp_path, SHAPES["pair"], failed)
    assert found.superseded == {"a.jsonl#1": FAILED}


def test_a_batch_is_joined_by_custom_id(tmp_path: Path) -> None:
    lines(tmp_path / "in.jsonl", [*({"custom_id": f"c{n}", "params": request(*talk(f"q{n}"))} for n in range(3))])
    results = [{"type": "succeeded", "message": reply("m0", text("a0"))}, {"type": "errored", "error": {"type": "error"}}]
    lines(tmp_path / "out.jsonl", [*({"custom_id": f"c{n}", "result": result} for n, result in enumerate(results))])
    found = read(tmp_path, kind=SourceKind.ANTHROPIC)
    assert found.dialogues == {"m0": turns("q0", "a0")}
    assert found.superseded == {"in.jsonl#0": PART, "in.jsonl#1": PART, "in.jsonl#2": UNANSWERED, "out.jsonl#1": FAILED}


USERS = {
    "plain": ("u", ("u", "m")),
    "Claude Code's": ("user_0a_account_1b-2c_session_3d-4e", ("user_0a_account_1b-2c", "3d-4e")),
    "Claude Code's without an account": ("user_0a_account__session_3d", ("user_0a_account_", "3d")),
    "Claude Code's in JSON": (json.dumps({"device_id": "d", "account_uuid": "", "session_id": "3d"}), ("d", "3d")),
}


@pytest.mark.parametrize("name", USERS)
def test_users_and_sessions(name: str, tmp_path: Path) -> None:
    given, (user, conversation) = USERS[name]
    found = read(tmp_path, {"request": request(*talk("q"), metadata={"user_id": given}), "response": reply("m", text("a"))})
    assert found.row(conversation)["user_key"] == user
