"""Order, stopping, error limits and counts of requests that run through the store."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from rlhi_dagster.engines.ask import StoppedError, TooManyErrorsError, fulfil, in_order
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.engines.replay import replay, unanswered
from rlhi_dagster.engines.requests import chat_requests, chat_rows
from rlhi_dagster.engines.stats import CallStats, Standing
from rlhi_dagster.store.responses import ResponseStore

MODEL = ModelRef("town/model", "r1")
SAMPLING = Sampling(0.6, 0.9, 8, 7)
Reply = Callable[[ChatRequest], ChatAnswer]


def said(*texts: str, persona: str = "", sample_index: int = 0) -> ChatRequest:
    system = [{"role": "system", "content": persona}] if persona else []
    turns = [{"role": "user" if position % 2 == 0 else "assistant", "content": text} for position, text in enumerate(texts)]
    return ChatRequest([*system, *turns], sample_index)


def key_of(request: ChatRequest) -> str:
    return request.key(MODEL, SAMPLING, "echo")


def keyed(*requests: ChatRequest) -> dict[str, ChatRequest]:
    return {key_of(request): request for request in requests}


def echo(request: ChatRequest) -> ChatAnswer:
    return ChatAnswer(f"{request.messages[-1]['content']}!", None, "stop", 10, 3, cached_tokens=4, cost_usd=0.5)


def engine(reply: Reply = echo, at_once: int = 3, ends_after: int | None = None):
    def answers(calls: Iterator[tuple[str, ChatRequest]]) -> Iterator[list[tuple[str, ChatAnswer]]]:
        given = 0
        while taken := list(islice(calls, at_once)):
            if given == ends_after:
                return
            given += 1
            yield [(key, reply(request)) for key, request in taken]

    return answers


def run(store: ResponseStore, wanted: dict[str, ChatRequest], answers=None, **how) -> CallStats:
    return fulfil(wanted, store, answers or engine(), lambda request: request.settings(SAMPLING, "echo"), **{"chunk_size": 3, **how})


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path, "chat", MODEL.identity)


def test_requests_that_share_an_opening_run_together_longest_first() -> None:
    requests = {
        "long": said("x" * 90),
        "b2": said("hello", persona="B likes lists.", sample_index=1),
        "a": said("hello", persona="A likes short answers."),
        "short": said("x"),
        "b1": said("hello", persona="B likes lists."),
        "b0": said("a question of another kind", persona="B likes lists."),
    }
    assert in_order(requests) == ["long", "b0", "b1", "b2", "a", "short"]


def test_conversations_stand_beside_those_that_they_continue() -> None:
    requests = {"2": said("q", "a", "q2"), "other": said("q", "b", "q2"), "1": said("q"), "3": said("q", "a", "q2", "a2", "q3")}
    assert in_order(requests) == ["1", "2", "3", "other"]


def test_the_order_is_that_of_the_requests_not_of_their_arrival() -> None:
    requests = keyed(*(said(f"text {n % 7}" * (n % 3 + 1), persona=f"P{n % 4}", sample_index=n) for n in range(60)))
    shuffled = list(requests.items())
    random.Random(1).shuffle(shuffled)
    assert in_order(dict(shuffled)) == in_order(requests)


def test_figures_add_up(store: ResponseStore) -> None:
    wanted = keyed(*(said("x" * n) for n in range(1, 8)))
    seen: list[Standing] = []
    stats = run(store, wanted, usd_per_hour=3600.0, on_progress=seen.append)
    assert (stats.requests, stats.answered, stats.prompt_tokens, stats.cached_tokens, stats.completion_tokens) == (7, 7, 70, 28, 21)
    assert stats.prompt_characters == sum(range(1, 8))
    assert stats.seconds > 0
    assert stats.cost_usd == pytest.approx(3.5 + stats.seconds)
    assert [(each.stats.answered, each.missing) for each in seen] == [(3, 7), (6, 7), (7, 7)]
    assert stats + CallStats(requests=1, cost_usd=1.0) == CallStats(
        8, 0, 7, 0, 28, 70, 28, 21, pytest.approx(stats.seconds), pytest.approx(stats.cost_usd + 1)
    )


def test_who_is_told_to_stop_keeps_what_is_finished_and_goes_on_later(store: ResponseStore) -> None:
    wanted = keyed(*(said("x" * n) for n in range(1, 12)))
    asked: list[str] = []

    def reply(request: ChatRequest) -> ChatAnswer:
        asked.append(key_of(request))
        return echo(request)

    with pytest.raises(StoppedError, match=r"stopped: 6 of 11 requests answered and kept; launch again"):
        run(store, wanted, engine(reply), chunk_size=100, is_stopping=lambda: len(asked) >= 6)
    assert len(asked) == 6
    stats = run(store, wanted, engine(reply))
    assert (stats.cached, stats.answered) == (6, 5)
    assert sorted(asked) == sorted(wanted)


def test_an_engine_that_gives_up_silently_is_an_error(store: ResponseStore) -> None:
    wanted = keyed(*(said("x" * n) for n in range(1, 12)))
    with pytest.raises(RuntimeError, match="the engine ended after 3 of 11 requests"):
        run(store, wanted, engine(ends_after=1))
    assert run(store, wanted).cached == 3


def refuse_some(request: ChatRequest) -> ChatAnswer:
    number = request.sample_index
    if number % 4 == 0:
        return echo(request)
    return ChatAnswer(None, "timeout: 30 s" if number % 4 == 1 else "http_400: no", None, 5, 0, is_retryable=number % 4 == 1)


def test_too_many_errors_end_the_run_with_their_reasons(store: ResponseStore) -> None:
    wanted = keyed(*(said("hello", sample_index=n) for n in range(200)))
    with pytest.raises(TooManyErrorsError, match=r"over max_error_fraction 0\.7 .*: http_400 \d+, timeout \d+\.") as raised:
        run(store, wanted, engine(refuse_some), chunk_size=50, max_error_fraction=0.7)
    assert "hello" not in str(raised.value)
    answered = int(str(raised.value).split(" of ")[1].split()[0])
    assert 20 < answered < 60
    assert run(store, wanted, engine(refuse_some), max_error_fraction=1.0).answered >= 200 - answered


def test_requests_that_do_not_fit_stop_nothing(store: ResponseStore) -> None:
    wanted = keyed(*(said("hello", sample_index=n) for n in range(100)))
    stats = run(store, wanted, engine(lambda _: ChatAnswer(None, "prompt_too_long: 9 tokens", None, 9, 0)), max_error_fraction=0.0)
    assert stats.errors == 100


def test_a_few_errors_stop_nothing(store: ResponseStore) -> None:
    wanted = keyed(*(said("hello", sample_index=n) for n in range(20)))
    assert run(store, wanted, engine(refuse_some), max_error_fraction=0.0).errors == 15


def test_errors_of_the_moment_are_asked_again_and_others_are_not(store: ResponseStore) -> None:
    wanted = keyed(*(said("hello", sample_index=n) for n in range(20)))
    run(store, wanted, engine(refuse_some))
    errors = [answer.error for answer in read_chat(list(wanted), store)]
    assert errors.count("timeout: 30 s") == 5
    stats = run(store, wanted, engine(echo))
    assert (stats.cached, stats.answered) == (15, 5)
    assert [answer.error for answer in read_chat(list(wanted), store)] == [None if error == "timeout: 30 s" else error for error in errors]


def test_what_a_replay_lacks_is_counted_to_the_end_of_each_conversation(store: ResponseStore) -> None:
    dialogues = {"whole": ["a", "b"], "broken": ["c", "d", "e"], "new": ["f"], "failed": ["bad", "g"]}

    def reply(request: ChatRequest) -> ChatAnswer:
        return ChatAnswer(None, "prompt_too_long: 9", None, 9, 0) if request.messages[-1]["content"] == "bad" else echo(request)

    run(store, keyed(said("a"), said("a", "a!", "b"), said("c"), said("bad")), engine(reply))
    missing = unanswered(dialogues, store, key_of)
    said_in = {name: [[message["content"] for message in request.messages] for request in requests] for name, requests in missing.items()}
    assert said_in == {"broken": [["c", "d"], ["c", "d", "e"]], "new": [["f"]]}

    def complete(requests: list[ChatRequest]) -> list[ChatAnswer]:
        run(store, keyed(*requests), engine(reply))
        return read_chat([key_of(request) for request in requests], store)

    replay(dialogues, complete)
    assert unanswered(dialogues, store, key_of) == {}


def test_samples_of_the_same_messages_are_one_row_of_a_file() -> None:
    schema = '{"type": "object"}'
    asked = [
        *(said("hello", persona="B", sample_index=n) for n in (0, 1, 5)),
        said("hello", persona="C"),
        ChatRequest(said("hello").messages, choices=("A", "B")),
        ChatRequest(said("hello").messages, json_schema=schema),
    ]
    rows = chat_rows(keyed(*asked))
    assert rows["sample_indices"].to_list() == [[0, 1, 5], [0], [0], [0]]
    assert chat_requests(rows) == keyed(*asked)
    assert list(chat_requests(rows)) == list(keyed(*asked))
    assert chat_requests(chat_rows({})) == {}
