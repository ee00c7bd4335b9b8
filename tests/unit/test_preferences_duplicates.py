"""Duplicates among pairs: what counts as one, and what does not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.preferences import duplicates as module
from rlhi_dagster.preferences.duplicates import duplicates

SCHEMA = {
    "pair_id": pl.String(),
    "source": pl.String(),
    "persona": pl.String(),
    "prompt": MESSAGES,
    "chosen": pl.String(),
    "rejected": pl.String(),
}


def text(seed: Any, words: int) -> str:
    drawn = random.Random(str(seed))
    return " ".join(f"w{drawn.randrange(3000)}" for _ in range(words))


def pair(pair_id: str, **more: Any) -> dict[str, Any]:
    row = {"pair_id": pair_id, "source": "rewrites", "persona": "- short", "prompt": [{"role": "user", "content": text("prompt", 60)}]}
    return row | {"chosen": text("chosen", 60), "rejected": text("rejected", 60)} | more


def found(rows: list[dict[str, Any]], jaccard: float = 0.9) -> dict[str, tuple[str, str]]:
    frame = duplicates(pl.DataFrame(rows, schema=SCHEMA, orient="row"), jaccard)
    return {pair_id: (reason, kept) for pair_id, reason, kept in frame.iter_rows()}


def changed(said: str, *places: int) -> str:
    words = said.split()
    for place in places:
        words[place] = "other"
    return " ".join(words)


def test_case_and_white_space_make_no_pair_of_its_own() -> None:
    rows = [pair("b", chosen=text("chosen", 60).upper().replace(" ", "\n ")), pair("a")]
    assert found(rows, 1.0) == {"b": ("exact_duplicate", "a")}


@pytest.mark.parametrize("part", ["chosen", "rejected", "prompt"])
def test_a_word_changed_in_a_long_part_makes_a_near_duplicate_in_a_short_one_it_does_not(part: str) -> None:
    def with_changed(length: int) -> list[dict[str, Any]]:
        before, after = text(part, length), changed(text(part, length), 2)
        shown = [[{"role": "user", "content": said}] if part == "prompt" else said for said in (before, after)]
        return [pair("a", **{part: shown[0]}), pair("b", **{part: shown[1]})]

    assert found(with_changed(300)) == {"b": ("near_duplicate", "a")}
    assert found(with_changed(300), 1.0) == {}
    assert found(with_changed(30)) == {}
    assert found(with_changed(4)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"source": "rewrites_logged"},
        {"persona": "- long and detailed answers in Spanish"},
        {"prompt": [{"role": "user", "content": text("prompt", 60) + text("more", 12)}]},
        {"chosen": text("rejected", 60), "rejected": text("chosen", 60)},
        {"chosen": "- " + text("chosen", 60).replace(" ", "\n- ")},
    ],
    ids=["another source", "another persona", "a longer prompt", "the other way round", "another layout"],
)
def test_these_are_pairs_of_their_own(change: dict[str, Any]) -> None:
    assert found([pair("a"), pair("b", **change)]) == {}


def test_turns_of_one_long_conversation_are_pairs_of_their_own() -> None:
    history = [{"role": role, "content": text((role, turn), 200)} for turn in range(20) for role in ("user", "assistant")]
    asked = {"role": "user", "content": "And now?"}
    rows = [
        pair(f"{turn:02d}", prompt=[*history[: 2 * turn], asked], chosen=text(("c", turn), 50), rejected=text(("r", turn), 50))
        for turn in range(15, 20)
    ]
    assert found(rows) == {}


def test_a_chain_of_similar_pairs_merges_nothing() -> None:
    long = text("chosen", 300)
    steps = [pair(str(step), chosen=changed(long, *range(10, 10 + 20 * step, 10))) for step in range(4)]
    assert found(steps) == {"1": ("near_duplicate", "0"), "3": ("near_duplicate", "2")}


def test_a_copy_of_a_near_duplicate_names_the_pair_that_stays() -> None:
    near = changed(text("chosen", 300), 7)
    rows = [pair("a", chosen=text("chosen", 300)), pair("b", chosen=near), pair("c", chosen=near.upper())]
    assert found(rows) == {"b": ("near_duplicate", "a"), "c": ("exact_duplicate", "a")}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 5), st.randoms(use_true_random=False))
def test_planted_near_duplicates_are_found_unrelated_pairs_stay_and_order_makes_no_difference(seed: int, copies: int, shuffle: Any) -> None:
    rows, planted = [], set()
    for number in range(12):
        parts = {name: text((seed, number, name), 150) for name in ("asked", "chosen", "rejected")}
        kept = {"prompt": [{"role": "user", "content": parts["asked"]}], "chosen": parts["chosen"], "rejected": parts["rejected"]}
        rows.append(pair(f"a{number}", **kept))
        if number < copies:
            rows.append(pair(f"b{number}", **kept | {"chosen": changed(parts["chosen"], (seed + number) % 150)}))
            planted.add((f"b{number}", ("near_duplicate", f"a{number}")))
    told = found(rows)
    assert set(told.items()) == planted
    shuffle.shuffle(rows)
    assert found(rows) == told


def test_a_crowded_bucket_is_compared_with_its_first_pairs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COMPARED", 2)
    monkeypatch.setattr(module, "_bucket_keys", lambda rows: np.zeros((len(rows), module.BANDS), np.uint64))
    rows = [pair(f"{number}", chosen=text(number % 5, 60)) for number in range(5)]
    assert found([*rows, pair("8", chosen=changed(text(0, 60), 59)), pair("9", chosen=changed(text(4, 60), 59))]) == {
        "8": ("near_duplicate", "0")
    }


def test_empty_parts_and_no_pairs_are_legal() -> None:
    assert found([]) == {}
    assert found([pair("a", persona="", chosen="", rejected="?"), pair("b", persona="", chosen="", rejected="!")]) == {}
