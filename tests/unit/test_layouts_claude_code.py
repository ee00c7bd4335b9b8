"""Sessions of Claude Code: whose words are whose, and following lines over those that say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.assembly import BRANCH, PART
from rlhi_dagster.conversations.sources.layouts.claude_code import INTERRUPTION, OF_THE_PROGRAM, SUB_AGENT
from tests.sources import lines, read

SECONDS = iter(range(10**6))


def line(name: str, parent: str | None, kind: str, **fields: Any) -> dict[str, Any]:
    second = next(SECONDS)
    own = {
        "parentUuid": parent,
        "isSidechain": False,
        "userType": "external",
        "cwd": "/home/ann/shop",
        "sessionId": "s1",
        "version": "2.1.0",
    }
    stamp = f"2026-10-01T{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}.000Z"
    return {**own, "type": kind, "uuid": name, "timestamp": stamp, **fields}


def user(name: str, parent: str | None, content: Any, **fields: Any) -> dict[str, Any]:
    return line(name, parent, "user", message={"role": "user", "content": content}, **fields)


def reply(name: str, parent: str | None, *blocks: Any, model: str = "claude-x", **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
    return line(name, parent, "assistant", message={"id": "msg_1", "role": "assistant", "model": model, "content": content}, **fields)


def tool(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": {"command": "ls"}}


def result(text: str = "a.py", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": text, **fields}


def test_a_session(tmp_path: Path) -> None:
    rows = [
        {"type": "summary", "summary": "Tests", "leafUuid": "x"},
        {"type": "file-history-snapshot", "messageId": "u1", "snapshot": {}, "isSnapshotUpdate": False},
        line("m0", None, "system", subtype="informational", content="Welcome", isMeta=False),
        user("u1", "m0", "add a test"),
        reply("a1", "u1", {"type": "thinking", "thinking": "Which runner?", "signature": "x"}),
        reply("a2", "a1", "I look first."),
        reply("a3", "a2", tool("Bash")),
        line("p1", "a3", "progress", data={"type": "bash_progress", "output": "a.py"}),
        user("r1", "p1", [result()], toolUseResult={"stdout": "a.py"}),
        reply("a4", "r1", "Done with unittest."),
        user("i1", "a4", [{"type": "text", "text": "[Request interrupted by user]"}]),
        user(
            "u2",
            "i1",
            [{"type": "text", "text": "<system-reminder>Mind the plan.</system-reminder>"}, {"type": "text", "text": "no, use pytest"}],
        ),
        reply("a5", "u2", "Now with pytest."),
        line("m1", "a5", "system", subtype="turn_duration", durationMs=5),
    ]
    found = read(lines(tmp_path / "shop" / "s1.jsonl", rows).parent)
    assert found.kind is SourceKind.CLAUDE_CODE
    assert found.dialogues == {
        "s1": [
            ("u", "add a test"),
            ("a", "I look first.\n\n[tool call: Bash]\n\n[tool result]\n\nDone with unittest."),
            ("u", "no, use pytest"),
            ("a", "Now with pytest."),
        ]
    }
    assert not found.rejected
    assert found.superseded == {
        **{f"s1.jsonl#{number}": OF_THE_PROGRAM for number in (0, 1, 2, 7, 13)},
        **{f"s1.jsonl#{number}": PART for number in (3, 4, 5, 6, 8, 9, 11)},
        "s1.jsonl#10": INTERRUPTION,
    }
    assert found.conversations["assistant"].to_list() == ["claude-x"]
    assert found.rows.filter(found.rows["superseded"].is_null()).select("user_key", "messages").row(0)[0] == "/home/ann"
    assert found.feedback == []  # there is none in these files, and no step of a reply is a reply made anew


@pytest.mark.parametrize(
    ("content", "fields", "words"),
    [
        ("add a test", {}, "add a test"),
        ([{"type": "image", "source": {}}, {"type": "text", "text": "what is this?"}], {}, "[image]\nwhat is this?"),
        ("<system-reminder>\nx\n</system-reminder>\nadd a test", {}, "add a test"),
        ([result(), {"type": "text", "text": "that is wrong"}], {}, "that is wrong"),
        ('[{"type": "text", "text": "add a test"}]', {}, "add a test"),
        ("<command-name>/fix</command-name>\n<command-message>fix</command-message>\n<command-args>the broken login</command-args>", {},
         "/fix the broken login"),
        ([result("The user doesn't want to proceed with this tool use. To tell you how to proceed, the user said:\nuse uv\n\n"
                 "Note: The user's next message may contain a correction.", is_error=True)], {}, "use uv"),
        ([result("The user doesn't want to proceed with this tool use. To tell you how to proceed, the user said:\nThe user wants to "
                 "clarify these questions.\n    This means …", is_error=True)], {}, None),
        ([result("The user doesn't want to take this action right now. STOP.", is_error=True)], {}, None),
        ("<command-name>/model</command-name><command-message>model</command-message><command-args>opus</command-args>", {}, None),
        ("<command-name>/clear</command-name>\n<command-message>clear</command-message>\n<command-args></command-args>", {}, None),
        ("<local-command-stdout>cleared</local-command-stdout>", {}, None),
        ("<bash-input>ls</bash-input>", {}, None),
        ("Caveat: The messages below were generated by the user while running local commands.", {}, None),
        ("look at this", {"isMeta": True}, None),
        ("This session is being continued from a previous conversation that ran out of context.", {}, None),
        ("It was about tests.", {"isCompactSummary": True}, None),
        ([], {}, None),
        (None, {}, None),
    ],
)  # fmt: skip
def test_only_the_users_own_words_are_the_users(content: Any, fields: dict[str, Any], words: str | None, tmp_path: Path) -> None:
    rows = [user("u1", None, "hello"), reply("a1", "u1", "Hi."), user("u2", "a1", content, **fields), reply("a2", "u2", "Yes.")]
    (said,) = read(lines(tmp_path / "s1.jsonl", rows)).dialogues.values()
    assert [text for role, text in said if role == "u"] == ["hello", *([words] if words else [])]
    assert said[-1][1].endswith("Yes.")


def test_words_typed_while_the_agent_works(tmp_path: Path) -> None:
    typed = {"type": "queued_command", "prompt": "and no mocks", "commandMode": "prompt"}
    told = {"type": "queued_command", "prompt": "<task-notification>done</task-notification>", "commandMode": "task-notification"}
    rows = [
        user("u1", None, "add a test"),
        reply("a1", "u1", tool("Read")),
        user("r1", "a1", [result()]),
        line("q1", "r1", "attachment", attachment=typed),
        line("q2", "q1", "attachment", attachment=told),
        line("q3", "q2", "attachment", attachment={"type": "todo", "items": []}),
        reply("a2", "q3", "Without mocks."),
    ]
    (said,) = read(lines(tmp_path / "s1.jsonl", rows)).dialogues.values()
    assert said[2:] == [("u", "and no mocks"), ("a", "Without mocks.")]


def test_sub_agents_are_nobody(tmp_path: Path) -> None:
    rows = [user("u1", None, "add a test"), reply("a1", "u1", tool("Agent")), user("r1", "a1", [result()]), reply("a2", "r1", "Done.")]
    side = [user("x1", None, "look for tests", isSidechain=True, agentId="7"), reply("x2", "x1", "None.", isSidechain=True, agentId="7")]
    lines(tmp_path / "s1" / "subagents" / "agent-7.jsonl", side)
    found = read(lines(tmp_path / "s1.jsonl", [rows[0], side[0], *rows[1:], side[1]]).parent)
    assert found.dialogues == {"s1": [("u", "add a test"), ("a", "[tool call: Agent]\n\n[tool result]\n\nDone.")]}
    assert sorted(found.superseded.values()).count(SUB_AGENT) == 4


def test_a_session_that_was_wound_back_keeps_its_last_branch(tmp_path: Path) -> None:
    rows = [
        user("u1", None, "add a test"),
        reply("a1", "u1", "With unittest."),
        user("u2", "a1", "shorter"),
        reply("a2", "u2", "Short."),
        user("u3", "a1", "with pytest"),
        reply("a3", "u3", "With pytest."),
    ]
    found = read(lines(tmp_path / "s1.jsonl", rows))
    assert found.dialogues == {"s1": [("u", "add a test"), ("a", "With unittest."), ("u", "with pytest"), ("a", "With pytest.")]}
    assert [found.superseded.get(f"s1.jsonl#{number}") for number in range(6)] == [PART, PART, BRANCH, BRANCH, PART, None]


def test_a_fork_is_a_branch_of_its_session(tmp_path: Path) -> None:
    origin = [user("u1", None, "add a test"), reply("a1", "u1", "With unittest."), user("u2", "a1", "shorter"), reply("a2", "u2", "Short.")]
    copies = [row | {"sessionId": "s2", "forkedFrom": {"sessionId": "s1", "messageUuid": row["uuid"]}} for row in origin[:2]]
    forked = {"sessionId": "s2", "forkedFrom": {"sessionId": "s1", "messageUuid": "u3"}}
    lines(tmp_path / "s1.jsonl", origin)
    lines(tmp_path / "s2.jsonl", [*copies, user("u3", "a1", "with pytest", **forked), reply("a3", "u3", "With pytest.", **forked)])
    found = read(tmp_path)
    assert found.dialogues == {"s1": [("u", "add a test"), ("a", "With unittest."), ("u", "with pytest"), ("a", "With pytest.")]}


def test_steps_side_by_side_are_no_branches(tmp_path: Path) -> None:
    rows = [
        user("u1", None, "look"),
        reply("a1", "u1", tool("Read")),
        reply("a2", "a1", tool("Bash")),
        user("r1", "a1", [result()]),
        user("r2", "a2", [result()]),
        reply("a3", "r2", "Found."),
    ]
    found = read(lines(tmp_path / "s1.jsonl", rows))
    assert found.dialogues == {"s1": [("u", "look"), ("a", "[tool call: Read]\n\n[tool call: Bash]\n\n[tool result]\n\nFound.")]}
    assert set(found.superseded.values()) == {PART}
    assert found.feedback == []


def test_a_compacted_session_is_one_conversation(tmp_path: Path) -> None:
    rows = [
        user("u1", None, "add a test"),
        reply("a1", "u1", "Done."),
        line("c1", None, "system", subtype="compact_boundary", content="Conversation compacted", logicalParentUuid="a1"),
        user("c2", "c1", "This session is being continued …", isCompactSummary=True, isVisibleInTranscriptOnly=True),
        user("u2", "c2", "now the docs"),
        reply("a2", "u2", "Written."),
    ]
    expected = [("u", "add a test"), ("a", "Done."), ("u", "now the docs"), ("a", "Written.")]
    assert read(lines(tmp_path / "a" / "s1.jsonl", rows)).dialogues == {"s1": expected}
    rows[2] = rows[2] | {"logicalParentUuid": "gone"}  # what was before is no longer named: nothing is lost all the same
    assert read(lines(tmp_path / "b" / "s1.jsonl", rows)).dialogues == {"s1": expected[:2], "s1#2": expected[2:]}


def test_lines_without_names_follow_each_other(tmp_path: Path) -> None:
    rows = [user("u1", None, "add a test"), reply("a1", "u1", "Done."), user("u2", "a1", "shorter"), reply("a2", "u2", "Short.")]
    bare = [{name: value for name, value in row.items() if name not in ("uuid", "parentUuid", "timestamp", "cwd")} for row in rows]
    bare[2]["timestamp"] = "2026-10-01T10:00:00Z"
    found = read(lines(tmp_path / "s1.jsonl", bare))
    assert found.dialogues == {"s1": [("u", "add a test"), ("a", "Done."), ("u", "shorter"), ("a", "Short.")]}


def test_lines_that_are_no_messages_are_rejected_and_cost_no_other(tmp_path: Path) -> None:
    rows = [
        user("u1", None, "add a test"),
        reply("a1", "u1", "Done.", model="claude-x"),
        line("b1", "a1", "user", message=None),
        line("b2", "a1", "assistant", message="text"),
        b'{"type": "user", "sessionId": "s1", "uuid"',
        reply("e1", "a1", "API Error: overloaded", model="<synthetic>"),
        user("u2", "e1", "go on", timestamp="yesterday"),
        reply("a2", "u2", "More."),
    ]
    found = read(lines(tmp_path / "s1.jsonl", rows))
    assert found.dialogues == {"s1": [("u", "add a test"), ("a", "Done."), ("u", "go on"), ("a", "More.")]}
    assert list(found.rejected.values()) == [Reason.MISTYPED_FIELD, Reason.MISTYPED_FIELD, Reason.UNREADABLE_JSON]
