"""Response store, chunked fulfilment and turn-by-turn replay."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.engines.ask import fulfil
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest, Sampling
from rlhi_dagster.engines.models import ModelRef, digest_of
from rlhi_dagster.engines.read import NotAnsweredError, read_chat, read_rewards
from rlhi_dagster.engines.replay import replay
from rlhi_dagster.engines.stats import CallStats, Standing
from rlhi_dagster.store import search, segments
from rlhi_dagster.store.compaction import compact
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import SCHEMAS, DamagedSegmentError, listing

MODEL = ModelRef("town/model", "r1")
SAMPLING = Sampling(0.6, 0.9, 8, 7)


def said(text: str, sample_index: int = 0) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index)


def key_of(name: str) -> str:
    return digest_of(name)


def keys_of(*names: str) -> pl.Series:
    return pl.Series("key", [key_of(name) for name in names], dtype=pl.String())


def answer_rows(**texts: str) -> pl.DataFrame:
    rows = [
        {
            "key": key_of(key),
            "text": text,
            "error": None,
            "finish_reason": "stop",
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "probabilities": None,
        }
        for key, text in texts.items()
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["chat"])


def test_segments_without_a_later_column_are_read(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "chat", "m")
    [older] = store.append(answer_rows(a="1"))
    later = ["probabilities", "cached_tokens", "cost_usd", "is_retryable", "settings", "answered_at"]
    pl.read_parquet(older).drop(later).write_parquet(older)
    store.append(answer_rows(b="2").with_columns(probabilities=[0.5, 0.5]))
    found = store.lookup(keys_of("a", "b")).sort("text")
    assert found["probabilities"].to_list() == [None, [0.5, 0.5]]
    assert found.select("cached_tokens", "cost_usd", "is_retryable", "settings").rows() == [(0, 0.0, False, None)] * 2


class Echo:
    """Answers so many calls at once, counts loads, remembers each list of keys, and may die in one."""

    def __init__(self, size: int = 3, dies_in: int | None = None) -> None:
        self.size, self.dies_in, self.loads, self.chunks = size, dies_in, 0, list[list[str]]()

    def taken(self, calls: Iterator[tuple[str, Any]]) -> Iterator[list[tuple[str, Any]]]:
        self.loads += 1
        while taken := list(islice(calls, self.size)):
            if len(self.chunks) == self.dies_in:
                raise RuntimeError("out of memory")
            self.chunks.append([key for key, _ in taken])
            yield taken

    def answer(self, calls: Iterator[tuple[str, ChatRequest]]) -> Iterator[list[tuple[str, ChatAnswer]]]:
        for taken in self.taken(calls):
            yield [(key, self.reply(request)) for key, request in taken]

    @staticmethod
    def reply(request: ChatRequest) -> ChatAnswer:
        text = request.messages[-1]["content"]
        return ChatAnswer(None, "refused", None, 1, 0) if "bad" in text else ChatAnswer(f"{text}!", None, "stop", 1, 2)

    def score(self, calls: Iterator[tuple[str, RewardRequest]]) -> Iterator[list[tuple[str, RewardAnswer]]]:
        for taken in self.taken(calls):
            yield [(key, RewardAnswer(float(len(request.messages[-1]["content"])), None, 1)) for key, request in taken]


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path, "chat", MODEL.identity)


@pytest.fixture
def wanted() -> dict[str, ChatRequest]:
    requests = [said("x" * (1 + number % 4), number) for number in range(11)]
    return keyed(requests)


def keyed(requests: list[ChatRequest]) -> dict[str, ChatRequest]:
    return {request.key(MODEL, SAMPLING, "echo"): request for request in requests}


def run(store: ResponseStore, wanted: dict[str, ChatRequest], engine: Echo, size: int = 3) -> tuple[CallStats, list[Standing]]:
    seen: list[Standing] = []
    stats = fulfil(wanted, store, engine.answer, lambda r: r.settings(SAMPLING, "echo"), chunk_size=size, on_progress=seen.append)
    return stats, seen


def test_an_empty_store_knows_nothing(store: ResponseStore) -> None:
    assert store.lookup(keys_of("a")).schema == SCHEMAS["chat"]
    assert store.missing(keys_of("b", "a", "b")).to_list() == keys_of("b", "a").to_list()


def test_what_is_appended_is_found_and_the_rest_is_missing(store: ResponseStore) -> None:
    store.append(answer_rows(b="B", a="A"))
    store.append(answer_rows(c="C"))
    wanted = sorted([(key_of("a"), "A"), (key_of("c"), "C")])
    assert store.lookup(keys_of("c", "a", "z", "a")).select("key", "text").rows() == wanted
    assert store.missing(keys_of("z", "c", "y", "b")).to_list() == keys_of("z", "y").to_list()


def random_keys(count: int, seed: int) -> list[str]:
    drawn = random.Random(seed)
    return [f"{drawn.getrandbits(128):032x}" for _ in range(count)]


def rows(keys: list[str], text: str = "") -> pl.DataFrame:
    given = {"key": keys, "text": [f"{text}{key}" for key in keys]}
    return pl.DataFrame(given).select(
        (pl.col(name) if name in given else pl.lit(None)).cast(dtype).alias(name) for name, dtype in SCHEMAS["chat"].items()
    )


def errors(keys: list[str], reason: str) -> pl.DataFrame:
    return rows(keys).with_columns(text=pl.lit(None, pl.String()), error=pl.lit(reason), is_retryable=pl.lit(value=True))


def test_the_store_agrees_with_a_dictionary(store: ResponseStore) -> None:
    keys, absent, drawn = random_keys(1_200, 0), random_keys(300, 1), random.Random(0)
    # Keys that share a half with one that is there.
    absent += [key[:16] + "0" * 16 for key in keys[:20]] + ["f" * 16 + key[16:] for key in keys[:20]]
    known: dict[str, str] = {}
    for round_ in range(6):
        for start in range(200 * round_, 200 * round_ + 200, 50):
            # Some keys are answered again; the first answer stays.
            chosen = [*keys[start : start + 50], *drawn.sample(keys[: start + 1], min(start, 5))]
            store.append(rows(list(dict.fromkeys(chosen)), f"{round_}"))
            known |= {key: f"{round_}{key}" for key in chosen if key not in known}
        if round_ % 2:
            compact(store.folder, "chat")
        asked = drawn.sample([*known, *absent], len(known) // 2 + len(absent))
        assert store.missing(pl.Series("key", asked)).to_list() == [key for key in asked if key not in known]
        found = store.lookup(pl.Series("key", asked)).select("key", "text").rows()
        assert found == sorted((key, known[key]) for key in asked if key in known)


def test_only_well_formed_keys_are_kept(store: ResponseStore) -> None:
    for bad in ("abc", "A" * 32, "g" * 32, "0" * 31, "0" * 33):
        with pytest.raises(ValueError, match="32 hexadecimal digits"):
            store.append(rows([bad]))
    assert store.missing(pl.Series("key", ["abc"])).to_list() == ["abc"]
    store.append(rows(["0" * 32]))
    asked = pl.Series("key", ["abc", None, "0" * 32])
    assert store.missing(asked).to_list() == ["abc", None]
    assert store.lookup(asked)["key"].to_list() == ["0" * 32]


def test_an_error_of_the_moment_is_asked_again_and_the_newest_is_read(store: ResponseStore) -> None:
    first, second, third = keys = random_keys(3, 0)
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


def test_the_first_answer_counts_although_the_clock_went_back(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    [key] = random_keys(1, 0)
    store.append(rows([key], "first "))
    monkeypatch.setattr(segments.time, "time_ns", lambda: 1_600_000_000_000_000_000)
    store.append(rows([key], "second "))
    store.append(rows([key], "third "))
    assert store.lookup(pl.Series("key", [key]))["text"].to_list() == [f"first {key}"]
    assert len(listing(store.folder, "segment")) == 3
    compact(store.folder, "chat")
    assert store.lookup(pl.Series("key", [key]))["text"].to_list() == [f"first {key}"]


def test_a_chunk_with_both_kinds_of_answers_makes_two_segments(store: ResponseStore) -> None:
    keys = random_keys(4, 0)
    written = store.append(pl.concat([rows(keys[:2]), errors(keys[2:], "timeout")]))
    assert [file.name.split("-")[0] for file in written] == ["segment", "errors"]
    assert store.missing(pl.Series("key", keys)).to_list() == keys[2:]
    refusal = errors([keys[2]], "refused").with_columns(is_retryable=pl.lit(value=False))
    store.append(refusal)
    assert store.missing(pl.Series("key", keys)).to_list() == keys[3:], "an error for good is an answer"


@pytest.mark.parametrize("bytes_lost", [30, 1_000_000])
def test_a_damaged_segment_is_named(store: ResponseStore, bytes_lost: int) -> None:
    for seed in range(3):
        store.append(rows(random_keys(100, seed)))
    segment = store.folder / listing(store.folder, "segment")[1]
    content = segment.read_bytes()
    segment.write_bytes(content[: max(0, len(content) - bytes_lost)])
    for look in (store.missing, store.lookup):
        with pytest.raises(DamagedSegmentError, match=segment.name):
            look(pl.Series("key", ["0" * 32]))


def test_of_segments_without_a_wanted_key_only_keys_are_read(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [random_keys(50, seed) for seed in range(4)]
    files = [store.append(rows(each))[0] for each in keys]
    read: list[tuple[list[Path], bool]] = []
    original = search._found
    monkeypatch.setattr(search, "_found", lambda files, *given: read.append((files, "text" in given[-1])) or original(files, *given))
    found = store.lookup(pl.Series("key", [keys[1][0], keys[3][7]]))
    assert sorted(found["text"]) == sorted([keys[1][0], keys[3][7]])
    assert read == [([], False), ([], True), (files, False), ([files[1], files[3]], True)], "errors, of which there are none, then answers"


def test_a_search_begins_again_when_a_segment_goes_under_it(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = random_keys(10, 0)
    store.append(rows(keys))
    names = listing(store.folder, "segment")
    listings = iter([[*names, "segment-that-is-gone.parquet"], names])
    monkeypatch.setattr(search, "listing", lambda *_: next(listings))
    assert len(store.missing(pl.Series("key", keys))) == 0
    monkeypatch.setattr(search, "listing", lambda *_: ["segment-that-is-gone.parquet"])
    with pytest.raises(RuntimeError, match="changed under 20 searches"):
        store.missing(pl.Series("key", keys))


def test_a_killed_writers_leftover_is_never_read(store: ResponseStore) -> None:
    store.append(answer_rows(a="A"))
    (store.folder / "segment-0123.99.partial").write_bytes(b"PAR1 half a file")
    assert store.lookup(keys_of("a", "b"))["text"].to_list() == ["A"]


def test_no_partial_file_stays_behind(store: ResponseStore) -> None:
    segments = store.append(answer_rows(a="A"))
    assert list(store.folder.iterdir()) == segments


def test_a_key_in_two_segments_is_read_once(store: ResponseStore) -> None:
    store.append(answer_rows(a="A", b="B"))
    store.append(answer_rows(a="A", c="C"))
    assert store.lookup(keys_of("a", "b", "c"))["key"].to_list() == sorted(keys_of("a", "b", "c"))


def test_models_and_kinds_do_not_share_answers(tmp_path: Path, store: ResponseStore) -> None:
    store.append(answer_rows(a="A"))
    for other in (ResponseStore(tmp_path, "chat", "town/model@r2"), ResponseStore(tmp_path, "reward", MODEL.identity)):
        assert other.missing(keys_of("a")).to_list() == [key_of("a")]


@pytest.mark.parametrize(
    ("model", "request_", "sampling"),
    [
        (ModelRef("town/model", "r2"), said("hi"), SAMPLING),
        (MODEL, said("hi", 1), SAMPLING),
        (MODEL, said("ho"), SAMPLING),
        (MODEL, said("hi"), Sampling(0.7, 0.9, 8, 7)),
        (MODEL, said("hi"), Sampling(0.6, 0.9, 8, 8)),
    ],
)
def test_a_key_depends_on_all_that_determines_the_answer(model: ModelRef, request_: ChatRequest, sampling: Sampling) -> None:
    key = said("hi").key(MODEL, SAMPLING, "e")
    assert request_.key(model, sampling, "e") != key == said("hi").key(ModelRef("town/model", "r1", "/x"), SAMPLING, "e")
    assert said("hi").key(MODEL, SAMPLING, "other") != key


def test_the_second_call_loads_no_model_and_gives_the_same(store: ResponseStore, wanted: dict[str, ChatRequest]) -> None:
    first = Echo()
    stats, seen = run(store, wanted, first)
    assert (stats.requests, stats.cached, stats.answered, stats.completion_tokens) == (11, 0, 11, 22)
    assert [(each.stats.answered, each.missing, each.stats.completion_tokens) for each in seen] == [
        (3, 11, 6),
        (6, 11, 12),
        (9, 11, 18),
        (11, 11, 22),
    ]
    assert [each.fraction for each in seen] == sorted(each.fraction for each in seen)
    assert seen[-1].fraction == 1
    answers = read_chat(list(wanted), store)
    assert [answer.text for answer in answers] == [f"{request.messages[0]['content']}!" for request in wanted.values()]
    second = Echo()
    stats, seen = run(store, wanted, second)
    assert (second.loads, second.chunks, seen) == (0, [], [])
    assert stats == CallStats(requests=11, cached=11)
    assert read_chat(list(wanted), store) == answers


def test_an_error_row_is_an_answer_and_stops_nothing(store: ResponseStore) -> None:
    requests = [said("good"), said("bad"), said("fine")]
    wanted = keyed(requests)
    stats, _ = run(store, wanted, Echo(2), 2)
    assert (stats.answered, stats.errors) == (3, 1)
    assert [(a.text, a.error) for a in read_chat(list(wanted), store)] == [("good!", None), (None, "refused"), ("fine!", None)]
    assert run(store, wanted, Echo())[0].cached == 3


@pytest.mark.parametrize("dies_in", [0, 1, 3])
def test_a_broken_run_resumes_with_the_remaining_chunks(
    tmp_path: Path, store: ResponseStore, wanted: dict[str, ChatRequest], dies_in: int
) -> None:
    undisturbed = Echo()
    run(ResponseStore(tmp_path / "other", "chat", MODEL.identity), wanted, undisturbed)
    broken = Echo(dies_in=dies_in)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(store, wanted, broken)
    assert len(list(store.folder.glob("segment-*.parquet"))) == dies_in
    shuffled = dict(sorted(wanted.items(), reverse=True))
    rest = Echo()
    stats, _ = run(store, shuffled, rest)
    assert broken.chunks + rest.chunks == undisturbed.chunks
    assert (stats.cached, stats.answered) == (3 * dies_in, 11 - 3 * dies_in)


def test_rewards_go_the_same_way(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "reward", MODEL.identity)
    requests = [RewardRequest([{"role": "assistant", "content": "y" * length}]) for length in (3, 1, 2)]
    wanted = {request.key(MODEL, "echo"): request for request in requests}
    first, second = Echo(2), Echo()
    fulfil(wanted, store, first.score, lambda r: r.settings("echo"), chunk_size=2)
    assert [[len(wanted[key].messages[0]["content"]) for key in chunk] for chunk in first.chunks] == [[3, 2], [1]]
    assert [answer.reward for answer in read_rewards(list(wanted), store)] == [3.0, 1.0, 2.0]
    assert fulfil(wanted, store, second.score, lambda r: r.settings("echo"), chunk_size=2).cached == 3
    assert second.loads == 0


def test_reading_what_was_never_answered_counts_it(store: ResponseStore) -> None:
    store.append(answer_rows(a="A"))
    with pytest.raises(NotAnsweredError, match="2 of 3 requests"):
        read_chat(keys_of("a", "b", "c").to_list(), store)


def test_replay_answers_on_the_models_own_history() -> None:
    calls: list[list[ChatRequest]] = []

    def complete(requests: list[ChatRequest]) -> list[ChatAnswer]:
        calls.append(requests)
        return [ChatAnswer(f"re:{request.messages[-1]['content']}", None, "stop", 1, 1) for request in requests]

    answers = replay({"b": ["b1"], "a": ["a1", "a2"], "none": []}, complete)
    assert {name: [answer.text for answer in found] for name, found in answers.items()} == {
        "a": ["re:a1", "re:a2"],
        "b": ["re:b1"],
        "none": [],
    }
    assert [len(call) for call in calls] == [2, 1]
    assert [(m["role"], m["content"]) for m in calls[1][0].messages] == [("user", "a1"), ("assistant", "re:a1"), ("user", "a2")]


def test_a_turn_without_reply_ends_only_its_own_conversation() -> None:
    def complete(requests: list[ChatRequest]) -> list[ChatAnswer]:
        return [Echo.reply(request) for request in requests]

    answers = replay({"a": ["ok", "bad", "ok", "ok"], "b": ["ok", "ok", "ok"]}, complete)
    assert [answer.error for answer in answers["a"]] == [None, "refused", "earlier_turn_failed", "earlier_turn_failed"]
    assert [answer.text for answer in answers["b"]] == ["ok!"] * 3
