"""The store's index: against brute force, with keys that share a half, and where it cannot be believed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhi_dagster.store import folding, segments, view
from rlhi_dagster.store.folding import fold, is_due, locked
from rlhi_dagster.store.index import INDEX, SCHEMA, Entries, Index, key_bits
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import SCHEMAS, DamagedSegmentError, listing


def rows(keys: list[str], text: str = "") -> pl.DataFrame:
    given = {"key": keys, "text": [f"{text}{key}" for key in keys]}
    return pl.DataFrame(given).select(
        (pl.col(name) if name in given else pl.lit(None)).cast(dtype).alias(name) for name, dtype in SCHEMAS["chat"].items()
    )


def errors(keys: list[str], reason: str) -> pl.DataFrame:
    return rows(keys).with_columns(text=pl.lit(None, pl.String()), error=pl.lit(reason), is_retryable=pl.lit(value=True))


def random_keys(count: int, seed: int, colliding: bool) -> list[str]:
    drawn = random.Random(seed)
    halves = [f"{drawn.getrandbits(64):016x}" for _ in range(3)] if colliding else []
    return [(drawn.choice(halves) if halves else f"{drawn.getrandbits(64):016x}") + f"{drawn.getrandbits(64):016x}" for _ in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path, "chat", "town-model@r1")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes so small that a few hundred keys take many batches, runs and parts."""
    monkeypatch.setattr(folding, "ENTRIES_PER_BATCH", 64)
    monkeypatch.setattr(folding, "_SAMPLED_EVERY", 8)
    monkeypatch.setattr(folding, "_ENTRIES_PER_RUN", 100)


def check(store: ResponseStore, known: dict[str, str], absent: list[str]) -> None:
    absent = list(dict.fromkeys(absent))
    asked = random.Random(0).sample([*known, *absent], len(known) // 2 + len(absent))
    assert store.missing(pl.Series("key", asked)).to_list() == [key for key in asked if key not in known]
    found = dict(store.lookup(pl.Series("key", asked)).select("key", "text").iter_rows())
    assert found == {key: known[key] for key in asked if key in known}


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("colliding", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_index_agrees_with_brute_force(store: ResponseStore, seed: int, colliding: bool) -> None:
    keys = random_keys(1_200, seed, colliding)
    absent = [
        *random_keys(300, seed + 9, colliding=False),
        *(key[:16] + "0" * 16 for key in keys[:20]),
        *(key[:16] + "f" * 16 for key in keys[:20]),
    ]
    known: dict[str, str] = {}
    drawn = random.Random(seed)
    for round_ in range(6):
        for chunk in range(4):
            start = (4 * round_ + chunk) * 50
            # Some keys are answered again; the first answer stays.
            chosen = [*keys[start : start + 50], *drawn.sample(keys[: start + 1], min(start, 5))]
            store.append(rows(list(dict.fromkeys(chosen)), f"{round_}"))
            known |= {key: f"{round_}{key}" for key in chosen if key not in known}
        if round_ % 2:
            assert fold(store.folder)
        check(store, known, absent)
        check(ResponseStore(store.root, "chat", store.model), known, absent)
    index = Index(store.folder / INDEX)
    assert index.rows == sum(pl.read_parquet(store.folder / name).height for name in listing(store.folder, "segment"))
    assert colliding or len(index.batches) > 10
    assert not list(store.folder.glob("*.partial"))


def test_entries_are_sorted_by_key_then_segment_then_row() -> None:
    drawn = np.random.default_rng(0)
    columns = [drawn.integers(0, 4, 500).astype(np.uint64) for _ in range(2)] + [
        drawn.integers(0, 4, 500).astype(np.uint32) for _ in range(2)
    ]
    entries = Entries(*columns).sorted()
    found = list(zip(entries.hi, entries.lo, entries.segment, entries.row, strict=True))
    assert found == sorted(zip(*columns, strict=True))


def test_keys_are_numbers_in_the_same_order() -> None:
    keys = sorted(random_keys(500, 0, colliding=False))
    hi, lo = key_bits(pl.Series("key", keys))
    assert [f"{int(high):016x}{int(low):016x}" for high, low in zip(hi, lo, strict=True)] == keys


def test_a_long_tail_is_folded_and_a_short_one_is_not(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = random_keys(300, 0, colliding=False)
    for key in keys[:250]:
        store.append(rows([key]))
    store.missing(pl.Series("key", keys))
    assert not (store.folder / INDEX).exists()
    for key in keys[250:]:
        store.append(rows([key]))
    read: list[Path] = []
    monkeypatch.setattr(view, "segment_keys", lambda file: read.append(file) or folding.segment_keys(file))
    assert len(store.missing(pl.Series("key", keys))) == 0
    assert Index(store.folder / INDEX).rows == 300
    read.clear()
    assert len(ResponseStore(store.root, "chat", store.model).missing(pl.Series("key", keys))) == 0
    assert read == [], "keys that the index has are not read"
    assert [is_due(2, 50_001, 0), is_due(2, 50_000, 0), is_due(2, 90_000, 1_000_000), is_due(2, 100_001, 1_000_000)] == [
        True,
        False,
        False,
        True,
    ]


def test_whoever_finds_the_lock_held_does_without_folding(store: ResponseStore) -> None:
    keys = random_keys(300, 0, colliding=False)
    for key in keys:
        store.append(rows([key]))
    with locked(store.folder) as is_held:
        assert is_held
        assert not fold(store.folder)
        check(store, {key: key for key in keys}, [])
        assert not (store.folder / INDEX).exists()
    check(store, {key: key for key in keys}, [])
    assert (store.folder / INDEX).exists()


@pytest.mark.parametrize("bytes_kept", [0, 4, 100, 5_000, -8, -1])
def test_a_cut_index_is_not_believed(store: ResponseStore, bytes_kept: int) -> None:
    keys = random_keys(500, 0, colliding=False)
    store.append(rows(keys))
    fold(store.folder)
    whole = (store.folder / INDEX).read_bytes()
    (store.folder / INDEX).write_bytes(whole[:bytes_kept])
    check(ResponseStore(store.root, "chat", store.model), {key: key for key in keys}, [])
    fold(store.folder)
    assert Index(store.folder / INDEX).rows == 500


def test_an_index_that_lies_about_rows_is_found_out_and_made_again(store: ResponseStore) -> None:
    keys = random_keys(500, 0, colliding=False)
    store.append(rows(keys))
    fold(store.folder)
    index = Index(store.folder / INDEX)
    shifted = [Entries(batch.hi, batch.lo, batch.segment, np.roll(batch.row, 1)) for batch in index.batches]
    beyond = [Entries(batch.hi, batch.lo, batch.segment, batch.row + np.uint32(1)) for batch in index.batches]
    for lies in (shifted, beyond):
        schema = SCHEMA.with_metadata({"segments": f'["{index.segments[0]}"]'})
        with segments.published(store.folder / INDEX) as stream, pa.ipc.new_file(stream, schema) as writer:
            for batch in lies:
                writer.write_batch(folding._batch(batch, schema))
        check(ResponseStore(store.root, "chat", store.model), {key: key for key in keys}, [])
        assert not (store.folder / INDEX).exists()


def test_an_index_that_names_a_segment_that_is_gone_is_not_believed(store: ResponseStore) -> None:
    keys = random_keys(600, 0, colliding=False)
    [gone] = store.append(rows(keys[:300]))
    store.append(rows(keys[300:]))
    fold(store.folder)
    assert len(store.missing(pl.Series("key", keys))) == 0
    gone.unlink()
    for each in (store, ResponseStore(store.root, "chat", store.model)):
        check(each, {key: key for key in keys[300:]}, keys[:300])
    fold(store.folder)
    assert Index(store.folder / INDEX).rows == 300


def test_a_damaged_segment_is_named(store: ResponseStore) -> None:
    [segment] = store.append(rows(random_keys(100, 0, colliding=False)))
    segment.write_bytes(segment.read_bytes()[:-30])
    with pytest.raises(DamagedSegmentError, match=segment.name):
        store.missing(pl.Series("key", ["0" * 32]))


def test_a_lookup_decodes_only_row_groups_with_wanted_rows(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = sorted(random_keys(50_000, 0, colliding=False))
    store.append(rows(keys))
    read: list[int] = []
    original = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", lambda self, groups: read.extend(groups) or original(self, groups))
    asked = [keys[0], keys[4_095], keys[4_096], keys[30_000], keys[-1]]
    found = store.lookup(pl.Series("key", asked)).select("key", "text").rows()
    assert found == [(key, key) for key in asked]
    assert read == [0, 1, 7, 12]
    assert store.lookup(pl.Series("key", keys))["text"].to_list() == keys


def test_only_well_formed_keys_are_kept(store: ResponseStore) -> None:
    for bad in ("abc", "A" * 32, "g" * 32, "0" * 31, "0" * 33):
        with pytest.raises(ValueError, match="32 hexadecimal digits"):
            store.append(rows([bad]))
    assert store.missing(pl.Series("key", ["abc"])).to_list() == ["abc"]
    assert len(store.lookup(pl.Series("key", ["abc", None]))) == 0


def test_an_error_of_the_moment_is_asked_again_and_the_newest_is_read(store: ResponseStore) -> None:
    first, second, third = keys = random_keys(3, 0, colliding=False)
    store.append(errors([first, second], "timeout: a"))
    store.append(errors([second, third], "busy: b"))
    store.append(rows([third]))
    asked = pl.Series("key", keys)
    assert store.missing(asked).to_list() == [first, second]
    found = {row[0]: row[1:] for row in store.lookup(asked).select("key", "text", "error", "is_retryable").iter_rows()}
    assert found == {first: (None, "timeout: a", True), second: (None, "busy: b", True), third: (third, None, False)}
    store.append(rows([second]))
    assert store.missing(asked).to_list() == [first]
    assert store.lookup(asked).filter(key=second)["text"].to_list() == [second]


def test_a_chunk_with_both_kinds_of_answers_makes_two_segments(store: ResponseStore) -> None:
    keys = random_keys(4, 0, colliding=False)
    written = store.append(pl.concat([rows(keys[:2]), errors(keys[2:], "timeout")]))
    assert [file.name.split("-")[0] for file in written] == ["segment", "errors"]
    assert store.missing(pl.Series("key", keys)).to_list() == keys[2:]
    refusal = errors([keys[2]], "refused").with_columns(is_retryable=pl.lit(value=False))
    store.append(refusal)
    assert store.missing(pl.Series("key", keys)).to_list() == keys[3:], "an error for good is an answer"
