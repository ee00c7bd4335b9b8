"""Open WebUI's chats, messages and ratings: one conversation a chat, whatever of them a source has."""

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

T0 = 1_790_000_000
START = datetime.fromtimestamp(T0, UTC)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def rows(*rows: object, name: str = "chats.json") -> Path:
        (tmp_path / name).write_text(json.dumps(list(rows)), encoding="utf-8")
        return tmp_path

    return rows


def message(name: str, parent: str | None, role: str, content: object, **fields: object) -> dict[str, object]:
    seconds = T0 + 10 * len(name) + ord(name[-1]) - ord("0")
    return {"id": name, "parentId": parent, "childrenIds": [], "role": role, "content": content, "timestamp": seconds} | fields


def chat(*messages: dict[str, Any], name: str = "c1", current: str | None = None, **fields: object) -> dict[str, object]:
    tree = {each["id"]: each for each in messages}
    history = {"currentId": current or messages[-1]["id"], "messages": tree}
    row = {"id": name, "user_id": "u-42", "title": "Rivers", "created_at": T0, "updated_at": T0 + 500, "archived": False}
    return row | {"chat": {"id": "", "models": ["llama3"], "history": history, "messages": []}} | fields


ASKED = message("m1", None, "user", "Summarise")
LONG = message("m2", "m1", "assistant", "Long", model="llama3", done=True)
SHORT = message("m3", "m1", "assistant", "Short", model="llama3", done=True)
AGAIN = message("m4", "m3", "user", "In German, please")
KURZ = message("m5", "m4", "assistant", "Kurz", model="llama3", done=True)


def test_the_branch_shown_is_the_conversation_and_regenerations_are_feedback(write: Write) -> None:
    found = read(write(chat(ASKED, LONG, SHORT, AGAIN, KURZ)))
    row = found.conversations.row(0, named=True)
    assert found.dialogues == {"c1": turns("Summarise", "Short", "In German, please", "Kurz")}
    assert row["started_at"] == START
    assert row["assistant"] == "llama3"
    assert [each["sent_at"].timestamp() - T0 for each in row["messages"]] == [21, 23, 24, 25]
    assert found.by_users == [("m3", "regeneration", None, "Long")]


def test_what_the_source_shows_counts_and_not_what_is_latest(write: Write) -> None:
    edited = message("m6", None, "user", "Sumarize it")
    found = read(write(chat(ASKED, LONG, SHORT, edited, message("m7", "m6", "assistant", "It"), current="m2")))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.by_users == [("m2", "regeneration", None, "Short")]


def test_users_are_told_apart_and_their_chats_are_theirs(write: Write) -> None:
    other = chat(message("n1", None, "user", "Hi"), message("n2", "n1", "assistant", "Ho", model="m"), name="c2", user_id="u-43")
    found = read(
        write(chat(ASKED, LONG), chat(message("o1", None, "user", "Ha"), message("o2", "o1", "assistant", "Hu"), name="c3"), other)
    )
    users = dict(found.conversations.select("conversation_id", "user_id").iter_rows())
    assert users["c1"] == users["c3"] != users["c2"]


@pytest.mark.parametrize("rating", [-1, "-1", -1.0])
def test_a_thumb_has_its_reason_and_comment_and_details(write: Write, rating: object) -> None:
    annotation = {"rating": rating, "reason": "too_long", "comment": "three lines", "tags": ["Rivers"], "details": {"rating": 3}}
    found = read(write(chat(ASKED, LONG | {"annotation": annotation, "feedbackId": "f1"})))
    assert found.by_users == [("m2", "comment", None, "three lines"), ("m2", "rating", 3.0, None), ("m2", "thumb", -1.0, "too_long")]


def test_an_old_thumb_is_a_field_of_the_message(write: Write) -> None:
    found = read(write(chat(ASKED, LONG | {"rating": 1})))
    assert found.by_users == [("m2", "thumb", 1.0, None)]


@pytest.mark.parametrize("annotation", [None, {}, "good", {"rating": None}, {"rating": "great"}, {"rating": 0}, {"details": "fine"}])
def test_an_odd_thumb_costs_no_chat(write: Write, annotation: object) -> None:
    found = read(write(chat(ASKED, LONG | {"annotation": annotation})))
    assert len(found.conversations) == 1
    assert found.by_users == []


def test_an_edited_reply_is_there_as_the_model_wrote_it(write: Write) -> None:
    found = read(write(chat(ASKED, LONG | {"originalContent": "Long", "content": "Brief"})))
    assert found.dialogues["c1"] == turns("Summarise", "Long")
    assert found.by_users == [("m2", "edit", None, "Brief")]


def test_answers_side_by_side_are_a_choice_once_the_user_goes_on(write: Write) -> None:
    beside = [message(f"m{number}", "m1", "assistant", text, modelIdx=number - 2) for number, text in ((2, "Long"), (3, "Short"))]
    found = read(write(chat(ASKED, *beside, AGAIN, KURZ)))
    assert found.by_users == [("m3", "choice", None, "Long")]
    found = read(write(chat(ASKED, *beside)))
    assert found.by_users == [], "that the last one is shown is no choice"
    found = read(write(chat(ASKED, *beside, message("m4", "m1", "assistant", "Shorter", modelIdx=1))))
    assert found.by_users == [("m4", "regeneration", None, "Short")]


def test_answers_side_by_side_are_told_by_the_models_asked_in_older_chats(write: Write) -> None:
    beside = [message(f"m{number}", "m1", "assistant", "x" * number, model=model) for number, model in ((2, "a"), (3, "b"))]
    found = read(write(chat(ASKED | {"models": ["a", "b"]}, *beside)))
    assert found.by_users == []


@pytest.mark.parametrize(("rating", "vote"), [(1, ("m3", "choice", None, "Long")), (-1, ("m2", "choice", None, "Short"))])
def test_a_thumb_in_the_arena_is_a_vote_between_siblings_and_outranks_what_is_shown(
    write: Write, rating: int, vote: tuple[str, str, None, str]
) -> None:
    voted = SHORT | {"arena": True, "selectedModelId": "qwen3", "model": "arena-model", "annotation": {"rating": rating}}
    found = read(write(chat(ASKED, LONG, voted)))
    assert found.by_users == sorted([vote, ("m3", "thumb", float(rating), None)], key=str)
    assert found.conversations["assistant"].to_list() == ["qwen3"]


@pytest.mark.parametrize("error", [True, {"content": "Uh-oh"}, "Uh-oh", '{"content": "Uh-oh"}'])
def test_an_error_is_no_reply(write: Write, error: object) -> None:
    failed = SHORT | {"error": error}
    found = read(write(chat(ASKED, LONG, failed)))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}, "the reply that was left for the error is the reply"
    assert found.by_users == []
    found = read(write(chat(ASKED, failed, LONG, current="m2")))
    assert found.by_users == [], "no reply is left for an error, nor an error for a reply"
    found = read(write(chat(ASKED, failed)))
    assert list(found.rejected.values()) == [Reason.UNANSWERED_ONLY]
    found = read(write(chat(ASKED, LONG, failed, AGAIN, KURZ)))
    assert found.dialogues == {"c1": turns("Summarise\n\nIn German, please", "Kurz")}
    assert found.by_users == []


@pytest.mark.parametrize("error", [None, False, {}, "", "null", "false"])
def test_no_error_is_none(write: Write, error: object) -> None:
    found = read(write(chat(ASKED, LONG | {"error": error})))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}


def test_a_reply_that_broke_off_stays_where_the_user_went_on_and_is_preferred_to_nothing(write: Write) -> None:
    cut = SHORT | {"done": False}
    found = read(write(chat(ASKED, LONG, cut, AGAIN, KURZ)))
    assert found.dialogues["c1"][1] == ("a", "Short")
    assert found.by_users == []
    found = read(write(chat(ASKED, LONG, cut)))
    assert found.dialogues["c1"] == turns("Summarise", "Long")
    assert found.by_users == []


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "model": "m"}]


def flat(*messages: dict[str, Any], name: str = "c1") -> dict[str, object]:
    return {"id": name, "user_id": "u", "created_at": T0, "chat": {"id": "", "models": ["m"], "messages": list(messages)}}


def test_older_chats_have_the_branch_shown_only(write: Write) -> None:
    named = [{**TURNS[0], "id": "x"}, {**TURNS[1], "id": "y", "annotation": {"rating": 1}}]
    linked = [{**TURNS[0], "id": "p"}, {**TURNS[0], "id": "q"}, {**TURNS[1], "id": "r", "parentId": "q"}]
    rows = [flat(*TURNS), flat(*named, name="c2") | {"user_id": "v"}, flat(*linked, name="c3") | {"user_id": "w"}, flat(name="c4")]
    found = read(write(*rows))
    assert found.dialogues == {name: turns("a", "b") for name in ("c1", "c2", "c3")}, "an edited prompt is no message of the conversation"
    assert found.ingested.quarantine.select("conversation_id", "reason").rows() == [("c4", Reason.NOT_A_LIST_OF_MESSAGES)]
    assert found.by_users == [("y", "thumb", 1.0, None)]


def test_messages_without_ids_have_their_place_and_no_feedback_of_others(write: Write) -> None:
    rated = [TURNS[0], {**TURNS[1], "annotation": {"rating": 1}}, {**TURNS[0], "id": "z"}, TURNS[1]]
    found = read(write(flat(*rated), flat(*TURNS, name="c2")))
    assert found.dialogues == {"c1": turns("a", "b", "a", "b"), "c2": turns("a", "b")}
    assert found.by_users == [("c1#1", "thumb", 1.0, None)]
    tree = {"x": {**ASKED, "id": None}, "m2": {**LONG, "id": None, "parentId": "x"}}
    found = read(write(chat(ASKED) | {"chat": {"history": {"messages": tree}}}))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("left_out", [(), ("created",), ("id", "user")])
def test_a_list_with_branches_and_no_frame_is_one_conversation_and_no_part_of_another(
    write: Write, order: int, left_out: tuple[str, ...]
) -> None:
    first = [ASKED, LONG, SHORT, AGAIN, KURZ]
    second = [message("x0", None, "user", "Sumarise"), message("x1", None, "user", "Summarise"), message("x2", "x1", "assistant", "Short")]
    rows = [{"id": f"o{number}", "user": "u", "created": T0 + number, "messages": each} for number, each in enumerate((first, second))]
    kept = [{name: value for name, value in row.items() if name not in left_out} for row in rows[::order]]
    found = read(write(*kept))
    assert found.kind is SourceKind.MESSAGES
    assert sorted(found.dialogues.values(), key=len) == [
        turns("Summarise", "Short"),
        turns("Summarise", "Short", "In German, please", "Kurz"),
    ]


def test_the_oldest_exports_have_no_frame_around_the_chat(write: Write) -> None:
    inner = chat(ASKED, LONG)["chat"]
    assert isinstance(inner, dict)
    found = read(write(inner | {"id": "c1"}, inner, inner | {"history": {"currentId": "b", "messages": {"b": LONG | {"parentId": None}}}}))
    assert len(found.conversations) == 2, "what has no name is no other conversation's part"
    assert list(found.rejected.values()) == [Reason.NO_USER_MESSAGE]


def test_a_dump_has_the_chat_as_text(write: Write, tmp_path: Path) -> None:
    row = chat(ASKED, LONG)
    pl.DataFrame([row | {"chat": json.dumps(row["chat"])}]).write_parquet(tmp_path / "chats.parquet")
    found = read(tmp_path)
    assert found.dialogues == {"c1": turns("Summarise", "Long")}


def test_a_table_of_trees_has_every_message_of_any_chat_as_a_column(tmp_path: Path) -> None:
    other = chat(message("n1", None, "user", "Hi"), message("n2", "n1", "assistant", "Ho"), name="c2")
    pl.DataFrame([chat(ASKED, LONG), other]).write_parquet(tmp_path / "chats.parquet")
    found = read(tmp_path)
    assert found.dialogues == {"c1": turns("Summarise", "Long"), "c2": turns("Hi", "Ho")}


def test_a_chat_that_was_shared_is_there_once(write: Write) -> None:
    found = read(write(chat(ASKED, LONG), chat(ASKED, LONG, name="c9", user_id="shared-c1")))
    assert list(found.dialogues) == ["c1"]
    assert list(found.superseded.values()) == ["a copy of a chat for those whom it was shared with"]


TEXTS = {
    "thoughts": ('<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n&gt; hm\n</details>\nLong', "Long"),
    "thoughts cut off": ('<details type="reasoning" done="false">\n<summary>Thinking</summary>', None),
    "a call": (
        '<details type="tool_calls" done="true" id="1" name="maps" arguments="&quot;&quot;">\n</details>\nLong',
        "[tool call: maps]\nLong",
    ),
    "code": ('Long\n<details type="code_interpreter" done="true">\nx\n</details>', "Long\n[tool call: code_interpreter]"),
    "other details": ("<details>\n<summary>More</summary>\nLong</details>", "<details>\n<summary>More</summary>\nLong</details>"),
    "blocks": (
        [{"type": "text", "text": "Long"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "new"}],
        "Long\n[image]\n[new]",
    ),
    "JSON": ('{"long": true}', '{"long": true}'),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_reply_says_is_what_the_user_saw(name: str, write: Write) -> None:
    content, text = TEXTS[name]
    found = read(write(chat(ASKED, LONG | {"content": content})))
    assert found.dialogues == ({"c1": turns("Summarise", text)} if text else {})


def test_files_are_markers_and_output_stands_for_content(write: Write) -> None:
    files = [{"type": "image", "url": "x"}, {"type": "file", "name": "a.pdf", "file": {"data": {"content": "secret"}}}, "odd"]
    output = [{"type": "reasoning", "content": []}, {"type": "message", "content": [{"type": "output_text", "text": "Long"}]}]
    found = read(write(chat(ASKED | {"files": files}, LONG | {"content": "", "output": output})))
    assert found.dialogues == {"c1": turns("Summarise\n[image]\n[file]\n[file]", "Long")}


def row_of(of: dict[str, Any], **fields: object) -> dict[str, object]:
    """A message as the table has it."""
    row = {"id": f"c1-{of['id']}", "chat_id": "c1", "user_id": "u-42", "role": of["role"], "parent_id": of["parentId"]}
    row |= {"content": of["content"], "output": None, "model_id": of.get("model"), "files": None, "done": True, "error": None}
    return row | {"created_at": of["timestamp"], "updated_at": T0 + 900} | fields


def test_rows_of_the_table_are_put_together_in_any_order(write: Write) -> None:
    found = read(write(*(row_of(each) for each in (KURZ, LONG, ASKED, AGAIN, SHORT))))
    assert found.dialogues == {"c1": turns("Summarise", "Short", "In German, please", "Kurz")}
    assert found.conversations.select("assistant", "started_at").row(0) == ("llama3", datetime.fromtimestamp(T0 + 21, UTC))
    assert found.by_users == [("m3", "regeneration", None, "Long")]
    assert sorted(found.superseded.values()) == ["a branch that was left for another", *["part of the conversation of another row"] * 3]


def test_rows_of_the_table_may_be_odd(write: Write) -> None:
    rows = [
        row_of(ASKED, content='"Summarise"', created_at="yesterday"),
        row_of(LONG, id="c1-m2", parent_id="c1-m1", content='[{"type": "text", "text": "Long"}]'),
        row_of(SHORT, error={"content": "Uh-oh"}),
        row_of(message("m8", None, "user", "Lost"), chat_id=None),
    ]
    found = read(write(*rows), assumed_model=None)
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.by_users == []
    assert list(found.rejected.values()) == [Reason.MISSING_FIELD]


def rating(target: str = "m2", value: object = -1, *, at: int = 100, snapshot: object = None, **meta: object) -> dict[str, object]:
    data = {"rating": value, "model_id": "llama3", "reason": "too_long", "comment": "three lines"}
    meta = {"arena": False, "chat_id": "c1", "message_id": target, "message_index": 2} | meta
    row = {"id": f"f-{target}", "user_id": "u-42", "version": 0, "type": "rating", "data": data, "meta": meta}
    return row | {"snapshot": snapshot and {"chat": snapshot}, "created_at": T0 + at, "updated_at": T0 + at}


RATED = [("m2", "comment", None, "three lines"), ("m2", "thumb", -1.0, "too_long")]


def test_a_rating_has_the_chat_as_it_was(write: Write) -> None:
    found = read(write(rating("m2", "-1", snapshot=chat(ASKED, LONG, SHORT))))
    assert found.dialogues == {"c1": turns("Summarise", "Short")}
    assert found.by_users == sorted([*RATED, ("m3", "regeneration", -1.0, "Long")], key=str)


def test_a_vote_needs_the_siblings(write: Write) -> None:
    found = read(write(rating("m3", 1, snapshot=chat(ASKED, LONG, SHORT), arena=True)))
    assert ("m3", "choice", None, "Long") in found.by_users
    assert "regeneration" not in {kind for _, kind, _, _ in found.by_users}
    found = read(write(rating("m3", 1, arena=True)))
    assert {kind for _, kind, _, _ in found.by_users} == {"thumb", "comment"}
    assert list(found.superseded.values()) == ["a rating"]


def test_of_several_snapshots_the_latest_counts_in_any_order(write: Write) -> None:
    early = chat(ASKED, LONG | {"content": "Lon", "done": False}, updated_at=T0 + 100)
    late = chat(ASKED, LONG, SHORT, current="m2", updated_at=T0 + 300)
    between = chat(ASKED, LONG, SHORT, updated_at=T0 + 200)
    rows = [rating("m2", at=300, snapshot=late), rating("m3", at=200, snapshot=between), rating("m2", at=100, snapshot=early)]
    for order in (rows, rows[::-1]):
        found = read(write(*order))
        assert found.dialogues == {"c1": turns("Summarise", "Long")}
        assert [each for each in found.by_users if each[0] == "m2"] == sorted([*RATED, ("m2", "regeneration", -1.0, "Short")], key=str)


def test_chats_messages_and_ratings_are_one_source(write: Write) -> None:
    annotated = LONG | {"annotation": {"rating": -1, "reason": "too_long", "comment": "three lines"}, "feedbackId": "f-m2"}
    write(chat(ASKED, annotated, SHORT, AGAIN, KURZ))
    write(*(row_of(each) for each in (ASKED, LONG, SHORT, AGAIN, KURZ)), name="messages.json")
    location = write(rating(snapshot=chat(ASKED, LONG, SHORT, updated_at=T0 + 100)), rating("m5", 1), name="ratings.json")
    found = read(location)
    assert found.dialogues == {"c1": turns("Summarise", "Short", "In German, please", "Kurz")}
    m5 = [("m5", kind, value, text) for _, kind, value, text in RATED for value in [value and -value]]
    assert found.by_users == sorted([*RATED, *m5, ("m3", "regeneration", -1.0, "Long")], key=str)
    assert len(found.superseded) == 7
    said = found.ingested.explicit_feedback.filter(pl.col("kind").is_in(["thumb", "regeneration"])).sort("value")
    placed = said.join(found.conversations.explode("messages").unnest("messages"), left_on="reply_id", right_on="message_id")
    assert placed.select("kind", "value", "content").rows() == [("regeneration", -1.0, "Short"), ("thumb", 1.0, "Kurz")], (
        "a thumb on a reply that was left is on none of the conversation's"
    )


def test_a_thumb_that_is_there_twice_has_the_time_of_the_rating(write: Write) -> None:
    annotated = LONG | {"annotation": {"rating": -1, "reason": "too_long"}}
    write(chat(ASKED, annotated))
    found = read(write(rating(), name="ratings.json"))
    given = [at for (_, kind, *_), at in zip(found.feedback, found.given_at, strict=True) if kind == "thumb"]
    assert given == [datetime.fromtimestamp(T0 + 100, UTC)]


def test_a_chat_whose_messages_are_in_the_table_only_is_no_second_one(write: Write) -> None:
    empty = chat(ASKED)
    empty["chat"] = {"models": ["qwen3"], "history": {"currentId": "m2", "messages": {}}}
    write(empty)
    rows = [row_of(each, model_id=None, user_id=None) for each in (ASKED, LONG, SHORT)]
    found = read(write(*rows, name="messages.json"))
    assert found.dialogues == {"c1": turns("Summarise", "Long")}
    assert found.conversations["assistant"].to_list() == ["qwen3"]
    assert not found.rejected


ODD = {
    "a rating that is none": (rating(value="great"), "data.rating: "),
    "messages that are none": (flat() | {"chat": {"messages": "a"}}, "chat.messages: "),
    "a message that is none": (flat() | {"chat": {"messages": ["a"]}}, "chat.messages.0: "),
    "a message of a tree that is none": (chat(ASKED) | {"chat": {"history": {"messages": {"m1": "a"}}}}, "chat.history.messages: "),
    "a start that is none": (chat(ASKED, LONG, created_at="yesterday"), "started_at: "),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_read_is_told(name: str, write: Write) -> None:
    row, detail = ODD[name]
    found = read(write(row, chat(ASKED, LONG, name="sound")))
    assert list(found.dialogues) == ["sound"]
    assert list(found.rejected.values()) == [Reason.MISTYPED_FIELD]
    assert next(iter(found.details.values())).startswith(detail)


@pytest.mark.parametrize(
    "row",
    [
        {"id": "c1", "chat": [{"role": "user", "content": "a"}]},
        {"chat_id": "c1", "messages": TURNS},
        {"type": "rating", "data": [1]},
        {"history": {"messages": TURNS}},
        {"id": "c1", "role": "user", "content": "a"},
    ],
)
def test_rows_of_other_layouts_are_no_rows_of_this(row: dict[str, object], write: Write) -> None:
    try:
        kind = detect_kind(str(write(row)))
    except ValueError:
        return
    assert kind is not SourceKind.OPEN_WEBUI
