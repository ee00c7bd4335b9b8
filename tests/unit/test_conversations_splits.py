"""Users who may be one person are on one side, and no more users change sides as data grows than must."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.base.tables import CONVERSATIONS
from rlhi_dagster.conversations import splits as module
from rlhi_dagster.conversations.splits import MOST_TOGETHER, Split, SplitSettings, no_address_is_on_both_sides, split_groups, split_of
from rlhi_dagster.conversations.users import users

START = datetime(2023, 4, 1, 10, tzinfo=UTC)
Visit = tuple[str, str | None]
"""A user and the address they came from; the next one comes a second later."""
VISITS = st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from([None, *"123456"])), max_size=30)


def frame(visits: Sequence[Visit], seconds: Sequence[int] | None = None) -> pl.LazyFrame:
    rows = [
        dict.fromkeys(CONVERSATIONS.columns)
        | {"conversation_id": f"c{place}", "user_id": user, "address_id": address, "is_start_assumed": False, "user_turns": 1}
        | dict.fromkeys(["started_at", "ended_at"], START + timedelta(seconds=seconds[place] if seconds else place))
        for place, (user, address) in enumerate(visits)
    ]
    return pl.LazyFrame(rows, schema=CONVERSATIONS.schema, orient="row")


def groups(visits: Sequence[Visit], seconds: Sequence[int] | None = None) -> dict[str, str]:
    return dict(split_groups(frame(visits, seconds)).iter_rows())


def splits(visits: Sequence[Visit]) -> dict[str, str]:
    return dict(users(frame(visits), SplitSettings(tuning=0, test=0.5)).select("user_id", "split").iter_rows())


def spread(visits: Sequence[Visit]) -> dict[str, str]:
    """The earliest user of each group, by passing earlier names on until none is left to pass on."""
    order = list(dict.fromkeys(user for user, _ in visits))
    found = {user: user for user in order}
    for _ in order:
        for one, here in visits:
            for other, there in visits:
                if here is not None and here == there:
                    found[one] = found[other] = min(found[one], found[other], key=order.index)
    return found


def test_the_split_is_fixed_and_parts_depend_on_their_shares_alone() -> None:
    names = [f"user {i}" for i in range(4000)]

    def parts(tuning: float, test: float) -> dict[str, set[str]]:
        shares = SplitSettings(tuning=tuning, test=test)
        return {part: {name for name in names if split_of(name, shares) == part} for part in Split}

    few, many, old = parts(0.05, 0.1), parts(0.15, 0.2), parts(0, 0.35)
    assert few["test"] < many["test"]
    assert many["train"] == old["train"], "the shares together decide who trains"
    assert many["tuning"] | many["test"] == old["test"]
    assert [abs(len(many[part]) / 4000 - share) < 0.02 for part, share in (("train", 0.65), ("tuning", 0.15), ("test", 0.2))] == [True] * 3
    halves = SplitSettings(tuning=0, test=0.5)
    assert [split_of(name, halves) for name in ("a", "b", "c", "d")] == ["train", "test", "train", "train"]  # a changed digest moves users


def test_users_who_share_an_address_follow_the_earliest_of_them() -> None:
    """`a` and `b` alone are on different sides, see above."""
    assert splits([("a", "home"), ("b", "home"), ("c", "2")]) == {"a": "train", "b": "train", "c": "train"}
    assert splits([("b", "home"), ("a", "home"), ("c", "2")]) == {"a": "test", "b": "test", "c": "train"}
    assert groups([("b", "home"), ("a", "home"), ("a", "work"), ("d", "work"), ("c", None)]) == {"a": "b", "b": "b", "d": "b", "c": "c"}


def test_a_user_who_shares_no_address_has_the_split_of_their_own_id() -> None:
    shares = SplitSettings(tuning=0.2, test=0.3)
    names = [f"u{number}" for number in range(40)]
    found = users(frame([*((name, f"of {name}") for name in names), *((name, None) for name in names)]), shares)
    assert found["split_group"].to_list() == found["user_id"].to_list()
    assert dict(found.select("user_id", "split").iter_rows()) == {name: split_of(name, shares) for name in names}
    assert set(found["split"]) == set(Split)
    assert split_groups(frame([])).is_empty()


def test_without_times_the_smallest_id_counts_as_the_earliest() -> None:
    assert groups([("c", "1"), ("a", "1"), ("b", "1")], seconds=[0, 0, 0]) == {"a": "a", "b": "a", "c": "a"}
    assert groups([("c", "1"), ("a", "1"), ("b", "1")], seconds=[2, 1, 0]) == {"a": "b", "b": "b", "c": "b"}


@given(VISITS)
def test_groups_are_what_hangs_together_by_addresses_and_no_address_is_on_both_sides(visits: list[Visit]) -> None:
    assert groups(visits) == spread(visits)
    found = users(frame(visits), SplitSettings(tuning=0, test=0.5))
    assert no_address_is_on_both_sides(found.lazy(), frame(visits)).passed
    sides = splits(visits)
    for address in {address for _, address in visits} - {None}:
        assert len({sides[user] for user, there in visits if there == address}) == 1


@given(VISITS, VISITS, st.integers(1, 12))
def test_later_conversations_move_only_groups_that_turn_out_to_belong_to_an_older_one(
    visits: list[Visit], later: list[Visit], most: int
) -> None:
    """Whether addresses grow beyond what is kept together or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_TOGETHER", most)
        before, after = groups(visits), groups([*visits, *later])
        sides, sides_after = splits(visits), splits([*visits, *later])
    order = list(before)
    for user, group in before.items():
        assert after[user] == group or order.index(after[user]) < order.index(group)
        if after[user] == group:
            assert sides_after[user] == sides[user]


@given(VISITS, st.integers(1, 12))
def test_no_group_is_larger_than_the_bound_and_that_is_no_fault(visits: list[Visit], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_TOGETHER", most)
        found = users(frame(visits), SplitSettings(tuning=0, test=0.5))
        assert found.group_by("split_group").len()["len"].max() in (None, *range(1, most + 1))
        assert no_address_is_on_both_sides(found.lazy(), frame(visits)).passed


def test_of_a_crowd_at_one_address_the_first_belong_together_and_nobody_else() -> None:
    office: list[Visit] = [(f"o{number:02d}", "office") for number in range(MOST_TOGETHER + 20)]
    first, rest = [name for name, _ in office[:MOST_TOGETHER]], [name for name, _ in office[MOST_TOGETHER:]]
    assert groups(office) == {**dict.fromkeys(first, "o00"), **{name: name for name in rest}}
    full = users(frame(office[:MOST_TOGETHER]), SplitSettings(tuning=0, test=0.5))
    torn = full.with_columns(split=pl.when(pl.col("user_id") == "o07").then(pl.lit("test")).otherwise(pl.lit("train")))
    assert not no_address_is_on_both_sides(torn.lazy(), frame(office[:MOST_TOGETHER])).passed, "so many are kept together"
    few = splits(office[:MOST_TOGETHER])
    assert {name: splits(office)[name] for name in few} == few, "one more does not move those who were there"
    told = no_address_is_on_both_sides(users(frame(office), SplitSettings(tuning=0, test=0.5)).lazy(), frame(office))
    assert told.passed
    assert told.numbers == {
        "shared_addresses": 1,
        "addresses_on_both_sides": 0,
        "crowded_addresses": 1,
        "crowded_addresses_on_both_sides": 1,
        "unknown_users_at_addresses": 0,
    }
    at_home = groups([*office, (rest[0], "home"), (rest[1], "home")])
    assert (at_home[rest[0]], at_home[rest[1]]) == (rest[0], rest[0]), "who is apart in the crowd can be together elsewhere"


def test_users_who_roam_are_no_endless_chain() -> None:
    """Each shares an address with the one before."""
    chain: list[Visit] = [visit for number in range(100) for visit in ((f"{number:02d}", f"{number - 1}"), (f"{number:02d}", f"{number}"))]
    found = groups(chain)
    assert [found[f"{number:02d}"] for number in (0, 29, 30, 59, 60, 89, 90, 99)] == ["00", "00", "30", "30", "60", "60", "90", "90"]
    assert no_address_is_on_both_sides(users(frame(chain), SplitSettings(tuning=0, test=0.5)).lazy(), frame(chain)).passed
