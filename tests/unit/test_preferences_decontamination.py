"""Pairs that repeat evaluation items: by words in a row, by the whole item, by embedding."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.preferences import decontamination
from rlhi_dagster.preferences.decontamination import HITS, hits

SHARED = Path(__file__).parents[3] / "shared" / "data"
PAIRS = {"pair_id": pl.String(), "prompt": MESSAGES}
ITEMS = {"prompt_id": pl.String(), "prompt": MESSAGES}


def asked(*texts: str) -> list[dict[str, str]]:
    said = [{"role": "user", "content": text} for text in texts]
    return [message for text in said for message in (text, {"role": "assistant", "content": "Well."})][:-1]


def nothing(texts: Any) -> np.ndarray:
    raise AssertionError(f"{len(texts)} texts were to be embedded")


def found(
    pairs: dict[str, list[dict[str, str]]], items: dict[str, str], words: int = 13, least: float | None = None, embed: Any = nothing
) -> Any:
    frame = hits(
        pl.DataFrame(list(pairs.items()), schema=PAIRS, orient="row"),
        pl.DataFrame([(name, asked(text)) for name, text in items.items()], schema=ITEMS, orient="row"),
        words,
        least,
        embed,
    )
    assert frame.schema == HITS
    return {pair_id: (prompt_id, kind) for pair_id, prompt_id, kind, _ in frame.iter_rows()}


def words(first: int, last: int) -> str:
    return " ".join(f"w{number}" for number in range(first, last))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (f"Please: {words(4, 17)} thanks", "ngram"),
        (f"Please: {words(4, 16)} thanks", None),
        (f"Please: {words(4, 10)}, {words(11, 18)} thanks", None),
        (words(4, 17).upper().replace(" ", " -\n "), "ngram"),
    ],
)
def test_so_many_words_in_a_row_are_a_hit(said: str, kind: str | None) -> None:
    assert found({"p": asked(said)}, {"i": words(0, 40)}) == ({"p": ("i", kind)} if kind else {})


def test_words_of_two_messages_or_of_the_assistant_are_no_run() -> None:
    halves = asked(words(0, 8), words(8, 16))
    told = [{"role": "user", "content": "Go on"}, {"role": "assistant", "content": words(0, 20)}, {"role": "user", "content": "Thanks"}]
    assert found({"p": halves, "q": told}, {"i": words(0, 20)}) == {}
    assert found({"p": [*halves, {"role": "user", "content": words(0, 20)}]}, {"i": words(0, 20)}) == {"p": ("i", "ngram")}


@pytest.mark.parametrize(
    ("item", "said", "is_hit"),
    [
        ("Name a red fruit.", "please name a red fruit now", True),
        ("Name a red fruit.", "name a fruit", False),
        ("Write poems", "Write poems", True),
        ("Write poems", "write poems about poems", False),
        ("我爱你", "我爱你", True),
        ("请写一首诗", "你好，请写一首诗吧", True),
        ("?!", "?!", False),
        ("", "", False),
    ],
)
def test_a_short_item_is_a_hit_as_a_whole(item: str, said: str, is_hit: bool) -> None:
    assert found({"p": asked(said)}, {"i": item}) == ({"p": ("i", "whole_item")} if is_hit else {})


def test_an_item_of_a_word_or_two_is_looked_for_in_the_request_only() -> None:
    pairs = {"greeted": asked("Hi!", "Name a fruit"), "greeting": asked("Name a fruit", "Hi!"), "long": asked("name a red fruit", "more")}
    assert found(pairs, {"i": "hi", "j": "Name a red fruit"}) == {"greeting": ("i", "whole_item"), "long": ("j", "whole_item")}


def test_of_several_items_the_longest_match_and_then_the_smallest_id_is_named() -> None:
    items = {"c": words(0, 15), "b": words(0, 15), "a": words(0, 5)}
    assert found({"p": asked(words(0, 15))}, items) == {"p": ("b", "ngram")}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("ab ", max_size=20), max_size=8),
    st.lists(st.text("ab ", max_size=20), max_size=8),
    st.integers(2, 6),
)
def test_hits_by_words_are_those_of_plain_comparison(said: list[str], requests: list[str], length: int) -> None:
    def is_hit(text: str) -> bool:
        mine = text.split()
        for request in requests:
            theirs = request.split()
            size = min(length, len(theirs))
            runs = [theirs[start : start + size] for start in range(len(theirs) - size + 1)] if size else []
            if size < min(4, length):
                if theirs and theirs == mine:
                    return True
            elif any(mine[start : start + size] in runs for start in range(len(mine) - size + 1)):
                return True
        return False

    pairs = {str(number): asked(text) for number, text in enumerate(said)}
    told = found(pairs, {str(number): text for number, text in enumerate(requests)}, length)
    assert set(told) == {str(number) for number, text in enumerate(said) if is_hit(text)}


def by_first_letter(texts: Any) -> np.ndarray:
    """Texts of one first letter are the same, all others at right angles."""
    return np.eye(128, dtype=np.float32)[[ord(text[0]) for text in texts]]


def test_similar_requests_are_a_hit_if_they_name_the_same_numbers_equally_often() -> None:
    pairs = {
        name: asked("before", text)
        for name, text in {"a": "x 3 and 4", "b": "x 4 and 3!", "c": "x 3", "d": "x 3, 3, 4", "e": "y 3 and 4"}.items()
    }
    assert found(pairs, {"i": "x: 3, 4"}, least=0.95, embed=by_first_letter) == {"a": ("i", "embedding"), "b": ("i", "embedding")}


def test_what_words_found_is_not_embedded_nor_what_has_no_counterpart() -> None:
    pairs = {"a": asked("one two three"), "b": asked("take 5 of them"), "c": asked("Καλησπέρα σας")}
    assert found(pairs, {"i": "One, two, three.", "j": "take 7 of them", "k": "Καλημέρα"}, least=0.9) == {"a": ("i", "whole_item")}


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = "abcdefghij"
    pairs = {f"p{letter}{number}": asked(f"{letter} pair {number % 2}") for letter in letters for number in range(6)}
    items = {f"i{letter}{number}": f"{letter} item {number}" for letter in letters[:5] for number in range(2)}
    whole = found(pairs, items, least=0.9, embed=by_first_letter)
    assert len(whole) == 30
    monkeypatch.setattr(decontamination, "_BLOCK_SCORES", 7)
    monkeypatch.setattr(decontamination, "_BLOCK_TEXTS", 3)
    monkeypatch.setattr(decontamination, "_SLICE_ROWS", 4)
    assert found(pairs, items, least=0.9, embed=by_first_letter) == whole


def test_the_most_similar_item_is_named_with_its_similarity() -> None:
    vectors = {"near": [1.0, 0.0], "nearer": [0.8, 0.6], "asked": [0.6, 0.8]}
    frame = hits(
        pl.DataFrame([("p", asked("asked"))], schema=PAIRS, orient="row"),
        pl.DataFrame([(name, asked(name)) for name in ("near", "nearer")], schema=ITEMS, orient="row"),
        13,
        0.5,
        lambda texts: np.array([vectors[text] for text in texts], np.float32),
    )
    assert frame.drop("similarity").rows() == [("p", "nearer", "embedding")]
    assert frame["similarity"][0] == pytest.approx(0.96)


def test_no_items_or_no_pairs_give_no_hits() -> None:
    assert found({}, {"i": "one two three four"}, least=0.9) == {}
    assert found({"p": asked("one two three four")}, {}, least=0.9) == {}


def test_real_benchmark_items_are_found_verbatim_wrapped_and_paraphrased_a_little() -> None:
    file = SHARED / "reasoning" / "math500.test.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    problems = [json.loads(line)["problem"] for line in gzip.decompress(file.read_bytes()).decode().split("\n")[:120]]
    items = {f"{number:03d}": text for number, text in enumerate(problems)}
    encoder = MiniLM()
    wrapped = {name: asked(f"Hi! Can you help? {text} Show 2 ways.") for name, text in items.items()}
    assert len(found(wrapped, items)) >= 119
    shortened = {name: asked(" ".join(text.split(" ")[:-1])) for name, text in items.items()}
    by_words = found(shortened, items)
    both = found(shortened, items, least=0.95, embed=encoder.embed)
    assert len(both) > len(by_words)
    assert set(by_words) < set(both)
