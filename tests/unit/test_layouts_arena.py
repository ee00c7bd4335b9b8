"""Battles of two models: the winner's conversation, the reply that was not chosen, and who chose."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import SourceKind
from tests.sources import lines, read

NAMES = ("user", "assistant")


def side(*texts: Any) -> list[dict[str, Any]]:
    return [{"role": NAMES[number % 2], "content": text} for number, text in enumerate(texts)]


def battle(winner: str | None = "model_a", **fields: Any) -> dict[str, Any]:
    sides = {
        "conversation_a": side("name a river", "Rhine", "shorter", "R"),
        "conversation_b": side("name a river", "Elbe", "shorter", "E"),
    }
    own = {"question_id": "q1", "model_a": "x", "model_b": "y", "winner": winner, "judge": "arena_user_7", "turn": 2, "anony": True}
    flags = {"openai_moderation": {"flagged": False}, "toxic_chat_tag": {}}
    return {**own, **sides, "language": "English", "tstamp": 1_790_000_000.5, **flags, **fields}


A, B = ([("u", "name a river"), ("a", name), ("u", "shorter"), ("a", name[0])] for name in ("Rhine", "Elbe"))


@pytest.mark.parametrize(
    ("winner", "said", "model", "left"),
    [
        ("model_a", A, "x", "Elbe"),
        ("model_b", B, "y", "Rhine"),
        (" Model_B ", B, "y", "Rhine"),
        ("tie", A, "x", None),
        ("tie (bothbad)", A, "x", None),
        ("both_bad", A, "x", None),
        (None, A, "x", None),
    ],
)
def test_the_conversation_is_the_winners(
    winner: str | None, said: list[tuple[str, str]], model: str, left: str | None, tmp_path: Path
) -> None:
    found = read(lines(tmp_path / "a.jsonl", [battle(winner)]))
    assert found.kind is SourceKind.ARENA
    assert found.dialogues == {"q1": said}
    assert found.feedback == ([("q1/1", "choice", None, left, "end_user")] if left else [])
    row = found.rows.row(0, named=True)
    assert (row["user_key"], row["assistant"], row["language"], row["is_toxic"]) == ("arena_user_7", model, "English", False)
    assert row["started_at"] == datetime.fromtimestamp(1_790_000_000.5, UTC)
    assert [message["id"] for message in row["messages"]] == ["q1/0", "q1/1", "q1/2", "q1/3"]


def test_a_choice_is_where_the_dialogue_was_the_same(tmp_path: Path) -> None:
    same = side("name a river", "Rhine", "shorter", "Rh")
    rows = [
        battle(question_id="later", conversation_b=same),
        battle(question_id="other question", conversation_b=side("name a town", "Bonn")),
        battle(question_id="nothing said", conversation_b=side("name a river", "")),
        battle(question_id="the same", conversation_b=side("name a river", "Rhine", "shorter", "R"), judge="arena_user_8"),
    ]
    assert read(lines(tmp_path / "a.jsonl", rows)).feedback == [("later/3", "choice", None, "Rh", "end_user")]


def test_battles_that_begin_alike_are_not_one_conversation(tmp_path: Path) -> None:
    short = {"conversation_a": side("name a river", "Rhine"), "conversation_b": side("name a river", "Elbe")}
    found = read(lines(tmp_path / "a.jsonl", [battle(judge=None), battle(question_id="q2", judge=None, **short)]))
    assert found.dialogues == {"q1": A, "q2": A[:2]}


def test_toxic_battles_are_told_by_their_moderation(tmp_path: Path) -> None:
    found = read(lines(tmp_path / "a.jsonl", [battle(openai_moderation={"flagged": True, "categories": {}})]))
    assert found.rejected == {"a.jsonl#0": Reason.TOXIC}


def test_votes_of_one_session_follow_each_other(tmp_path: Path) -> None:
    def vote(name: str, order: int, winner: str, asked: str, replies: tuple[str, str], session: str = "s1") -> dict[str, Any]:
        def part(text: str) -> list[dict[str, Any]]:
            return [{"type": "text", "text": text, "image": None, "mimeType": None}]

        return {
            "id": name,
            "model_a": f"{name}-x",
            "model_b": f"{name}-y",
            "winner": winner,
            "evaluation_session_id": session,
            "evaluation_order": order,
            **{f"conversation_{letter}": side(part(asked), part(reply)) for letter, reply in zip("ab", replies, strict=True)},
            "full_conversation": [{"user": {"role": "user", "content": part(asked)}}],
            "language": "en",
            "is_code": False,
            "timestamp": datetime(2026, 10, 1, 10, order, tzinfo=UTC),
        }

    rows = [
        vote("v2", 2, "model_b", "shorter", ("The R", "R")),
        vote("v1", 1, "model_a", "name a river", ("Rhine", "Elbe")),
        vote("v3", 1, "both_bad", "name a town", ("Bonn", "Ulm"), session="s2"),
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "train.parquet")
    found = read(tmp_path)
    assert found.dialogues == {
        "s1": [("u", "name a river"), ("a", "Rhine"), ("u", "shorter"), ("a", "R")],
        "s2": [("u", "name a town"), ("a", "Bonn")],
    }
    assert found.feedback == [("v1/1", "choice", None, "Elbe", "end_user"), ("v2/1", "choice", None, "The R", "end_user")]
    assert set(found.superseded) == {"train.parquet#1"}
    assert found.rows["user_key"].to_list() == [None] * 3


def test_search_arena(tmp_path: Path) -> None:
    both = {"messages_a": side("name a river", "Rhine"), "messages_b": side("name a river", "Elbe")}
    row = {"model_a": "x", "model_b": "y", "winner": "model_b", "judge": "0f" * 32, "turn": 1, "timestamp": "2026-10-01T10:00:00", **both}
    found = read(lines(tmp_path / "a.jsonl", [row | {"system_a_metadata": {}, "languages": ["English"]}]))
    (said,) = found.dialogues.values()
    assert (found.kind, said) == (SourceKind.ARENA, [("u", "name a river"), ("a", "Elbe")])
    assert found.rows["user_key"].to_list() == ["0f" * 32]
    (given,) = found.feedback
    assert given[1:] == ("choice", None, "Rhine", "end_user")
    assert given[0] == found.rows["messages"][0][1]["id"]


def test_battles_with_prompts_and_responses_apart(tmp_path: Path) -> None:
    columns = {"prompt": ["name a river", "shorter"], "response_a": ["Rhine", None], "response_b": ["Elbe", "E"]}
    texts = {name: json.dumps(value) for name, value in columns.items()}
    rows = [
        {"id": 1, "model_a": "x", "model_b": "y", **texts, "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
        {"id": 2, "model_a": "x", "model_b": "y", **columns, "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1},
    ]
    found = read(lines(tmp_path / "a.jsonl", rows))
    assert found.dialogues == {"1": B, "2": [("u", "name a river"), ("a", "Rhine"), ("u", "shorter")]}
    assert found.feedback == [("1/1", "choice", None, "Rhine", "end_user")]


def test_judges_who_did_not_chat_are_not_the_user(tmp_path: Path) -> None:
    rows = [battle(question_id=81, judge=judge) for judge in ("author_2", "expert_17", "gpt4_pair")]
    found = read(lines(tmp_path / "a.jsonl", rows))
    assert list(found.dialogues) == ["81/x"]  # one conversation, judged three times
    assert list(found.rejected.values()) == [Reason.DUPLICATE_CONVERSATION] * 2
    assert found.feedback == [("81/x/1", "choice", None, "Elbe", giver) for giver in ("model", "staff")]  # two of staff chose alike
    assert found.rows["user_key"].to_list() == [None] * 3


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "a side is text": ({"conversation_a": "hello"}, Reason.MISTYPED_FIELD),
    "a side is missing": ({"conversation_a": None}, Reason.MISTYPED_FIELD),
    "the winner is an object": ({"winner": {"a": 1}}, Reason.MISTYPED_FIELD),
    "no model": ({"model_a": None}, Reason.MISSING_FIELD),
    "no message": ({"conversation_a": []}, Reason.NOT_A_LIST_OF_MESSAGES),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_battles(name: str, tmp_path: Path) -> None:
    changes, reason = ODD[name]
    as_text = battle(question_id="q2", conversation_a=json.dumps(side("a", "b")), conversation_b=json.dumps(side("a", "c")))
    found = read(lines(tmp_path / "a.jsonl", [battle(**changes), as_text]), assumed_model=None)
    assert found.rejected == {"a.jsonl#0": reason}
    assert found.dialogues == {"q2": [("u", "a"), ("a", "b")]}
