"""OpenAssistant's trees, whole and as messages: the best ranked path, what was ranked below it, and who is the user."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.assembly import BRANCH, PART
from tests.sources import lines, read


def message(name: str, parent: str | None, role: str, text: str, **fields: Any) -> dict[str, Any]:
    own = {
        "message_id": name,
        "parent_id": parent,
        "user_id": f"user of {name}",
        "created_date": "2026-10-01T10:00:00.5+00:00",
        "text": text,
    }
    return {
        **own,
        "role": role,
        "lang": "en",
        "review_count": 3,
        "deleted": False,
        "rank": None,
        "synthetic": False,
        "model_name": None,
        **fields,
    }


QUALITY = {"quality": {"value": 0.75, "count": 3}, "spam": {"value": 0.0, "count": 3}}
MESSAGES = (
    message("p1", None, "prompter", "name a river"),
    message("a1", "p1", "assistant", "A river", rank=2),
    message("a2", "p1", "assistant", "Rhine", rank=0, labels=QUALITY),
    message("a3", "p1", "assistant", "Elbe", rank=1, labels={}),
    message("a4", "p1", "assistant", "unranked"),
    message("p2", "a1", "prompter", "which?"),
    message("p3", "a2", "prompter", "longer", rank=1),
    message("p4", "a2", "prompter", "shorter", rank=0),
    message("a5", "p3", "assistant", "The river Rhine"),
    message("a6", "p4", "assistant", "R", rank=1.0),
    message("a7", "p4", "assistant", "Rh", rank=0.0),
)
DIALOGUE = [("u", "name a river"), ("a", "Rhine"), ("u", "shorter"), ("a", "Rh")]
FEEDBACK = [
    ("a2", "choice", None, "A river", "staff"),
    ("a2", "choice", None, "Elbe", "staff"),
    ("a2", "rating", 0.75, None, "staff"),
    ("a7", "choice", None, "R", "staff"),
]


def tree(root: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    return {**root, "replies": [tree(each, *others) for each in others if each["parent_id"] == root["message_id"]]}


def test_a_tree_a_row(tmp_path: Path) -> None:
    found = read(
        lines(tmp_path / "a.trees.jsonl", [{"message_tree_id": "p1", "tree_state": "ready_for_export", "prompt": tree(*MESSAGES)}])
    )
    assert found.kind is SourceKind.OASST
    assert found.dialogues == {"p1": DIALOGUE}
    assert found.feedback == FEEDBACK
    row = found.rows.row(0, named=True)
    assert (row["user_key"], row["assistant"], row["language"]) == ("user of p1", "human", "en")
    assert row["started_at"] == datetime(2026, 10, 1, 10, 0, 0, 500_000, UTC)
    assert [message["id"] for message in row["messages"]] == ["p1", "a2", "p4", "a7"]


def test_a_message_a_row(tmp_path: Path) -> None:
    rows = [{**each, "message_tree_id": "p1", "tree_state": "ready_for_export"} for each in MESSAGES]
    found = read(lines(tmp_path / "a.messages.jsonl", rows))
    assert found.kind is SourceKind.OASST
    assert found.dialogues == {"p1": DIALOGUE}
    assert found.feedback == FEEDBACK
    on_path, kept = (0, 2, 7), 10
    assert found.superseded == {f"a.messages.jsonl#{n}": PART if n in on_path else BRANCH for n in range(11) if n != kept}
    row = found.rows.row(kept, named=True)
    assert (row["user_key"], row["assistant"], row["language"]) == ("user of p1", "human", "en")


def test_messages_in_parquet_with_labels_side_by_side(tmp_path: Path) -> None:
    labels = {"name": ["spam", "quality"], "value": [0.0, 0.75], "count": [3, 3]}
    bare = [{name: value for name, value in each.items() if name != "labels"} for each in MESSAGES]
    rows = [{**each, "message_tree_id": "p1", "labels": labels if each["message_id"] == "a2" else None} for each in bare]
    pl.DataFrame(rows[::-1], infer_schema_length=None).write_parquet(tmp_path / "train-00000-of-00001.parquet")
    found = read(tmp_path)
    assert (found.kind, found.dialogues, found.feedback) == (SourceKind.OASST, {"p1": DIALOGUE}, FEEDBACK)


def test_synthetic_and_deleted_replies(tmp_path: Path) -> None:
    rows = [
        message("p1", None, "prompter", "name a river"),
        message("a1", "p1", "assistant", "insults", rank=0, deleted=True),
        message("a2", "p1", "assistant", "Rhine", rank=1, synthetic=True, model_name="oasst-sft"),
    ]
    found = read(lines(tmp_path / "a.jsonl", [each | {"message_tree_id": "p1"} for each in rows]))
    assert found.dialogues == {"p1": [("u", "name a river"), ("a", "Rhine")]}
    assert found.conversations["assistant"].to_list() == ["oasst-sft"]
    assert found.feedback == []


ODD: dict[str, tuple[dict[str, Any], list[tuple[str, str]] | str]] = {
    "no names": (
        {
            "prompt": {
                "text": "a",
                "role": "prompter",
                "replies": [{"text": "b", "role": "assistant", "replies": None}, {"text": "c", "role": "assistant"}],
            }
        },
        [("u", "a"), ("a", "b")],
    ),
    "json in text": (
        {"prompt": json.dumps({"text": "a", "role": "prompter", "replies": [{"text": "b", "role": "assistant"}]})},
        [("u", "a"), ("a", "b")],
    ),
    "no reply": ({"prompt": {"text": "a", "role": "prompter"}}, Reason.UNANSWERED_ONLY),
    "no text": ({"prompt": {"text": None, "role": "prompter", "replies": []}}, Reason.NO_USER_MESSAGE),
    "a reply that is text": ({"prompt": {"text": "a", "role": "prompter", "replies": ["b"]}}, Reason.MISTYPED_FIELD),
    "a prompt that is text": ({"prompt": "a"}, Reason.MISTYPED_FIELD),
    "no tree": ({"message_tree_id": None, "prompt": {"text": "a", "role": "prompter"}}, Reason.MISTYPED_FIELD),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_trees(name: str, tmp_path: Path) -> None:
    row, expected = ODD[name]
    sound = {"message_tree_id": "p1", "prompt": tree(*MESSAGES)}
    found = read(lines(tmp_path / "a.jsonl", [sound, {"message_tree_id": "x", **row}]))
    assert found.dialogues["p1"] == DIALOGUE
    assert found.dialogues.get("x", found.rejected.get("a.jsonl#1")) == expected


def test_deep_trees_are_read(tmp_path: Path) -> None:
    rows = [
        message(f"m{depth}", f"m{depth - 1}" if depth else None, ("prompter", "assistant")[depth % 2], str(depth), message_tree_id="m0")
        for depth in range(3_000)
    ]
    found = read(lines(tmp_path / "a.jsonl", rows), max_messages=10_000)
    assert [text for _, text in found.dialogues["m0"]] == [str(depth) for depth in range(3_000)]
