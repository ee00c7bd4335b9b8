"""Turns and their times, users and their split."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from rlhi_dagster.base.tables import CONVERSATIONS, TURNS, USERS
from rlhi_dagster.conversations.splits import Split, SplitSettings
from rlhi_dagster.conversations.turns import timed, turns
from rlhi_dagster.conversations.users import users

START = datetime(2023, 4, 1, 10, tzinfo=UTC)


def second(count: int) -> datetime:
    return START + timedelta(seconds=count)


def conversation(
    conversation_id: str, times: list[datetime | None], *, user: str = "u1", started_at: datetime = START, opening: str = "text 0"
) -> dict[str, object]:
    """A conversation with one message per time; messages without a time have null."""
    messages = [
        {
            "message_id": f"{conversation_id}:{index}",
            "message_index": index,
            "role": "assistant" if index % 2 else "user",
            "content": f"text {index}" if index else opening,
            "sent_at": time,
        }
        for index, time in enumerate(times)
    ]
    return {
        "conversation_id": conversation_id,
        "user_id": user,
        "month": "2023-04",
        "started_at": started_at,
        "ended_at": max([started_at, *filter(None, times)]),
        "is_start_assumed": False,
        "language": "English",
        "user_turns": len(times) // 2,
        "has_last_word": len(times) % 2 == 1,
        "messages": messages,
    }


def frame(*conversations: dict[str, object]) -> pl.DataFrame:
    complete = [{name: each.get(name) for name in CONVERSATIONS.columns} for each in conversations]
    return pl.DataFrame(complete, schema=CONVERSATIONS.schema, orient="row")


def test_a_turn_is_a_user_message_and_its_reply() -> None:
    found = turns(frame(conversation("b", [None] * 2), conversation("a", [None] * 4)))
    assert found.schema == TURNS.schema
    assert found.select("turn_id", "turn", "prompt", "reply_id", "reply").rows() == [
        ("a:0", 1, "text 0", "a:1", "text 1"),
        ("a:2", 2, "text 2", "a:3", "text 3"),
        ("b:0", 1, "text 0", "b:1", "text 1"),
    ]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([None] * 6, [0, 1, 2]),
        ([second(5), None, second(60), None], [5, 60]),
        ([None, second(9), None, second(70)], [9, 70]),  # WildChat: only replies have times
        ([second(5), second(9), None, None, second(80), None], [5, 6, 80]),
        ([second(30), None, second(30), None, second(10), None, second(31), None], [30, 31, 32, 33]),  # never backwards
        ([None] * 5, [0, 1, 2]),  # the last word of a conversation without times
        ([None, second(9), None, second(70), None], [9, 70, 71]),
        ([second(5), second(9), None, None, None], [5, 6, 10]),
        ([second(5), second(9), second(40)], [5, 40]),
        ([second(50), second(90), second(40)], [50, 51]),
    ],
)
def test_turns_are_asked_one_after_the_other(times: list[datetime | None], expected: list[int]) -> None:
    assert turns(frame(conversation("a", times)))["asked_at"].to_list() == [second(count) for count in expected]


def test_times_of_one_conversation_do_not_push_another() -> None:
    found = turns(frame(conversation("a", [second(500), None] * 2), conversation("b", [None] * 4)))
    assert found["asked_at"].to_list() == [second(500), second(501), second(0), second(1)]


def test_turns_of_no_conversations_are_none() -> None:
    assert turns(frame()).equals(TURNS.empty())


def test_a_last_word_is_a_turn_without_a_reply() -> None:
    found = turns(frame(conversation("a", [None] * 3), conversation("b", [None] * 2), conversation("c", [None] * 5)))
    assert found.schema == TURNS.schema
    assert found.select("turn_id", "turn", "prompt", "reply_id", "reply").rows() == [
        ("a:0", 1, "text 0", "a:1", "text 1"),
        ("a:2", 2, "text 2", None, None),
        ("b:0", 1, "text 0", "b:1", "text 1"),
        ("c:0", 1, "text 0", "c:1", "text 1"),
        ("c:2", 2, "text 2", "c:3", "text 3"),
        ("c:4", 3, "text 4", None, None),
    ]


def test_of_a_last_word_without_a_time_nobody_knows_when_it_was_said() -> None:
    conversations = frame(
        conversation("a", [second(5), second(9), None]),
        conversation("b", [None, None, second(40)]),
        conversation("c", [None] * 4),
    )
    known = timed(turns(conversations).lazy(), conversations.lazy()).collect()
    assert sorted(known["turn_id"]) == ["a:0", "b:0", "b:2", "c:0", "c:2"]


@pytest.mark.parametrize("roles", [["user"], ["assistant", "user"], ["user", "user"], ["user", "assistant", "assistant"]])
def test_a_conversation_that_does_not_alternate_is_named(roles: list[str]) -> None:
    bad = conversation("bad", [None] * len(roles))
    for each, role in zip(bad["messages"], roles, strict=True):
        each["role"] = role
    with pytest.raises(ValueError, match="conversation bad"):
        turns(frame(conversation("a", [None] * 2), bad, conversation("c", [None] * 2)))


def test_users_are_counted() -> None:
    conversations = frame(
        conversation("a", [None] * 4),
        conversation("b", [None] * 2, started_at=second(7200)),
        conversation("c", [None] * 2, user="u2"),
    )
    counted = users(conversations.lazy(), SplitSettings(tuning=0, test=0.5))
    assert counted.schema == USERS.schema
    assert counted.drop("split").rows() == [
        ("u1", 2, 3, START, second(7200), 1, 1, 1, [], "u1"),
        ("u2", 1, 1, START, START, 1, 1, 1, [], "u2"),
    ]


def at(name: str, first: int, last: int, **columns: object) -> dict[str, object]:
    """A conversation of user ``u1`` from one second to another."""
    return conversation(name, [None] * 2, started_at=second(first)) | {"ended_at": second(last)} | columns


@pytest.mark.parametrize(
    ("conversations", "expected"),
    [
        ([at("a", 0, 9), at("b", 9, 20), at("c", 20, 20)], 1),
        ([at("a", 0, 9), at("b", 8, 20), at("c", 19, 30)], 2),
        ([at("a", 0, 9), at("b", 1, 2), at("c", 3, 4), at("d", 5, 5)], 2),
        ([at("a", 0, 90), at("b", 10, 80), at("c", 20, 70)], 3),
        ([at(name, 0, 90, is_start_assumed=True) for name in "abc"], 1),
    ],
)
def test_open_conversations_are_counted_at_their_most(conversations: list[dict[str, object]], expected: int) -> None:
    found = users(frame(*conversations), SplitSettings(tuning=0, test=0.5))
    assert found["simultaneous"].to_list() == [expected]
    assert found["merge_risk"].to_list() == [["simultaneous"] if expected >= 3 else []]


def test_users_at_a_shared_address_and_with_many_languages_may_be_several() -> None:
    office = [conversation(f"o{i}", [None] * 2, user=f"o{i}") | {"address_id": "office"} for i in range(5)]
    home = [conversation(f"h{i}", [None] * 2, user=f"h{i}") | {"address_id": "home"} for i in range(4)]
    polyglot = [conversation(f"p{i}", [None] * 2, user="p") | {"language": name} for i, name in enumerate(["en", "fr", None, "de"])]
    found = users(frame(*office, *home, *polyglot), SplitSettings(tuning=0, test=0.5))
    risks = dict(found.select("user_id", "merge_risk").iter_rows())
    assert {name: risks[name] for name in ("o0", "h0", "p")} == {"o0": ["devices"], "h0": [], "p": ["languages"]}
    assert dict(found.select("user_id", "devices").iter_rows())["h0"] == 4
    assert found.filter(user_id="p")["languages"].to_list() == [3]


def test_the_split_of_a_user_does_not_depend_on_the_others() -> None:
    many = frame(*(conversation(f"c{i}", [None] * 2, user=f"u{i}") for i in range(40)))
    few = many.filter(pl.col("user_id").is_in(["u3", "u17"]))
    shares = SplitSettings(tuning=0.2, test=0.3)
    splits = dict(users(many.lazy(), shares).select("user_id", "split").iter_rows())
    assert dict(users(few.lazy(), shares).select("user_id", "split").iter_rows()) == {name: splits[name] for name in ("u3", "u17")}
    assert set(splits.values()) == set(Split)
