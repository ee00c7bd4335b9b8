"""Records put together: which rows continue which, and trees with odd parents."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rlhi_dagster.conversations.sources.assembly import BRANCH, CONTINUED, Thread, assemble
from rlhi_dagster.conversations.sources.records import Assembly, Message, Place, Record

ROLES = {"u": "user", "a": "assistant"}


def request(*said: str, hour: int | None = None, user: str | None = "u", day: int = 1) -> Record:
    """A request with its history: ``u: …`` and ``a: …``."""
    started_at = None if hour is None else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    return Record(started_at=started_at, messages=[Message(ROLES[each[0]], each[3:]) for each in said])


def put(*records: Record, assembly: Assembly = Assembly.PREFIX) -> list[Thread]:
    threads = assemble([(Place("a", number), record) for number, record in enumerate(records)], assembly)
    assert sorted(
        [*(thread.place.number for thread in threads), *(place.number for thread in threads for place, _ in thread.others)]
    ) == list(range(len(records)))
    return threads


FIRST, WHOLE = ("u: a", "a: b"), ("u: a", "a: b", "u: c", "a: d")


@pytest.mark.parametrize(("short", "long"), [(1, 2), (1, 1), (None, 2), (1, None), (None, None)])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_row_that_a_later_one_continues_is_superseded(short: int | None, long: int | None, is_reversed: bool) -> None:
    records = [request(*FIRST, hour=short), request(*WHOLE, hour=long)]
    (thread,) = put(*(records[::-1] if is_reversed else records))
    assert [message.text for message in thread.record.messages or []] == ["a", "b", "c", "d"]
    assert [why for _, why in thread.others] == [CONTINUED]


@pytest.mark.parametrize(("short", "long", "together"), [(1, 2, 1), (1, 99, 2), (None, 2, 2), (None, None, 2)])
def test_conversations_of_strangers_that_begin_alike_are_one_only_if_the_longer_follows_soon(
    short: int | None, long: int | None, together: int
) -> None:
    assert len(put(request(*FIRST, hour=short), request(*WHOLE, hour=long), assembly=Assembly.GROWN)) == together


def test_a_row_that_comes_after_what_would_continue_it_is_a_conversation_of_its_own() -> None:
    threads = put(request(*WHOLE, hour=1), request(*FIRST, hour=2))
    assert sorted(len(thread.record.messages or []) for thread in threads) == [2, 4]
    (thread,) = put(request(*FIRST, hour=3), request(*WHOLE, hour=4), request(*WHOLE[:3], hour=3))
    assert len(thread.others) == 2


@pytest.mark.parametrize(
    ("first", "hour", "is_one"),
    [
        (FIRST, 24, True),
        (FIRST, 26, False),
        (FIRST, None, False),
        ((*FIRST, "u: "), 999, False),
        (("u: a", "u: a", "a: b"), 999, False),
        (WHOLE[:3], 999, True),
        (WHOLE, 999, True),
    ],
)
def test_without_a_user_one_exchange_may_be_the_same_by_chance(first: tuple[str, ...], hour: int | None, is_one: bool) -> None:
    said = [each for each in first if each != "u: "]
    longer = (*said, *(WHOLE[len(said) :] or ("u: e", "a: f")), "u: g", "a: h")
    both = request(*first, hour=1), request(*longer, hour=hour)
    assert len(put(*both, assembly=Assembly.GROWN)) == (1 if is_one else 2)
    assert len(put(*both)) == len(put(*(replace(each, user_key="u") for each in both), assembly=Assembly.GROWN)) == 1


def test_strangers_who_begin_alike_lend_each_other_no_times() -> None:
    own, other = request(*FIRST, hour=1), request(*WHOLE, hour=99)
    own.messages = [message._replace(sent_at=own.started_at, id="x") for message in own.messages or []]
    third = request(*WHOLE, "u: e", "a: f", hour=100)
    threads = put(own, other, third, assembly=Assembly.GROWN)
    assert sorted(len(thread.record.messages or []) for thread in threads) == [2, 6]
    assert [message.sent_at for thread in threads for message in thread.record.messages or [] if thread.place.number == 2] == [None] * 6


def test_a_common_greeting_without_users_takes_no_longer_than_its_rows() -> None:
    greetings = [request(*FIRST, hour=number) for number in range(3000)]
    talks = [request(*FIRST, f"u: {number}", "a: d") for number in range(3000)]
    assert len(put(*greetings, *talks, assembly=Assembly.GROWN)) == 6000


def tree(*messages: Message, **fields: object) -> Record:
    return Record(group="g", messages=list(messages), **fields)  # type: ignore[arg-type]


def test_messages_that_are_each_others_parents_are_read_as_far_as_they_go() -> None:
    (thread,) = put(tree(Message("user", "a", id="1", parent="2"), Message("assistant", "b", id="2", parent="1")), assembly=Assembly.TREE)
    assert [message.text for message in thread.record.messages or []] == ["a", "b"]
    own = Message("user", "c", id="3", parent="3")
    (thread,) = put(tree(Message("user", "a", id="1"), Message("assistant", "b", id="2", parent="1"), own), assembly=Assembly.TREE)
    assert [message.text for message in thread.record.messages or []] == ["c"]


def test_the_latest_branch_is_told_by_times_and_not_by_where_messages_are_listed() -> None:
    at = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(5)]
    question = Message("user", "a", at[0], "q")
    early, late = Message("assistant", "b", at[1], "e", "q"), Message("assistant", "c", at[2], "l", "q")
    (thread,) = put(tree(late), tree(early), tree(question), assembly=Assembly.TREE)
    assert [message.text for message in thread.record.messages or []] == ["a", "c"]
    assert [(place.number, why) for place, why in thread.others if why == BRANCH] == [(1, BRANCH)]


def test_of_two_states_of_a_conversation_the_later_counts() -> None:
    question = Message("user", "a", id="q")
    old = tree(question, Message("assistant", "ol", id="r", parent="q"), current="r", written_at=datetime(2026, 1, 1, tzinfo=UTC))
    new = tree(question, Message("assistant", "old", id="r", parent="q"), current="r", written_at=datetime(2026, 1, 2, tzinfo=UTC))
    for records in ((old, new), (new, old)):
        (thread,) = put(*records, assembly=Assembly.TREE)
        assert [message.text for message in thread.record.messages or []] == ["a", "old"]
