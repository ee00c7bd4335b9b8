"""A job of 2,000 requests against a server with every fault that servers are known for: all answered or error rows, none twice.

The figures of docs/decisions/openai_engine.md are this test's log:
``pytest tests/workers/test_engine_openai_faults.py --log-cli-level=INFO``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.engines.ask import fulfil
from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai import server as asking
from rlhi_dagster.engines.openai.engine import OpenAIChatEngine, summary
from rlhi_dagster.engines.openai.pacing import AdaptiveLimit
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.engines.settings import OpenAISettings
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.store.responses import ResponseStore
from tests.servers import Asked, Told, completion, refused, serving

MODEL = ModelRef("town/model", "r1")
SAMPLING = Sampling(0.6, 0.9, 64, 7)
ATTEMPTS, FOR_EVER = 5, 99
REASONS = {
    "busy": "rate_limited",
    "busy_for_a_second": "rate_limited",
    "broken": "http_500",
    "hang": "timeout",
    "drip": "timeout",
    "reset": "connection",
    "cut": "connection",
    "truncated": "malformed_response",
    "no_json": "malformed_response",
    "wrong_shape": "malformed_response",
    "no_choice": "malformed_response",
    "same_index": "",
    "one_missing": "",
    "too_long": "prompt_too_long",
    "refused": "http_400",
    "filtered": "content_filter",
}
"""Every fault, and the reason of the error row that it leads to if it stays; none where the requests can be answered all the same."""
FINAL = {"prompt_too_long", "content_filter"}
OVERLOAD, OVERLOAD_ALLOWS = range(300, 900), 6
"""While the server counts these requests it takes no more than so many at once."""
KEY = "sk-made-up-key-of-a-test"
_log = logging.getLogger(__name__)


def fault(messages: list[dict[str, str]]) -> tuple[str | None, int]:
    """The fault of a request and how often it comes, by a digest: 1 of 11 has one, and most of those are gone after a try or two."""
    number = int(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:12], 16)
    kinds = list(REASONS)
    if number % 11 or messages[-1]["content"].startswith("well"):
        return None, 0
    kind = kinds[number // 11 % len(kinds)]
    times = (1, 1, 2, FOR_EVER)[number // (11 * len(kinds)) % 4]
    return kind, FOR_EVER if REASONS[kind] in {*FINAL, "http_400"} else 1 if kind == "busy_for_a_second" else times


def told(kind: str, texts: list[str]) -> Told:
    """What the server says when it is at fault. All responses carry the same id."""
    good = completion(*texts)
    if kind in {"hang", "drip", "reset", "cut"}:
        return Told(payload=good, fault=kind)
    if kind == "same_index":
        good["choices"] = [choice | {"index": min(choice["index"], 1)} for choice in good["choices"]] * 2
    if kind == "one_missing" and len(texts) > 1:
        del good["choices"][0]
    if kind == "filtered":
        good = completion(*[None] * len(texts), finish_reason="content_filter")
    return {
        "busy": refused("slow down", 429),
        "busy_for_a_second": Told(429, {"error": {"message": "slow down"}}, headers={"retry-after": "1"}),
        "broken": Told(500, content=b"<html>oops</html>"),
        "truncated": Told(content=json.dumps(good).encode()[:-20]),
        "no_json": Told(content=b"\xff\xfe nothing"),
        "wrong_shape": Told(payload={"choices": [{"index": 0, "message": {"content": 7}, "finish_reason": "stop"}]}),
        "no_choice": Told(payload=good | {"choices": []}),
        "too_long": refused("This model's maximum context length is 8192 tokens. However, you asked for more."),
        "refused": refused("temperature must be below 0.5", param="temperature"),
    }.get(kind, Told(payload=good))


class Faulty:
    """The server. A reply is the question and its seed, so that every answer can be told to be the right one."""

    def __init__(self) -> None:
        self.is_healthy = False
        self.counted, self.under_way = 0, 0
        self.seen: Counter[str] = Counter()
        self.samples: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    async def __call__(self, asked: Asked) -> Told:
        if asked.path.endswith("/models"):
            return Told(404)
        self.counted += 1
        self.under_way += 1
        try:
            return await self._answer(asked.json)
        finally:
            self.under_way -= 1

    async def _answer(self, body: dict) -> Told:
        if not self.is_healthy and self.counted in OVERLOAD and self.under_way > OVERLOAD_ALLOWS:
            return refused("overloaded", 429)
        question = body["messages"][-1]["content"]
        self.samples[question] += body.get("n", 1)
        texts = [f"{question} {body['seed'] + index}" for index in range(body.get("n", 1))]
        kind, times = fault(body["messages"])
        await asyncio.sleep(0.01)
        if kind is None or self.is_healthy or self.seen[question] >= times:
            return Told(payload=completion(*texts))
        self.seen[question] += 1
        self.faults[kind] += 1
        return told(kind, texts)


def requests() -> list[ChatRequest]:
    """1,400 questions asked once and 120 asked five times. The shortest come last, and to those the server does nothing."""
    texts = [f"question {number}" for number in range(900)] + [f"well {number}" for number in range(500)]
    once = [ChatRequest([{"role": "user", "content": text}]) for text in texts]
    often = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"candidates {number}"}] for number in range(120)]
    return [*once, *(ChatRequest(messages, index) for messages in often for index in range(5))]


def stored(store: ResponseStore, prefix: str) -> Counter[str]:
    """Keys in the store's files."""
    files = sorted(store.folder.glob(f"{prefix}-*.parquet"))
    return Counter(pl.concat([pl.read_parquet(file, columns=["key"]) for file in files])["key"].to_list() if files else [])


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
def test_of_2000_requests_each_ends_once_and_the_limit_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    caplog.set_level(logging.INFO)
    server, store = Faulty(), ResponseStore(tmp_path, "chat", MODEL.identity)
    with serving(server) as address:
        settings = OpenAISettings(
            base_url=f"{address}/v1",
            api_key_variable="TEST_KEY",
            chunk_size=100,
            max_concurrency=32,
            timeout_seconds=1.5,
            attempts=ATTEMPTS,
            max_error_fraction=1,
        )
        engine = OpenAIChatEngine(MODEL, settings)
        wanted = {request.key(MODEL, SAMPLING, settings.identity): request for request in requests()}

        def run() -> CallStats:
            answers = lambda calls: engine.answer(calls, SAMPLING)  # noqa: E731
            return fulfil(wanted, store, answers, lambda request: request.settings(SAMPLING, settings.identity), chunk_size=100)

        started = time.monotonic()
        stats = run()
        _log.info("first run: %.1f s; %s", time.monotonic() - started, summary(engine.tally, engine.limit))
        _log.info("error rows: %s; limits: %s", dict(engine.tally.errors), " ".join(map(str, engine.limit.trace)))
        assert stats.answered == len(wanted) == 2000

        answers = dict(zip(wanted, read_chat(list(wanted), store), strict=True))
        again = check_rows(wanted, answers)
        check_files(store, wanted, again)
        assert set(server.faults) == set(REASONS)
        assert engine.tally.errors == Counter(answer.error.split(":")[0] for answer in answers.values() if answer.error)
        check_limit(engine.limit)

        server.is_healthy = True
        server.samples.clear()
        started = time.monotonic()
        stats = run()
        _log.info("second run: %.1f s; asked %d", time.monotonic() - started, stats.answered)
        assert (stats.answered, stats.cached, stats.errors) == (len(again), 2000 - len(again), 0)
        assert server.samples == Counter(wanted[key].messages[-1]["content"] for key in again)
        assert set(stored(store, "segment").values()) == {1}
        assert len(stored(store, "segment")) == 2000
    assert not [word for word in (KEY, "question 1", "candidates 1", "Be brief") if word in caplog.text], "no key and no prompt is logged"
    assert not [file for file in tmp_path.rglob("*.parquet") if KEY in pl.read_parquet(file).write_ndjson()]


def check_rows(wanted: dict, answers: dict) -> set[str]:
    """Every answer is its request's, every error has the reason that its fault leads to; returns the keys to ask again."""
    again = {key for key, answer in answers.items() if answer.is_retryable}
    unlucky = 0
    for key, request in wanted.items():
        answer, (kind, times) = answers[key], fault(request.messages)
        if answer.error is None:
            assert answer.text == f"{request.messages[-1]['content']} {request.seed(MODEL, SAMPLING)}"
            continue
        reason = answer.error.split(":")[0]
        assert answer.text is None
        assert (reason in FINAL) is not answer.is_retryable
        if kind is None or REASONS[kind] != reason or times < ATTEMPTS:
            unlucky += 1  # too often in a row beside the server's overload, or this machine was too slow for the time limit
            assert reason in {"rate_limited", "timeout"}
    assert unlucky < 40
    reasons = Counter(answer.error.split(":")[0] for answer in answers.values() if answer.error)
    assert set(reasons) <= set(REASONS.values())
    stays = {key for key, request in wanted.items() if (found := fault(request.messages))[1] == FOR_EVER and REASONS[found[0]]}
    assert stays <= {key for key, answer in answers.items() if answer.error}
    return again


def check_files(store: ResponseStore, wanted: dict, again: set[str]) -> None:
    """Each key lies in the store's files once."""
    final, errors = stored(store, "segment"), stored(store, "errors")
    assert set(final.values()) == set(errors.values()) == {1}
    assert set(errors) == again
    assert set(final) == set(wanted) - again


def check_limit(limit: AdaptiveLimit) -> None:
    """It fell to what the server takes, and came back."""
    trace = list(limit.trace)
    assert limit.lowest == min(trace) <= OVERLOAD_ALLOWS
    assert limit.most in trace[trace.index(limit.lowest) :]
