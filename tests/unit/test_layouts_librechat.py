"""LibreChat's database and exported conversations."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind, detect_kind
from tests.sources import read, turns

START = datetime(2026, 9, 21, 10, 0, tzinfo=UTC)
ROOT = "00000000-0000-0000-0000-000000000000"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def rows(*rows: object, name: str = "messages.jsonl") -> Path:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return tmp_path

    return rows


def message(name: str, parent: str, text: str, *, minute: int = 0, **fields: object) -> dict[str, Any]:
    """A message of the database; of the user if its name has a u."""
    is_users = "u" in name
    at = f"2026-09-21T10:{minute:02}:00.000Z"
    row = {"_id": {"$oid": f"64b0{minute:020x}"}, "messageId": name, "conversationId": "c1", "user": "507f191e810c19729de860ea"}
    row |= {"parentMessageId": parent, "sender": "User" if is_users else "GPT-5.6", "text": text, "isCreatedByUser": is_users}
    row |= {"model": None if is_users else "gpt-5.6", "endpoint": "openAI", "error": False, "unfinished": False, "finish_reason": None}
    return row | {"createdAt": {"$date": at}, "updatedAt": {"$date": at}, "tokenCount": 3, "__v": 0} | fields


ASKED = message("u1", ROOT, "Summarise")
LONG = message("a1", "u1", "Long", minute=1)
SHORT = message("a2", "u1", "Short", minute=2)
AGAIN = message("u2", "a2", "In German, please", minute=3)
KURZ = message("a3", "u2", "Kurz", minute=4)
TALK = turns("Summarise", "Short", "In German, please", "Kurz")
CONVERSATION = {
    "_id": {"$oid": "64b0"}, "conversationId": "c1", "user": "507f191e810c19729de860ea", "title": "Rivers", "endpoint": "openAI",
    "model": "gpt-5.6", "messages": [{"$oid": "64b1"}], "tags": [], "createdAt": {"$date": "2026-09-21T10:00:00.000Z"},
}  # fmt: skip


def test_rows_are_put_together_in_any_order(write: Write) -> None:
    found = read(write(KURZ, SHORT, ASKED, AGAIN, LONG))
    assert found.dialogues == {"c1": TALK}
    row = found.conversations.row(0, named=True)
    assert (row["assistant"], row["started_at"]) == ("gpt-5.6", START)
    assert [each["sent_at"].minute for each in row["messages"]] == [0, 2, 3, 4]
    assert found.by_users == [("a2", "regeneration", None, "Long")]
    assert len(found.superseded) == 4


@pytest.mark.parametrize(("rating", "value"), [("thumbsDown", -1.0), ("thumbsUp", 1.0)])
def test_a_regeneration_tells_the_thumb_of_the_reply_that_was_left(write: Write, rating: str, value: float) -> None:
    found = read(write(ASKED, LONG | {"feedback": {"rating": rating}}, SHORT))
    assert found.by_users == sorted([("a1", "thumb", value, None), ("a2", "regeneration", value, "Long")], key=str)


def test_an_edited_prompt_is_another_branch(write: Write) -> None:
    edited = message("u9", ROOT, "Summarise it", minute=8), message("a9", "u9", "It", minute=9)
    found = read(write(ASKED, LONG, *edited))
    assert found.dialogues == {"c1": turns("Summarise it", "It")}
    assert found.by_users == []


@pytest.mark.parametrize(
    "moment",
    [{"$date": {"$numberLong": "1789984800000"}}, {"$date": 1789984800000}, "2026-09-21T10:00:00Z", "2026-09-21T10:00:00+00:00"],
)
def test_times_and_users_are_read_in_every_spelling(moment: object, write: Write) -> None:
    user = {"$oid": "507f191e810c19729de860ea"}
    rows = [each | {"createdAt": moment, "user": user} for each in (ASKED, LONG)]
    other = [
        each | {"conversationId": "c2", "messageId": f"{each['messageId']}x", "parentMessageId": f"{each['parentMessageId']}x"}
        for each in rows
    ]
    found = read(write(*rows, *(each | {"text": f"{each['text']}!", "user": user["$oid"]} for each in other)))
    assert found.conversations["started_at"].to_list() == [START, START]
    assert found.conversations["user_id"].n_unique() == 1


FEEDBACK = {
    "thumb": ({"rating": "thumbsUp"}, [("a1", "thumb", 1.0, None)]),
    "tag and text": (
        {"rating": "thumbsDown", "tag": "inaccurate", "text": "It is not the Rhine"},
        [("a1", "comment", None, "It is not the Rhine"), ("a1", "thumb", -1.0, "inaccurate")],
    ),
    "tag as object": ({"rating": "thumbsDown", "tag": {"key": "not_helpful", "label": "x"}}, [("a1", "thumb", -1.0, "not_helpful")]),
    "tag as list": ({"rating": "thumbsDown", "tag": ["x"]}, [("a1", "thumb", -1.0, None)]),
    "text": ('{"rating": "thumbsUp"}', [("a1", "thumb", 1.0, None)]),
    "none": (None, []),
    "empty": ({"rating": None, "text": ""}, []),
    "odd": ("thumbsUp", []),
}


@pytest.mark.parametrize("name", FEEDBACK)
def test_thumbs_have_tag_and_text(name: str, write: Write) -> None:
    feedback, expected = FEEDBACK[name]
    found = read(write(ASKED, LONG | {"feedback": feedback}))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.by_users == expected


ERRORS = {
    "flag": {"error": True, "text": "An error occurred"},
    "text": {"error": "true", "text": "An error occurred"},
    "object": {"error": {"type": "rate limit"}, "text": "An error occurred"},
    "part": {"text": "", "content": [{"type": "error", "error": "An error occurred"}]},
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_no_reply(name: str, write: Write) -> None:
    failed = SHORT | ERRORS[name]
    found = read(write(ASKED, LONG, failed))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.by_users == []
    found = read(write(ASKED, LONG, failed, AGAIN, KURZ))
    assert found.dialogues == {"c1": turns("Summarise\n\nIn German, please", "Kurz")}
    assert found.by_users == []
    found = read(write(ASKED, failed))
    assert list(found.rejected.values()) == [Reason.UNANSWERED_ONLY]


@pytest.mark.parametrize("cut", [{"unfinished": True}, {"finish_reason": "incomplete"}])
def test_a_reply_that_broke_off_stays_where_the_user_went_on_and_is_preferred_to_nothing(cut: dict[str, object], write: Write) -> None:
    found = read(write(ASKED, LONG, SHORT | cut, AGAIN, KURZ))
    assert found.dialogues == {"c1": TALK}
    assert found.by_users == []
    found = read(write(ASKED, LONG, SHORT | cut))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.by_users == []
    found = read(write(ASKED, LONG | cut, SHORT))
    assert found.by_users == []


TEXTS = {
    "text": ([{"type": "text", "text": "Long"}], "Long"),
    "value": ([{"type": "text", "text": {"value": "Long"}}], "Long"),
    "thoughts": ([{"type": "think", "think": "hm"}, {"type": "text", "text": "Long"}], "Long"),
    "call": (
        [{"type": "tool_call", "tool_call": {"name": "maps", "args": "", "output": "x"}}, {"type": "text", "text": "Long"}],
        "[tool call: maps]\nLong",
    ),
    "picture": ([{"type": "text", "text": "Long"}, {"type": "image_file", "image_file": {"file_id": "x"}}], "Long\n[image]"),
    "unknown": ([{"type": "text", "text": "Long"}, {"type": "new"}], "Long\n[new]"),
    "agent": ([{"type": "agent_update", "agent_update": {}}, {"type": "text", "text": "Long"}], "Long"),
    "side by side": (
        [{"type": "text", "text": "Long", "groupId": 1, "agentId": "x"}, {"type": "text", "text": "Other", "groupId": 1, "agentId": "y"}],
        "Long",
    ),
    "JSON": ('[{"type": "text", "text": "Long"}]', "Long"),
    "none": (None, "of the field"),
    "empty": ([], "of the field"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_reply_says_is_in_its_content_or_its_text(name: str, write: Write) -> None:
    content, text = TEXTS[name]
    found = read(write(ASKED, LONG | {"content": content, "text": "of the field"}))
    assert found.dialogues == {"c1": turns("Summarise", text)}


def test_files_are_markers(write: Write) -> None:
    files = [{"type": "image/png", "file_id": "x"}, {"type": "application/pdf", "text": "secret"}]
    found = read(write(ASKED | {"files": files}, LONG))
    assert found.dialogues == {"c1": turns("Summarise\n[image]\n[file]", "Long")}


def test_a_conversation_of_the_database_says_what_its_messages_do_not(write: Write) -> None:
    write(*(each | {"model": None, "user": None} for each in (ASKED, SHORT, AGAIN, KURZ)))
    found = read(write(CONVERSATION, CONVERSATION | {"conversationId": "c2"}, name="conversations.jsonl"))
    assert found.dialogues == {"c1": TALK}
    assert found.conversations["assistant"].to_list() == ["gpt-5.6"]
    whole = read(write(ASKED, SHORT, AGAIN, KURZ))
    assert found.conversations["user_id"].to_list() == whole.conversations["user_id"].to_list()
    notes = found.ingested.superseded.filter(pl.col("source_file") == "conversations.jsonl")["cause"]
    assert notes.to_list() == ["what is kept of a conversation beside its messages"] * 2


def exported(**fields: object) -> dict[str, object]:
    frame = {"conversationId": "c1", "endpoint": "openAI", "title": "Rivers", "exportAt": "10:00:00 GMT+0200", "branches": True}
    return frame | {"recursive": False, "options": {"model": "gpt-5.6"}} | fields


def nested(row: dict[str, Any], *children: dict[str, Any]) -> dict[str, Any]:
    return row | {"children": list(children)}


def test_an_exported_conversation_is_a_list_or_nested(write: Write) -> None:
    listed = exported(messages=[ASKED, LONG, SHORT, AGAIN, KURZ])
    bare = [{name: value for name, value in each.items() if name != "parentMessageId"} for each in (ASKED, LONG, SHORT, AGAIN, KURZ)]
    asked, long, short, again, kurz = bare
    tree = exported(
        recursive=True, messagesTree=[nested(asked, nested(short, nested(again, nested(kurz))), nested(long))], conversationId="c2"
    )
    found = read(write(listed, tree, name="a.jsonl"))
    assert found.dialogues == {"c1": TALK, "c2": TALK}
    assert found.by_users == [("a2", "regeneration", None, "Long")]
    assert found.conversations["user_id"].n_unique() == 2, "an export does not say whose it is"


def test_an_exported_conversation_may_be_poor(write: Write) -> None:
    poor = [{"messageId": "x", "sender": "User", "text": "a"}, {"messageId": "y", "sender": "Bot", "text": "b", "parentMessageId": "x"}]
    found = read(write(exported(messages=poor), exported(messages=[], conversationId="c2"), name="a.jsonl"))
    assert found.dialogues == {"c1": turns("a", "b")}
    assert found.conversations["assistant"].to_list() == ["gpt-5.6"]
    assert list(found.rejected.values()) == [Reason.NOT_A_LIST_OF_MESSAGES]


def test_tasks_for_sub_agents_are_nobodys_words(write: Write) -> None:
    task = message("u8", ROOT, "Look it up", conversationId="c8", subagentTask={"attemptKey": "x", "status": "completed"})
    found = read(write(ASKED, LONG, task))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.ingested.superseded.filter(pl.col("row_number") == 2)["cause"].to_list() == ["a task for a sub-agent"]


def test_a_time_that_cannot_be_read_costs_no_message(write: Write) -> None:
    found = read(write(ASKED | {"createdAt": "yesterday"}, LONG))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.conversations["started_at"].to_list() == [START.replace(minute=1)]


@pytest.mark.parametrize(
    ("odd", "detail"),
    [
        (message("a7", "u1", "Odd") | {"isCreatedByUser": "perhaps"}, "isCreatedByUser: "),
        (exported(messagesTree=["odd"]), "messages: "),
    ],
)
def test_what_cannot_be_read_is_told(odd: dict[str, object], detail: str, write: Write) -> None:
    found = read(write(ASKED, LONG, odd))
    assert list(found.rejected.values()) == [Reason.MISTYPED_FIELD]
    assert next(iter(found.details.values())).startswith(detail)


@pytest.mark.parametrize("row", [{"conversationId": "c1", "messages": [{"role": "user", "content": "a"}]}, {"messageId": "x", "text": "a"}])
def test_rows_of_other_layouts_are_no_rows_of_this(row: dict[str, object], write: Write) -> None:
    try:
        kind = detect_kind(str(write(row)))
    except ValueError:
        return
    assert kind is not SourceKind.LIBRECHAT
