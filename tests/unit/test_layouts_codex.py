"""Sessions of Codex: messages counted once, and whose words are whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.assembly import PART
from rlhi_dagster.conversations.sources.layouts.codex import COMMENTARY, EVENT, INSERTED, REPEATED, SETTINGS
from tests.sources import lines, read

NAME = "rollout-2026-10-01T10-00-00-01a0.jsonl"
CONTEXT = "<environment_context>\n  <cwd>/home/ann/shop</cwd>\n</environment_context>"
META = {"id": "01a0", "timestamp": "2026-10-01T10:00:00Z", "cwd": "/home/ann/shop", "originator": "codex_cli_rs", "cli_version": "0.80.0"}


def line(kind: str, payload: Any, second: int = 0) -> dict[str, Any]:
    return {"timestamp": f"2026-10-01T10:00:{second:02}.000Z", "type": kind, "payload": payload}


def said(role: str, text: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "role": role,
        "content": [{"type": "output_text" if role == "assistant" else "input_text", "text": text}],
        **fields,
    }


def item(role: str, text: str, second: int = 0, **fields: Any) -> dict[str, Any]:
    return line("response_item", said(role, text, **fields), second)


def test_a_session(tmp_path: Path) -> None:
    rows = [
        line("session_meta", META),
        item("developer", "<permissions instructions>ask first</permissions instructions>"),
        item("user", "# AGENTS.md instructions for /home/ann/shop\n\n<INSTRUCTIONS>\nUse uv.\n</INSTRUCTIONS>"),
        item("user", CONTEXT),
        line("turn_context", {"cwd": "/home/ann/shop", "model": "gpt-x", "approval_policy": "never"}, 1),
        line("event_msg", {"type": "user_message", "message": "add a test", "images": []}, 1),
        item("user", "add a test", 1),
        line("event_msg", {"type": "agent_reasoning", "text": "Which runner?"}, 2),
        line(
            "response_item",
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Which runner?"}], "encrypted_content": "x"},
            2,
        ),
        item("assistant", "I look first.", 2, phase="commentary"),
        line("response_item", {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "c1"}, 3),
        line("response_item", {"type": "function_call_output", "call_id": "c1", "output": "a.py"}, 3),
        line("response_item", {"type": "custom_tool_call", "name": "apply_patch", "input": "x", "call_id": "c2", "status": "completed"}, 4),
        line("response_item", {"type": "custom_tool_call_output", "call_id": "c2", "output": "ok"}, 4),
        line("response_item", {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}, 4),
        line("event_msg", {"type": "token_count", "info": None}, 4),
        line("event_msg", {"type": "agent_message", "message": "Done with unittest."}, 5),
        item("assistant", "Done with unittest.", 5, phase="final_answer"),
        item("user", "no, use pytest", 6),
        line("compacted", {"message": "a summary", "replacement_history": []}, 6),
        item("assistant", "Now with pytest.", 7),
    ]
    found = read(lines(tmp_path / "2026" / "10" / NAME, rows).parent.parent)
    assert found.kind is SourceKind.CODEX
    answer = (
        "[tool call: shell]\n\n[tool result]\n\n[tool call: apply_patch]\n\n[tool result]\n\n[tool call: web_search]\n\nDone with unittest."
    )
    assert found.dialogues == {"01a0": [("u", "add a test"), ("a", answer), ("u", "no, use pytest"), ("a", "Now with pytest.")]}
    assert not found.rejected
    causes = [SETTINGS, PART, INSERTED, INSERTED, SETTINGS, REPEATED, PART, REPEATED, EVENT, COMMENTARY, *[PART] * 5, EVENT, REPEATED]
    assert [found.superseded.get(f"10/{NAME}#{number}") for number in range(21)] == [*causes, PART, PART, EVENT, None]
    assert found.rows.filter(found.rows["superseded"].is_null()).select("user_key", "assistant").rows() == [("/home/ann", "gpt-x")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("add a test", "add a test"),
        ("# Title\nis a fine heading", "# Title\nis a fine heading"),
        ("# Context from my IDE setup:\n\n## Open tabs:\n- a.py\n\n## My request for Codex:\nadd a test\n", "add a test"),
        (f"{CONTEXT}\nadd a test", "add a test"),
        ("<image name=[Image #1]></image>what is this?", "what is this?"),
        ("<user_instructions>\nUse uv.\n</user_instructions>", None),
        ("<turn_aborted>\nThe user interrupted.\n</turn_aborted>", None),
        ("Another language model started to solve this problem and produced a summary of its thinking process. …", None),
    ],
)
def test_only_the_users_own_words_are_the_users(text: str, words: str | None, tmp_path: Path) -> None:
    rows = [
        line("session_meta", META | {"model": "gpt-x"}),
        item("user", "hello"),
        item("assistant", "Hi."),
        item("user", text),
        item("assistant", "Yes."),
    ]
    (found,) = read(lines(tmp_path / NAME, rows)).dialogues.values()
    assert [text for role, text in found if role == "u"] == ["hello", *([words] if words else [])]


def test_several_parts_of_a_message(tmp_path: Path) -> None:
    parts = [
        {"type": "input_text", "text": CONTEXT},
        {"type": "input_image", "image_url": "data:"},
        {"type": "input_text", "text": "what is this?"},
    ]
    rows = [
        line("session_meta", META),
        line("response_item", {"type": "message", "role": "user", "content": parts}),
        item("assistant", "A cat."),
    ]
    assert read(lines(tmp_path / NAME, rows), assumed_model="m").dialogues == {"01a0": [("u", "[image]\nwhat is this?"), ("a", "A cat.")]}


def test_sessions_of_early_versions(tmp_path: Path) -> None:
    rows = [
        {"id": "e1", "timestamp": "2026-09-01T10:00:00Z", "instructions": None, "git": {"branch": "main"}},
        {"record_type": "state"},
        said("user", CONTEXT),
        said("user", "add a test"),
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "local_shell_call", "call_id": "c", "status": "completed", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "function_call_output", "call_id": "c", "output": "a.py"},
        said("assistant", "Done."),
    ]
    found = read(lines(tmp_path / NAME, rows), assumed_model="m")
    assert found.dialogues == {"e1": [("u", "add a test"), ("a", "[tool call: local_shell]\n\n[tool result]\n\nDone.")]}


def test_files_are_sessions_and_lines_keep_their_order(tmp_path: Path) -> None:
    for number in (1, 2):
        rows = [
            item("user", f"add test {number}", 1),
            item("assistant", "Done.", 2),
            item("user", "shorter", 3),
            item("assistant", "Short.", 4),
        ]
        del rows[2]["timestamp"]
        rows[3]["timestamp"] = "no time"
        lines(tmp_path / f"rollout-{number}.jsonl", rows)
    found = read(tmp_path, assumed_model="m")
    assert sorted(found.dialogues.values()) == [
        [("u", f"add test {number}"), ("a", "Done."), ("u", "shorter"), ("a", "Short.")] for number in (1, 2)
    ]


def test_lines_that_are_no_messages_are_rejected_and_cost_no_other(tmp_path: Path) -> None:
    rows = [
        line("session_meta", META),
        item("user", "add a test"),
        line("response_item", None),
        line("response_item", "text"),
        line("response_item", {"type": "message", "role": 3, "content": []}),
        line("response_item", '{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}'),
        line("response_item", {"type": "ghost_snapshot", "ghost_commit": {}}),
    ]
    found = read(lines(tmp_path / NAME, rows), assumed_model="m")
    assert found.dialogues == {"01a0": [("u", "add a test"), ("a", "Done.")]}
    assert list(found.rejected.values()) == [Reason.MISTYPED_FIELD] * 3
