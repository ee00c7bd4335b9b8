"""The engine for servers of OpenAI's chat completions, against servers that do one thing each."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pytest
import torch

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages, Sampling
from rlhi_dagster.engines.choices import pick
from rlhi_dagster.engines.loading import chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai import server as asking
from rlhi_dagster.engines.openai.engine import OpenAIChatEngine
from rlhi_dagster.engines.openai.reading import retry_after, server_error
from rlhi_dagster.engines.openai.server import ServerRefusedError
from rlhi_dagster.engines.schemas import InvalidSchemaError
from rlhi_dagster.engines.settings import OpenAISettings, Price
from tests.servers import Asked, Told, completion, refused, serving

MODEL = ModelRef("town/model", "r1")
SAMPLING = Sampling(0.6, 0.9, 64, 7)
SCHEMA = json.dumps({"type": "object", "properties": {"verdict": {"enum": ["good", "bad"]}}, "required": ["verdict"]})
Reply = Callable[[dict[str, Any]], Told]


class Server:
    """Answers by a function of the request's body; remembers what it was asked."""

    def __init__(self, reply: Reply, models: Told | None = None) -> None:
        self.reply, self.models = reply, models or Told(404)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    async def __call__(self, asked: Asked) -> Told:
        self.keys.append(asked.headers.get("authorization"))
        if asked.path == "/v1/models":
            return self.models
        assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
        self.bodies.append(asked.json)
        return self.reply(asked.json)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.001)


def said(text: str, sample_index: int = 0, **more: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index, **more)


def ask(server: Server, requests: list[ChatRequest], sampling: Sampling = SAMPLING, **settings: Any) -> list[ChatAnswer]:
    """Answers in order; each call must be answered once."""
    with serving(server) as address:
        engine = chat_engine(MODEL, OpenAISettings(base_url=f"{address}/v1", **{"chunk_size": 100, "attempts": 3, **settings}))
        calls = ((str(number), request) for number, request in enumerate(requests))
        found = list(chain.from_iterable(engine.answer(calls, sampling)))
    assert sorted(int(key) for key, _ in found) == list(range(len(requests)))
    return [answer for _, answer in sorted(found, key=lambda each: int(each[0]))]


def echo(body: dict[str, Any]) -> Told:
    return Told(payload=completion(*(f"{body['messages'][-1]['content']} {body['seed'] + index}" for index in range(body.get("n", 1)))))


def scores(tokens: dict[str, float]) -> dict[str, Any]:
    """Log-probabilities at the first token, as OpenAI and vLLM give them."""
    top = [{"token": token, "logprob": score, "bytes": None} for token, score in tokens.items()]
    return {"content": [{**top[0], "top_logprobs": top}]}


# What is sent


def test_a_request_has_the_model_the_messages_and_the_sampling() -> None:
    server = Server(echo)
    [answer] = ask(server, [said("hi\n你好 🙂")])
    [body] = server.bodies
    expected = {"model": "town/model", "messages": said("hi\n你好 🙂").messages, "temperature": 0.6, "top_p": 0.9, "max_tokens": 64}
    assert body == expected | {"seed": said("hi\n你好 🙂").seed(MODEL, SAMPLING)}
    assert (answer.error, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == (None, "stop", 10, 5)
    assert answer.text == f"hi\n你好 🙂 {body['seed']}"


def test_samples_of_the_same_messages_are_one_request_and_its_cost_is_shared_out_whole() -> None:
    def reply(body: dict[str, Any]) -> Told:
        texts = [f"{body['messages'][-1]['content']} {body['seed'] + index}" for index in range(body.get("n", 1))]
        return Told(payload=completion(*texts, prompt_tokens=1000, cached_tokens=400))

    server = Server(reply)
    requests = [*(said("a", index) for index in range(8)), *(said("b", index) for index in (0, 1, 3, 4, 5)), said("c")]
    prices = {"town/model": Price(prompt_usd_per_million=10, cached_usd_per_million=1, completion_usd_per_million=20)}
    answers = ask(server, requests, prices=prices)
    # Under way together, they may arrive in any order.
    asked = sorted((body["messages"][-1]["content"], body.get("n", 1)) for body in server.bodies)
    assert asked == [("a", 8), ("b", 2), ("b", 3), ("c", 1)]
    assert [a.text for a in answers] == [f"{r.messages[0]['content']} {r.seed(MODEL, SAMPLING)}" for r in requests]
    assert {answer.prompt_tokens for answer in answers} == {1000}
    assert [answer.cached_tokens for answer in answers[:8]] == [400, *[1000] * 7]
    assert sum(a.cost_usd for a in answers) == pytest.approx((4 * (600 * 10 + 400 * 1) + 14 * 5 * 20) / 1e6)
    assert sum(answer.completion_tokens for answer in answers) == 14 * 5


def test_samples_are_not_torn_apart_where_a_window_of_calls_ends() -> None:
    server = Server(echo)
    requests = [said(f"q{number}", index) for number in range(30) for index in range(5)]
    answers = ask(server, requests, max_concurrency=6, chunk_size=100)
    assert [answer.error for answer in answers] == [None] * 150
    assert [body["n"] for body in server.bodies] == [5] * 30


def test_greedy_samples_are_one_reply() -> None:
    server = Server(lambda body: Told(payload=completion("the likeliest")))
    answers = ask(server, [said("a", index) for index in range(4)], Sampling(0.0, 1.0, 64, 7))
    assert [answer.text for answer in answers] == ["the likeliest"] * 4
    assert ["n" in body for body in server.bodies] == [False]


def test_calls_are_taken_as_there_is_room() -> None:
    taken = answered = most = 0

    def calls() -> Iterator[tuple[str, ChatRequest]]:
        nonlocal taken
        while taken < 100:
            taken += 1
            yield str(taken), said(f"question {taken}")

    with serving(Server(echo)) as address:
        engine = chat_engine(MODEL, OpenAISettings(base_url=f"{address}/v1", chunk_size=100, max_concurrency=4))
        for finished in engine.answer(calls(), SAMPLING):
            most = max(most, taken - answered)
            answered += len(finished)
    assert (most, taken, answered) == (8, 100, 100)


def test_as_many_requests_are_under_way_as_allowed() -> None:
    class Crowded(Server):
        here = most = 0

        async def __call__(self, asked: Asked) -> Told:
            self.here += 1
            self.most = max(self.most, self.here)
            await asyncio.sleep(0.02)
            self.here -= 1
            return await super().__call__(asked)

    server = Crowded(echo)
    ask(server, [said(f"question {number}") for number in range(60)], max_concurrency=6)
    assert server.most == 6


def test_whoever_stops_listening_leaves_an_engine_for_others() -> None:
    async def slow(asked: Asked) -> Told:
        await asyncio.sleep(0 if asked.path.endswith("models") or "first" in asked.json["messages"][0]["content"] else 30)
        return Told(404) if asked.path.endswith("models") else echo(asked.json)

    with serving(slow) as address:
        engine = chat_engine(MODEL, OpenAISettings(base_url=f"{address}/v1", chunk_size=10))
        finished = engine.answer(iter([("1", said("first")), ("2", said("second"))]), SAMPLING)
        assert [key for key, _ in next(finished)] == ["1"]
        finished.close()
        assert [key for key, _ in next(engine.answer(iter([("3", said("first of others"))]), SAMPLING))] == ["3"]


# Replies


def test_an_empty_reply_is_a_text_and_one_held_back_is_an_error() -> None:
    def reply(body: dict[str, Any]) -> Told:
        told = {
            "empty": completion(""),
            "null": completion(None),
            "cut": completion("a long", finish_reason="length") | {"usage": {"prompt_tokens": 10, "completion_tokens": 64}},
            "filtered": completion(None, finish_reason="content_filter"),
            "partly": completion("half of it", finish_reason="content_filter"),
        }
        told["declined"] = completion(None)
        told["declined"]["choices"][0]["message"]["refusal"] = "I will not."
        told["surrogate"] = completion("a\ud83d")
        return Told(payload=told[body["messages"][0]["content"]])

    names = ["empty", "null", "cut", "filtered", "partly", "declined", "surrogate"]
    found = dict(zip(names, ask(Server(reply), [said(name) for name in names]), strict=True))
    for name, text, reason in (("empty", "", "stop"), ("null", "", "stop"), ("cut", "a long", "length"), ("surrogate", "a\ufffd", "stop")):
        assert (found[name].text, found[name].error, found[name].finish_reason) == (text, None, reason)
    for name in ("filtered", "partly", "declined"):
        assert (found[name].text, found[name].error) == (None, "content_filter: the server held the reply back")
        assert not found[name].is_retryable


def test_choices_that_are_missing_or_there_twice_are_asked_again() -> None:
    def reply(body: dict[str, Any]) -> Told:
        told = echo(body).payload
        if body.get("n") == 5:
            for choice, index in zip(told["choices"], (0, 2, 2, 9, "x"), strict=True):
                choice["index"] = index
        return Told(payload=told)

    server = Server(reply)
    requests = [said("a", index) for index in range(5)]
    prices = {"town/model": Price(prompt_usd_per_million=0, completion_usd_per_million=1e6)}
    answers = ask(server, requests, prices=prices)
    seed = requests[0].seed(MODEL, SAMPLING)
    first, *again = [(body["seed"], body.get("n", 1)) for body in server.bodies]
    assert (first, sorted(again)) == ((seed, 5), [(seed + 1, 1), (seed + 3, 2)])
    # The third choice of the first response came under index 2 as the second did: the first of both is taken.
    assert [answer.text for answer in answers] == [f"a {seed + index}" for index in (0, 1, 1, 3, 4)]
    assert sum(answer.cost_usd for answer in answers) == 5 * (5 + 1 + 2)


def test_a_sample_that_never_comes_is_an_error_row() -> None:
    def reply(body: dict[str, Any]) -> Told:
        told = echo(body).payload
        for choice in told["choices"]:
            choice["index"] += choice["index"] == body.get("n", 1) - 1
        return Told(payload=told)

    one, two = ask(Server(reply), [said("a"), said("a", 1)])
    assert one.text == f"a {said('a').seed(MODEL, SAMPLING)}"
    assert (two.text, two.error, two.is_retryable) == (None, "malformed_response: choices[0].index is 1, and 1 asked for", True)


def test_a_server_that_knows_its_context_and_cuts_all_the_same_gets_an_error_row() -> None:
    models = Told(payload={"data": [{"id": "town/model", "owned_by": "vllm", "max_model_len": 80}]})
    server = Server(lambda body: Told(payload=completion("short", prompt_tokens=17, token_ids=[1, 2, 3])), models)
    [answer] = ask(server, [said("a")])
    assert answer.error == "prompt_too_long: 17 prompt + 64 new tokens, context 80"
    server = Server(lambda body: Told(payload=completion("short", prompt_tokens=16, token_ids=[1, 2, 3])), models)
    [answer] = ask(server, [said("a")])
    assert (answer.error, answer.completion_tokens) == (None, 3)
    assert server.bodies[0]["return_token_ids"] is True
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    unknown = Server(lambda body: Told(payload=completion("short", finish_reason="length")))
    [answer] = ask(unknown, [said("a")])
    assert "chat_template_kwargs" not in unknown.bodies[0], "other servers may refuse what they do not know"
    assert answer.error == "prompt_too_long: 10 prompt + 64 new tokens; the server cut the reply before"


# Choices and schemas


def test_a_choice_is_picked_by_the_probabilities_of_the_first_token() -> None:
    seen = {"A": -1.0, " B": -2.0, "B": -2.5, "C": -9999.0, "I": -0.5}
    server = Server(lambda body: Told(payload=completion("A", logprobs=scores(seen))))
    requests = [said("which?", index, choices=("A", "B", "C", "D")) for index in range(40)]
    answers = ask(server, requests, Sampling(1.0, 1.0, 64, 7))
    [body] = server.bodies  # one reply has the probabilities of all samples
    assert (body["structured_outputs"], body["logprobs"], body["top_logprobs"]) == ({"choice": ["A", "B", "C", "D"]}, True, 20)
    assert (body["max_tokens"], body["temperature"], "n" in body) == (1, 1.0, False)
    given = [-1.0, math.log(math.exp(-2.0) + math.exp(-2.5)), -math.inf, -math.inf]
    for request, answer in zip(requests, answers, strict=True):
        place, probabilities = pick(torch.tensor(given, dtype=torch.float64), 1.0, request.draw(MODEL, Sampling(1.0, 1.0, 64, 7)))
        assert (answer.text, answer.finish_reason) == (request.choices[place], "stop")
        assert answer.probabilities == pytest.approx(probabilities)
    assert answers[0].probabilities == pytest.approx([0.6285, 0.3715, 0, 0], abs=1e-3)
    assert {answer.text for answer in answers} == {"A", "B"}


def test_a_server_without_constraints_and_scores_is_asked_in_words(caplog: pytest.LogCaptureFixture) -> None:
    def reply(body: dict[str, Any]) -> Told:
        for field in ("structured_outputs", "logprobs"):
            if field in body:
                return refused(f"Unrecognized request argument supplied: {field}")
        told = "Answer with exactly one of the following, and write nothing else: A, BC"
        return Told(payload=completion(" BC\n" if body["messages"][-1]["content"].endswith(told) else "chat"))

    server = Server(reply)
    with caplog.at_level(logging.WARNING):
        answers = ask(server, [said(f"question {number}", choices=("A", "BC")) for number in range(30)], max_concurrency=2)
    assert {(answer.text, answer.error, answer.probabilities) for answer in answers} == {("BC", None, None)}
    assert [record.getMessage() for record in caplog.records] == [
        f"town/model: the server refuses `{field}`; it is left out from now on" for field in ("structured_outputs", "logprobs")
    ]
    assert server.bodies[-1]["temperature"] == 0.6
    assert server.bodies[-1]["max_tokens"] == 2
    assert len(server.bodies) <= 30 + 2 * 2


def test_a_server_that_ignores_log_probabilities_is_not_believed_at_another_temperature() -> None:
    server = Server(lambda body: Told(payload=completion("A")))
    answers = ask(server, [said("which?", choices=("A", "B"))])
    assert [(answer.text, answer.probabilities) for answer in answers] == [("A", None)]
    assert [body["temperature"] for body in server.bodies] == [1.0, 0.6]


def test_a_reply_that_is_no_choice_is_tried_again_in_words_and_with_another_seed() -> None:
    server = Server(lambda body: Told(payload=completion("I like tulips.")) if "logprobs" not in body else refused("no logprobs"))
    [answer] = ask(server, [said("which?", choices=("A", "B"))])
    assert (answer.text, answer.error) == (None, "not_a_choice: the reply is none of 2 choices")
    assert not answer.is_retryable
    asked = server.bodies[1:]
    assert len({body["seed"] for body in asked}) == len(asked) == 3
    assert ["write nothing else" in body["messages"][-1]["content"] for body in asked] == [False, True, True]


def test_json_is_asked_for_by_its_schema_and_checked() -> None:
    server = Server(lambda body: Told(payload=completion('{"verdict": "good"}')))
    [answer] = ask(server, [said("judge", json_schema=SCHEMA)])
    assert answer.text == '{"verdict": "good"}'
    [body] = server.bodies
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": json.loads(SCHEMA), "strict": True},
    }
    assert body["messages"] == said("judge").messages


def test_a_server_without_schemas_is_asked_in_words_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def reply(body: dict[str, Any]) -> Told:
        if "response_format" in body:
            detail = [{"loc": ["body", "response_format"], "msg": "extra inputs are not permitted", "input": "judge"}]
            return Told(422, {"detail": detail})
        return Told(
            payload=completion(
                'Here:\n{"verdict": 1}' if body["messages"][-1]["content"].startswith("bad") else '```json\n{"verdict": "bad"}\n```'
            )
        )

    server = Server(reply)
    with caplog.at_level(logging.WARNING):
        good, bad = ask(server, [said("judge", json_schema=SCHEMA), said("bad", json_schema=SCHEMA)], max_concurrency=1)
    assert (good.text, good.error) == ('{"verdict": "bad"}', None)
    assert (bad.text, bad.is_retryable) == (None, False)
    assert str(bad.error).startswith("invalid_json: ")
    assert "verdict" not in str(bad.error)
    assert len([record for record in caplog.records if "refuses `response_format`" in record.getMessage()]) == 1
    assert SCHEMA in server.bodies[-1]["messages"][-1]["content"]


def test_json_that_the_limit_cut_is_not_asked_again() -> None:
    server = Server(lambda body: Told(payload=completion('{"verdict"', finish_reason="length") | {"usage": {"completion_tokens": 64}}))
    [answer] = ask(server, [said("judge", json_schema=SCHEMA)])
    assert (answer.text, answer.error, answer.completion_tokens) == (None, "invalid_json: the length limit cut it", 64)
    assert len(server.bodies) == 1


def test_an_invalid_schema_ends_the_work() -> None:
    with pytest.raises(InvalidSchemaError):
        ask(Server(echo), [said("judge", json_schema='{"type": "tulip"}')])


@pytest.mark.parametrize(
    ("field", "message", "instead"),
    [
        ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model.", "max_completion_tokens"),
        ("seed", "seed: extra fields not permitted", None),
        ("n", "n must be 1", None),
    ],
)
def test_fields_that_a_server_lacks_are_left_out(field: str, message: str, instead: str | None) -> None:
    def reply(body: dict[str, Any]) -> Told:
        return refused(message, param=field) if field in body else Told(payload=completion(*["x"] * body.get("n", 1)))

    server = Server(reply)
    answers = ask(server, [said("a", index) for index in range(3)])
    assert [answer.text for answer in answers] == ["x"] * 3
    assert all(field not in body for body in server.bodies[1:])
    assert instead is None or server.bodies[-1][instead] == 64


# Refusals


def test_a_prompt_that_does_not_fit_is_a_final_error_row() -> None:
    def reply(body: dict[str, Any]) -> Told:
        if "vLLM" in body["messages"][0]["content"]:
            return refused("This model's maximum context length is 64 tokens. However, your prompt contains 90 input tokens.", code=400)
        return refused("Please reduce the length.", code="context_length_exceeded")

    for text in ("as vLLM says it", "as OpenAI says it"):
        server = Server(reply)
        [answer] = ask(server, [said(text)])
        assert str(answer.error).startswith("prompt_too_long: ")
        assert (answer.text, answer.is_retryable, len(server.bodies)) == (None, False, 1)


def test_other_refusals_are_error_rows_without_the_prompt_and_asked_again_by_the_next_run() -> None:
    secret = "My doctor says that the results are not what we hoped."

    def reply(body: dict[str, Any]) -> Told:
        return refused(
            f"cannot parse: {secret[5:40]}" if "doctor" in body["messages"][0]["content"] else "role `tulip` is unknown " * 20, 422
        )

    quoted, short, other = ask(Server(reply), [said(secret), said("tulip"), said("something else")])
    assert quoted.error == "http_422: the server's message quotes the prompt"
    assert short.error == "http_422: the server's message quotes the prompt"
    assert str(other.error).startswith("http_422: role `tulip` is unknown")
    assert len(str(other.error)) <= 210
    assert all(answer.is_retryable for answer in (quoted, short, other))


def test_a_refusal_that_quotes_the_prompt_teaches_nothing() -> None:
    server = Server(lambda body: refused("cannot read: which seed shall I sow, and n or m?"))
    answers = ask(server, [said("Please tell me: which seed shall I sow, and n or m?", index) for index in range(2)])
    assert [answer.error for answer in answers] == ["http_400: the server's message quotes the prompt"] * 2
    assert len(server.bodies) == 1


def test_a_moderated_prompt_is_a_content_filter_row() -> None:
    [answer] = ask(Server(lambda body: refused("The prompt was filtered.", code="content_filter")), [said("a")])
    assert (answer.error, answer.is_retryable) == ("content_filter: The prompt was filtered.", False)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (
            refused("Incorrect API key provided", 401),
            r"denies access to town/model \(status 401\): check the key in the environment variable TEST_KEY",
        ),
        (refused("no", 403), r"denies access to town/model \(status 403\)"),
        (
            refused("The model `x` does not exist", 404, code="model_not_found"),
            r"/v1 has no chat completions of the model town/model \(status 404\)",
        ),
        (refused("Invalid model name passed in model=x"), "has no chat completions of the model town/model"),
        (refused("no", param="model"), "has no chat completions of the model town/model"),
        (Told(404, content=b"<html>"), "has no chat completions of the model town/model"),
        (Told(301, content=b"", headers={"location": "/elsewhere"}), "has no chat completions of the model town/model"),
        (refused("pay", 402), "no credit left"),
        (refused("You exceeded your quota", 429, code="insufficient_quota"), "no credit left"),
    ],
)
def test_what_no_request_can_succeed_with_ends_the_run_in_a_sentence(told: Told, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test-secret")
    server = Server(lambda body: told)
    with pytest.raises(ServerRefusedError, match=sentence) as raised:
        ask(server, [said(f"question {number}") for number in range(10)], api_key_variable="TEST_KEY")
    assert "sk-test-secret" not in str(raised.value)
    assert set(server.keys) == {"Bearer sk-test-secret"}


def test_answers_before_the_end_are_handed_out() -> None:
    def reply(body: dict[str, Any]) -> Told:
        return refused("expired", 401) if "last" in body["messages"][0]["content"] else echo(body)

    found: list[str] = []
    calls = iter([("1", said("a")), ("2", said("b")), ("3", said("the last"))])
    with serving(Server(reply)) as address:
        engine = chat_engine(MODEL, OpenAISettings(base_url=f"{address}/v1", chunk_size=100, max_concurrency=1))
        with pytest.raises(ServerRefusedError, match="api_key_variable is null"):
            found.extend(key for finished in engine.answer(calls, SAMPLING) for key, _ in finished)
    assert found == ["1", "2"]


def test_a_server_that_is_not_there_is_said_before_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Server(echo)) as address:
        gone = address
    engine = OpenAIChatEngine(MODEL, OpenAISettings(base_url=f"{gone}/v1", chunk_size=10))
    with pytest.raises(ServerRefusedError, match=f"no server at {gone}/v1 to ask for the model town/model"):
        list(engine.answer(iter([("1", said("a"))]), SAMPLING))
    assert list(engine.answer(iter([]), SAMPLING)) == []
    server = Server(echo, models=Told(401))
    with pytest.raises(ServerRefusedError, match="denies access"):
        ask(server, [said("a")])
    assert server.bodies == []
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(ServerRefusedError, match="TEST_KEY must hold the key"):
        OpenAIChatEngine(MODEL, OpenAISettings(base_url="http://x/v1", chunk_size=10, api_key_variable="TEST_KEY"))


def test_a_gateway_that_loses_its_way_later_on_is_of_the_moment() -> None:
    def reply(body: dict[str, Any]) -> Told:
        return Told(404, content=b"no route") if "b" in body["messages"][0]["content"] else echo(body)

    first, second = ask(Server(reply), [said("a"), said("b")], max_concurrency=1)
    assert first.error is None
    assert (second.error, second.is_retryable) == ("http_404: the server says nothing more", True)


# Waiting


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2026 07:20:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)) == seconds


def test_a_server_that_asks_to_wait_is_left_alone_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asking, "_sleep", sleep)
    faults = iter([Told(429, headers={"retry-after": "20"}), Told(503), Told(500)])
    server = Server(lambda body: next(faults, None) or echo(body))
    [answer] = ask(server, [said("a")], attempts=4)
    assert answer.error is None
    assert 20 <= waits[0] <= 20.001
    assert [0 <= wait <= most for wait, most in zip(waits[1:], (0.002, 0.004), strict=True)] == [True, True]


def test_a_server_that_asks_to_wait_too_long_gets_no_further_try() -> None:
    server = Server(lambda body: Told(429, headers={"retry-after": "86400"}))
    [answer] = ask(server, [said("a")])
    assert answer.error == "rate_limited: the server has too many requests; it asks to wait 86,400 s"
    assert (answer.is_retryable, len(server.bodies)) == (True, 1)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (Told(500), "http_500: the server failed"),
        (Told(408), "http_408: the server failed"),
        (Told(429), "rate_limited: the server has too many requests"),
        (Told(payload={}), "malformed_response: no list of choices"),
        (Told(payload=[]), "malformed_response: not an object"),
        (Told(payload={"error": {"message": "upstream"}}), "malformed_response: an error with status 200"),
        (Told(payload={"choices": []}), "malformed_response: no choice"),
        (Told(payload=completion("x", finish_reason="error")), "malformed_response: choices[0].finish_reason is error"),
        (Told(content=b'{"choices": [{"ind'), "malformed_response: not JSON"),
        (Told(content=b"[" * 100_000), "malformed_response: not JSON"),
        (Told(payload=completion("x"), headers={"content-encoding": "gzip"}), "malformed_response: a broken encoding"),
        (Told(payload=completion("x"), fault="reset"), "connection: ReadError"),
        (Told(payload=completion("x"), fault="cut"), "connection: RemoteProtocolError"),
        (Told(payload=completion("x"), fault="hang"), "timeout: no whole response within 0.2 s"),
        (Told(payload=completion("x"), fault="drip"), "timeout: no whole response within 0.2 s"),
    ],
)
def test_faults_are_tried_again_and_end_as_error_rows_of_the_moment(told: Told, error: str) -> None:
    server = Server(lambda body: told)
    [answer] = ask(server, [said("a")], timeout_seconds=0.2 if told.fault in {"hang", "drip"} else 30)
    assert (answer.text, answer.error, answer.is_retryable) == (None, error, True)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"error": {"message": "a", "param": None, "code": None}}, "a"),
        ({"error": "b"}, "b"),
        ({"object": "error", "message": "c"}, "c"),
        ({"detail": "d"}, "d"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too many", "input": "the prompt"}]}, "body.n: too many"),
        ([{"error": {"message": "e", "code": 400}}], "e"),
        (None, ""),
        (7, ""),
    ],
)
def test_errors_are_read_in_every_shape(payload: Any, message: str) -> None:
    error = server_error(400, payload)
    assert (error.message, error.parameter) == (message, "")


def test_instructions_stand_in_the_users_last_message_or_in_one_of_their_own() -> None:
    from rlhi_dagster.engines.openai.wording import instructed

    messages: Messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert instructed(messages, "do") == [messages[0], {"role": "user", "content": "u\n\ndo"}]
    spoken = [*messages, {"role": "assistant", "content": "a"}]
    assert instructed(spoken, "do") == [*spoken, {"role": "user", "content": "do"}]
