"""Templates are told wherever their variable part lies, in any script, the same in every run and as data grows."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_dagster.conversations import templates


def words(seed: int, count: int, low: int = 97, size: int = 26, space: str = " ") -> str:
    draw = random.Random(seed)
    return space.join("".join(chr(low + draw.randrange(size)) for _ in range(draw.randint(3, 9))) for _ in range(count))


def signed(texts: list[str | None]) -> pl.Series:
    return pl.DataFrame({"o": pl.Series(texts, dtype=pl.String)}).select(templates.signatures(pl.col("o"))).to_series()


def rows(texts: list[str | None]) -> pl.DataFrame:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "started_at": [start + timedelta(minutes=n) for n in range(len(texts))],
            "source_file": "a",
            "row_number": range(len(texts)),
            "signature": signed(texts),
        }
    )


def ids(texts: list[str | None]) -> dict[int, str]:
    return dict(templates.clusters(rows(texts)).select("row_number", "template_id").iter_rows())


FIXED = words(1, 60)
HALVES = FIXED[:200], FIXED[200:]


@pytest.mark.parametrize(
    "copies",
    [
        [f"{words(n, 8)} {FIXED}" for n in range(10, 20)],
        [f"{HALVES[0]} {words(n, 8)} {HALVES[1]}" for n in range(10, 20)],
        [f"{FIXED} {words(n, 8)}" for n in range(10, 20)],
        [FIXED.replace(FIXED.split()[30], words(n, 1)) for n in range(10, 20)],
    ],
    ids=["first", "middle", "last", "one word"],
)
def test_a_template_is_told_wherever_its_variable_part_lies(copies: list[str]) -> None:
    found = ids([*copies, *(words(n, 60) for n in range(100, 110))])
    assert set(found) == set(range(10))
    assert len(set(found.values())) == 1


@pytest.mark.parametrize(("low", "size"), [(0x4E00, 3000), (0x3041, 80), (0x0430, 32), (0x0621, 26), (0x1F300, 200)])
def test_scripts_with_and_without_spaces(low: int, size: int) -> None:
    fixed = words(1, 30, low, size, "")
    found = ids([f"{words(n, 3, low, size, '')}{fixed}" for n in range(5)] + [words(n, 30, low, size, "") for n in range(50, 55)])
    assert set(found) == set(range(5))


def test_short_and_missing_openings_have_no_signature() -> None:
    short = "x" * (templates.MIN_CHARACTERS - 1)
    assert signed([None, "", "hello", short + "   ", FIXED]).is_null().to_list() == [True, True, True, True, False]
    assert signed([None, "hello"]).dtype == templates.SIGNATURE
    assert ids(["hello", None] * 10) == {}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=200), st.text(min_size=90, max_size=300)), min_size=1, max_size=12), st.integers(1, 5)
)
def test_a_signature_does_not_depend_on_its_batch(texts: list[str | None], size: int) -> None:
    parts = [signed(texts[i : i + size]) for i in range(0, len(texts), size)]
    assert pl.concat(parts).to_list() == signed(texts).to_list()


def test_streaming_gives_the_same_signatures() -> None:
    frame = pl.DataFrame({"o": [words(n, 40) for n in range(500)]})
    streamed = frame.lazy().select(templates.signatures(pl.col("o"))).collect(engine="streaming").to_series()
    assert streamed.to_list() == signed(frame["o"].to_list()).to_list()


def test_a_recorded_signature_comes_out_again() -> None:
    assert signed(["the quick brown fox jumps over the lazy dog " * 4])[0].to_list()[:4] == RECORDED


def test_later_rows_change_no_id() -> None:
    texts: list[str | None] = [f"{words(1000 + n, 5)} {words(n % 3, 60)}" for n in range(60)]
    before = ids(texts)
    after = ids([*texts, *(f"{words(1000 + n, 5)} {words(n % 4, 60)}" for n in range(100, 200))])
    assert len(set(before.values())) == 3
    assert before.items() <= after.items()


def test_a_chain_of_similar_openings_does_not_merge_its_ends() -> None:
    text = words(1, 400).split()
    chain = [" ".join(text[n : n + 80]) for n in range(0, 240, 4)]
    found = ids([chain[n] for n in range(len(chain))])
    members: dict[str, list[int]] = {}
    for row, template in found.items():
        members.setdefault(template, []).append(row)
    assert len(members) > 1
    assert all(max(group) - min(group) <= 14 for group in members.values())


def test_comparisons_grow_with_the_rows_not_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    base = np.random.default_rng(0).integers(0, 2**16, templates.PERMUTATIONS, dtype=np.uint16)
    values = np.tile(base, (50_000, 1))
    values[np.arange(50_000), np.arange(50_000) % templates.PERMUTATIONS] += 1
    compared = []
    similarity = templates.similarity
    monkeypatch.setattr(templates, "similarity", lambda v, left, right: compared.append(len(left)) or similarity(v, left, right))
    assert set(templates.leaders(values)) == {0}
    assert sum(compared) <= templates.BANDS * len(values)


@pytest.mark.parametrize("size", [templates.MIN_CONVERSATIONS - 1, templates.MIN_CONVERSATIONS])
def test_few_copies_are_no_template(size: int) -> None:
    assert len(ids([f"{FIXED} {words(n, 3)}" for n in range(size)])) == (size if size >= templates.MIN_CONVERSATIONS else 0)


RECORDED = [2612, 52407, 14565, 55899]
