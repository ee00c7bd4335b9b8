"""Shards for replicas: in order, together where prompts begin alike, and apart from what kills replicas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.engines.base import ChatRequest
from rlhi_dagster.engines.ray.shards import Call, Shards


def calls(openings: str) -> list[Call]:
    """One call for each letter, which is its opening message."""
    return [(str(number), ChatRequest([{"role": "user", "content": letter}])) for number, letter in enumerate(openings)]


def handed_out(openings: str, size: int) -> list[str]:
    given = calls(openings)
    shards, found = Shards(iter(given), size), list[list[Call]]()
    while shard := shards.next(is_idle=False):
        assert not shard.is_alone
        found.append(shard.calls)
    assert [call for part in found for call in part] == given
    assert shards.is_empty
    return ["".join(request.messages[0]["content"] for _, request in part) for part in found]


@pytest.mark.parametrize(
    ("openings", "size", "expected"),
    [
        ("aaaaaaa", 3, ["aaa", "aaa", "a"]),
        ("aaabbbb", 4, ["aaa", "bbbb"]),
        ("abbbbbb", 4, ["abbb", "bbb"]),
        ("abc", 1, ["a", "b", "c"]),
        ("", 4, []),
    ],
)
def test_a_shard_ends_where_the_opening_changes_but_not_before_half(openings: str, size: int, expected: list[str]) -> None:
    assert handed_out(openings, size) == expected


def test_calls_are_read_only_as_they_are_handed_out() -> None:
    read = 0

    def counted() -> Iterator[Call]:
        nonlocal read
        for call in calls("aaaaaaaaaa"):
            read += 1
            yield call

    shards = Shards(counted(), 4)
    shards.next(is_idle=True)
    assert read == 4
    assert not shards.is_empty
    assert read == 5


@given(st.integers(1, 300), st.integers(1, 40), st.data())
def test_a_call_that_kills_replicas_is_given_up_with_few_neighbours_and_all_others_are_answered(
    count: int, size: int, data: st.DataObject
) -> None:
    poison = str(data.draw(st.integers(0, count - 1)))
    shards, answered, lost, deaths = Shards(iter(calls("a" * count)), size), list[str](), list[str](), 0
    while not shards.is_empty:
        in_hand: list[Call] = []
        while len(in_hand) < 4 * size and (shard := shards.next(is_idle=not in_hand)):
            in_hand += shard.calls
            if shard.is_alone:
                break
        if poison in dict(in_hand):
            deaths += 1
            lost += shards.give_back(in_hand)
        else:
            answered += [key for key, _ in in_hand]
    assert deaths == 3
    assert poison in lost
    assert len(lost) <= -(-5 * size // 64)
    assert sorted(answered + lost, key=int) == [str(number) for number in range(count)]
