"""ChatGPT's data export: the path that is shown, what is hidden, replies made anew, thumbs, comparisons, and whose export it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.layouts.chatgpt import FEEDBACK, OTHER_FILE
from tests.sources import lines, read


def node(name: str, parent: str | None, role: str | None = None, content: Any = None, **fields: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [content]} if isinstance(content, str) else content
    metadata = {"model_slug": "gpt-x" if role == "assistant" else None}
    message = {
        "id": name,
        "author": {"role": role, "name": fields.pop("tool", None)},
        "create_time": 1_790_000_000.5 + len(name),
        "content": content,
        "status": "finished_successfully",
        "weight": 1.0,
        "recipient": "all",
        "channel": None,
        "metadata": metadata | fields.pop("metadata", {}),
    }
    return {"id": name, "message": message | fields if role else None, "parent": parent, "children": []}


def conversation(*nodes: Mapping[str, Any], current: str | None, **fields: Any) -> dict[str, Any]:
    mapping = {each["id"]: {**each, "children": [other["id"] for other in nodes if other["parent"] == each["id"]]} for each in nodes}
    own = {"id": "c1", "conversation_id": "c1", "title": "t", "create_time": 1_790_000_000.0, "update_time": 1_790_000_900.0}
    return {**own, "mapping": mapping, "current_node": current, "default_model_slug": "auto", **fields}


def export(folder: Path, *conversations: Any, **others: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "conversations.json").write_text(json.dumps(conversations))
    for name, content in others.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def comparison(rating: str) -> dict[str, Any]:
    turns = {f"{name}_turn": [node(name, None, "assistant", name.title())["message"]] for name in ("original", "new")}
    step = {"completion_comparison_rating": rating, "new_completion_placement": "left", **turns}
    return {"id": rating, "input": {"conversation_id": "c1"}, "output": {"feedback_step_2": step}, "create_time": "2026-10-01T10:00:00Z"}


HIDDEN = {"is_visually_hidden_from_conversation": True}
TALK = (node("root", None), node("u1", "root", "user", "name a river"), node("a1", "u1", "assistant", "Rhine"))


def test_the_path_that_is_shown_and_the_replies_that_were_made_anew(tmp_path: Path) -> None:
    instructions = {"content_type": "user_editable_context", "user_profile": "p", "user_instructions": "i"}
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "c"}]}
    nodes = (
        node("root", None),
        node("s1", "root", "system", "", weight=0.0, metadata=HIDDEN),
        node("s2", "s1", "user", instructions, metadata=HIDDEN),
        node("u1", "s2", "user", "name a river"),
        node("t1", "u1", "assistant", thoughts),
        node("a1", "t1", "assistant", "Rhine"),
        node("t2", "u1", "assistant", thoughts),
        node("r2", "t2", "assistant", {"content_type": "reasoning_recap", "content": "Thought for 3s"}),
        node("a2", "r2", "assistant", "Elbe", metadata={"model_slug": "gpt-y"}),
        node("u2", "a1", "user", "longer"),
        node("u3", "a1", "user", "shorter"),
        node("a3", "u2", "assistant", "The river Rhine"),
        node("a4", "u3", "assistant", "R"),
    )
    found = read(export(tmp_path / "ann", conversation(*nodes, current="a3")))
    assert found.kind is SourceKind.CHATGPT
    assert found.dialogues == {"c1": [("u", "name a river"), ("a", "Rhine"), ("u", "longer"), ("a", "The river Rhine")]}
    assert found.feedback == [("a1", "regeneration", None, "Elbe", "end_user")]
    assert found.conversations["assistant"].to_list() == ["gpt-x"]
    assert [message["id"] for message in found.rows["messages"][0]] == ["u1", "a1", "u2", "a3"]
    other = read(export(tmp_path / "bob", conversation(*nodes, current="a2")))
    assert other.dialogues == {"c1": [("u", "name a river"), ("a", "Elbe")]}
    assert other.feedback == [("a2", "regeneration", None, "Rhine", "end_user")]
    assert other.conversations["assistant"].to_list() == ["gpt-y"]


CONTENTS: dict[str, tuple[Any, str]] = {
    "pictures": (
        {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer", "asset_pointer": "x"}, "a b"]},
        "[image]\na b",
    ),
    "speech": (
        {
            "content_type": "multimodal_text",
            "parts": [{"content_type": "audio_transcription", "text": "a b"}, {"content_type": "audio_asset_pointer"}],
        },
        "a b\n[audio]",
    ),
    "code": ({"content_type": "code", "language": "python", "text": "1 + 1"}, "1 + 1"),
    "json in text": ('{"content_type": "text", "parts": ["a b"]}', "a b"),
    "bare text": ("a b", "a b"),
    "an unknown type": ({"content_type": "hologram", "data": 1}, "[hologram]"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_types(name: str, tmp_path: Path) -> None:
    content, text = CONTENTS[name]
    asked = node("u2", "a1", "user", "x")
    asked["message"]["content"] = content
    found = read(export(tmp_path, conversation(*TALK, asked, node("a2", "u2", "assistant", "Yes."), current="a2")))
    assert found.dialogues["c1"][2] == ("u", text)


def test_tools_commentary_and_what_is_hidden(tmp_path: Path) -> None:
    nodes = (
        *TALK,
        node("u2", "a1", "user", "how long is it?"),
        node("c1", "u2", "assistant", "I look it up.", channel="commentary"),
        node("c2", "c1", "assistant", {"content_type": "code", "text": "search()"}, recipient="web", channel="commentary"),
        node("x2", "c2", "tool", {"content_type": "execution_output", "text": "1233"}, tool="web"),
        node("h2", "x2", "assistant", "draft", weight=0),
        node("a2", "h2", "assistant", "1233 km", channel="final"),
        node("m2", "a2", "system", "", metadata=HIDDEN),
    )
    found = read(export(tmp_path, conversation(*nodes, current="m2")))
    assert found.dialogues["c1"][2:] == [("u", "how long is it?"), ("a", "[tool call: web]\n\n[tool result: web]\n\n1233 km")]
    assert found.feedback == []


def test_thumbs_and_comparisons_lie_beside_the_conversations(tmp_path: Path) -> None:
    own = {"conversation_id": "c1", "user_id": "user-7", "create_time": "2026-10-01T10:00:00Z"}
    thumbs = [
        own | {"id": "a1", "rating": "thumbs_down", "content": '{"tags": ["not-helpful"], "text": "which Rhine?"}'},
        own | {"message_id": "a2", "id": "f2", "rating": "thumbsUp", "content": "{}"},
        own | {"id": "a3", "rating": "none", "content": '{"text": "hm"}'},
        own | {"rating": "thumbs_up", "content": None},
        own | {"id": "a5", "rating": None},
    ]
    comparisons = [comparison(rating) for rating in ("new", "original", "same")]
    shared = [{"id": "l1", "conversation_id": "c1", "title": "t", "is_anonymous": True}]
    folder = export(
        tmp_path, conversation(*TALK, current="a1"), message_feedback=thumbs, model_comparisons=comparisons, shared_conversations=shared,
        user={"id": "user-7", "email": "x"},
    )  # fmt: skip
    found = read(folder)
    assert found.kind is SourceKind.CHATGPT
    assert list(found.dialogues) == ["c1"]
    assert not found.rejected
    assert sorted(found.superseded.values()) == [FEEDBACK] * 6 + [OTHER_FILE] * 4
    assert found.feedback == [
        ("a1", "thumb", -1.0, "not-helpful\nwhich Rhine?", "end_user"),
        ("a2", "thumb", 1.0, None, "end_user"),
        ("a3", "comment", None, "hm", "end_user"),
        ("c1", "thumb", 1.0, None, "end_user"),
        ("new", "choice", None, "Original", "end_user"),
        ("original", "choice", None, "New", "end_user"),
    ]


def test_an_export_is_one_persons(tmp_path: Path) -> None:
    def users(location: Path) -> list[str]:
        rows = read(location).rows
        return rows.filter(pl.col("superseded").is_null())["user_key"].to_list()

    pair = [conversation(*TALK, current="a1", id=name, conversation_id=name) for name in ("c1", "c2")]
    export(tmp_path / "exports" / "ann", *pair)
    export(tmp_path / "exports" / "bob", conversation(*TALK, current="a1", id="c3"), user={"id": "user-7"})
    assert users(tmp_path / "exports") == ["ann", "ann", "user-7"]
    assert users(tmp_path / "exports" / "ann") == ["ann", "ann"]
    assert users(tmp_path / "exports" / "bob" / "conversations.json") == ["user-7"]
    (tmp_path / "exports" / "bob" / "user.json").write_text("[")
    assert users(tmp_path / "exports" / "*" / "conversations.json") == ["ann", "ann", "bob"]


def test_several_files_and_odd_trees(tmp_path: Path) -> None:
    by_children = conversation(*TALK, current=None, id="children")
    for each in by_children["mapping"].values():
        del each["parent"]
    as_text = conversation(*TALK, current="a1", id="text")
    as_text["mapping"] = json.dumps(as_text["mapping"])
    sparse = conversation(*TALK, current="gone", id="sparse")
    sparse["mapping"] |= {"of another conversation": None}
    as_list = conversation(*TALK, current="a1", id="list")
    as_list["mapping"] = list(as_list["mapping"].values())
    bare = conversation(*TALK, current="a1", id="bare")
    for each in bare["mapping"].values():
        if each["message"]:
            each["message"] = {"author": each["message"]["author"]["role"], "content": each["message"]["content"]}
    (tmp_path / "conversations-000.json").write_text(json.dumps([by_children, as_text, sparse]))
    (tmp_path / "conversations-001.json").write_text(json.dumps([as_list, bare, conversation(current=None, id="empty")]))
    broken = [conversation(*TALK, current="a1") | {"mapping": mapping} for mapping in (None, "text", 3)]
    lines(tmp_path / "more.jsonl", broken)
    found = read(tmp_path)
    said = found.rows.filter(pl.col("unreadable").is_null()).select("conversation_id", pl.col("messages").list.eval(pl.element().struct[1]))
    whole = {name: ["name a river", "Rhine"] for name in ("children", "text", "sparse", "list", "bare")}
    assert dict(said.iter_rows()) == {**whole, "empty": []}
    assert {name: reason for name, reason in found.rejected.items() if reason != Reason.DUPLICATE_CONVERSATION} == {
        "conversations-001.json#2": Reason.NOT_A_LIST_OF_MESSAGES,
        **{f"more.jsonl#{number}": Reason.MISTYPED_FIELD for number in range(3)},
    }


def test_parquet_with_the_nodes_of_all_conversations(tmp_path: Path) -> None:
    rows = [
        conversation(*TALK, current="a1", id="c1"),
        conversation(node("v1", None, "user", "x"), node("b1", "v1", "assistant", "y"), current="b1", id="c2"),
    ]
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "conversations.parquet")
    assert read(tmp_path).dialogues == {"c1": [("u", "name a river"), ("a", "Rhine")], "c2": [("u", "x"), ("a", "y")]}
