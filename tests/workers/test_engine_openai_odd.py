"""Servers that call themselves compatible and are not quite: what their replies become, in answers, in the store and in the log."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.progress import Silence
from rlhi_dagster.engines.ask import TooManyErrorsError
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.forecast import OverLimitError, measured
from rlhi_dagster.engines.openai import server as asking
from rlhi_dagster.engines.openai.engine import OpenAIChatEngine
from rlhi_dagster.engines.openai.server import ServerRefusedError
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.engines.settings import OpenAISettings, Price
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.workers import answering
from rlhi_dagster.workers.answering import Desk
from rlhi_dagster.workers.generate import Generation
from tests.servers import Told, completion, refused, serving
from tests.workers.test_engine_openai import MODEL, SAMPLING, SCHEMA, Server, ask, echo, said, scores

PRICES = {"town/model": Price(prompt_usd_per_million=1e6, completion_usd_per_million=2e6)}
ONLY_THOUGHTS = "only_thoughts: the reply is thoughts and nothing else"


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.001)


def replying(message: Any = "4", usage: Any = ..., **choice: Any) -> Server:
    """A server whose replies have one message, and fields of their choice as given."""
    told = completion("4", **choice)
    told["choices"][0]["message"] = message
    return Server(lambda body: Told(payload=told if usage is ... else told | {"usage": usage}))


class Run:
    """Runs of a worker's generation through one store."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings, self.log = folder, settings, list[str]()

    def __call__(self, server: Server, requests: list[ChatRequest], sampling: Sampling = SAMPLING, **limits: Any) -> CallStats:
        """What it took; the answers lie in ``answers`` afterwards."""
        with serving(server) as address:
            # One name for all runs, as a server has one: it is a part of the key.
            given = OpenAISettings(base_url="http://test/v1", chunk_size=100, attempts=3, **self.settings)
            desk = Desk({"store": self.folder, "engine": given.model_dump(), "limits": limits}, self.log.append, lambda: False)
            generation = Generation(desk, MODEL, sampling)
            keys = [request.key(MODEL, sampling, given.identity) for request in requests]
            generation.engine.settings = given.model_copy(update={"base_url": f"{address}/v1"})
            try:
                return generation.answer(dict(zip(keys, requests, strict=True)), "town")
            finally:
                stored = generation.store.lookup(pl.Series("key", keys))["key"].to_list()
                self.answers = read_chat([key for key in keys if key in stored], generation.store)


# Shapes


@pytest.mark.parametrize(
    ("finish_reason", "tokens", "expected"),
    [(None, 5, "stop"), ("tulip", 5, "stop"), (None, 64, "length"), ("tulip", 64, "length"), ("MAX_TOKENS", 64, "length")],
)
def test_an_unknown_reason_is_told_by_the_number_of_tokens(finish_reason: Any, tokens: int, expected: str) -> None:
    server = replying({"content": "4"}, {"prompt_tokens": 10, "completion_tokens": tokens}, finish_reason=finish_reason)
    [answer] = ask(server, [said("2+2")])
    assert (answer.text, answer.error, answer.finish_reason) == ("4", None, expected)


def test_a_call_of_a_tool_is_an_error_row_in_a_sentence() -> None:
    server = replying({"content": None, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}, finish_reason="tool_calls")
    [answer] = ask(server, [said("2+2")])
    told = "tool_calls: choices[0] calls a tool instead of replying, though none was offered"
    assert (answer.text, answer.error, answer.is_retryable, len(server.bodies)) == (None, told, True, 1)


def test_an_odd_field_is_named() -> None:
    [answer] = ask(replying({"content": 7}), [said("2+2")])
    assert (answer.error, answer.is_retryable) == ("malformed_response: choices[0].message.content is a number", True)
    [answer] = ask(replying({"content": {"verdict": "good"}}), [said("judge", json_schema=SCHEMA)])
    assert answer.text == '{"verdict": "good"}'


# Tokens


def test_tokens_that_the_server_does_not_count_are_estimated_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        one, two = ask(replying({"content": "x" * 40}, None), [said("q" * 400), said("r" * 80)], prices=PRICES)
    assert [(each.prompt_tokens, each.completion_tokens, each.is_estimated) for each in (one, two)] == [(100, 10, True), (20, 10, True)]
    assert (one.cost_usd, two.cost_usd) == (100 + 2 * 10, 20 + 2 * 10)
    [told] = [record.getMessage() for record in caplog.records]
    assert told == "town/model: the server does not count tokens, so they, and what they cost, are estimates: 4 characters a token"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 7.0, "completion_tokens": 3.0}, (7, 3, False)),
        ({"prompt_tokens": 7, "completion_tokens": None}, (7, 10, True)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (100, 10, True)),
        ({}, (100, 10, True)),
    ],
)
def test_only_what_is_not_counted_is_estimated(usage: Any, counts: tuple[int, int, bool]) -> None:
    [answer] = ask(replying({"content": "x" * 40}, usage), [said("q" * 400)])
    assert (answer.prompt_tokens, answer.completion_tokens, answer.is_estimated) == counts


def test_thoughts_are_paid_for_and_samples_share_what_was_estimated() -> None:
    [answer] = ask(replying({"content": "x" * 40, "reasoning_content": "y" * 80}, None), [said("q" * 400)])
    assert (answer.text, answer.completion_tokens) == ("x" * 40, 30)
    told = completion("x" * 40, "x" * 80) | {"usage": None}
    one, two = ask(Server(lambda body: Told(payload=told)), [said("q" * 400, index) for index in range(2)])
    assert one.completion_tokens + two.completion_tokens == 30


def test_a_tokenizer_that_is_at_hand_counts(tmp_path: Path, save_tiny_llama: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoTokenizer

    from rlhi_dagster.engines.openai.counting import TokenCount

    save_tiny_llama(tmp_path, ["Plant tulips in spring!"])
    count = TokenCount(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert count("") == 0
        assert not caplog.records
        text = "Plant tulips!"
        assert count(text) == len(AutoTokenizer.from_pretrained(tmp_path).encode(text, add_special_tokens=False))
    assert [record.getMessage().endswith("estimates: counted by the model's tokenizer") for record in caplog.records] == [True]


def test_limits_and_forecasts_go_by_estimates_and_say_so(tmp_path: Path) -> None:
    run = Run(tmp_path, prices=PRICES)
    server = replying({"content": "x" * 40}, None)
    stats = run(server, [said("q" * 400), said("r" * 400)])
    assert (stats.estimated, stats.prompt_tokens, stats.completion_tokens, stats.cost_usd) == (2, 200, 20, 240)
    assert run.log[-1].startswith("town: 2 of 2 (100%), 200 tokens in, 20 out, ")
    assert "$240.00, tokens of 2 answers are estimates" in run.log[-1]
    rates = measured(tmp_path, "chat", MODEL.identity, "openai http://test/v1")
    assert rates is not None
    assert (rates.basis, rates.completion_tokens) == ("2 answers of town/model@r1, whose tokens are estimates", 10)
    with pytest.raises(OverLimitError, match=r"have taken, by estimated tokens, \$120\.00, over limits\.max_usd 100"):
        run(server, [said("s" * 400)], max_usd=100)


# Thoughts


@pytest.mark.parametrize(
    ("message", "finish_reason", "text", "error"),
    [
        ({"content": "4", "reasoning_content": "two and two"}, "stop", "4", None),
        ({"content": "<think>two and two</think>\n\n4"}, "stop", "4", None),
        ({"content": "two and two</think>4"}, "stop", "4", None),
        ({"content": "", "reasoning_content": "two and two"}, "stop", None, ONLY_THOUGHTS),
        ({"content": None, "reasoning": "two and two"}, "stop", None, ONLY_THOUGHTS),
        ({"content": "<think>\n\n</think>\n\n"}, "stop", None, ONLY_THOUGHTS),
        ({"content": "<think>two"}, "length", None, f"{ONLY_THOUGHTS}; the length limit cut it, max_new_tokens may be too small"),
        ({"reasoning": "two"}, "length", None, f"{ONLY_THOUGHTS}; the length limit cut it, max_new_tokens may be too small"),
    ],
)
def test_thoughts_are_never_a_reply(message: dict[str, Any], finish_reason: str, text: str | None, error: str | None) -> None:
    server = replying(message, {"prompt_tokens": 10, "completion_tokens": 64}, finish_reason=finish_reason)
    [answer] = ask(server, [said("2+2")])
    assert (answer.text, answer.error) == (text, error)
    assert answer.is_retryable is (text is None), "whether it thinks is the server's matter, which may be mended"
    assert len(server.bodies) == 1


def test_choices_and_json_are_read_without_thoughts() -> None:
    thinking = "<think>A or B?</think>"
    server = Server(lambda body: refused("no `logprobs`") if "logprobs" in body else Told(payload=completion(f"{thinking}\nB")))
    [answer] = ask(server, [said("which?", choices=("A", "B"))])
    assert (answer.text, answer.probabilities) == ("B", None)
    [answer] = ask(replying(f'{thinking}```json\n{{"verdict": "good"}}\n```'), [said("judge", json_schema=SCHEMA)])
    assert answer.text == '{"verdict": "good"}'


# Choices


def chosen(shown: dict[str, float], text: str = "A") -> Server:
    """A server that shows these log-probabilities if it is asked to."""
    return Server(lambda body: Told(payload=completion(text, **({"logprobs": scores(shown)} if "logprobs" in body else {}))))


def test_one_log_probability_is_no_score() -> None:
    server = chosen({"A": -0.1})
    [answer] = ask(server, [said("which?", choices=("A", "B"))])
    assert (answer.text, answer.probabilities) == ("A", None)
    assert ["logprobs" in body for body in server.bodies] == [True, False]


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ({"The": -0.05, "I": -3.5, "A": -6.0}, "the choices have 0.2% of the first token's probability, which is less than 50%"),
        ({"<think>": -0.001, "\n": -8.0}, "the choices have 0.0% of the first token's probability, which is less than 50%"),
        ({"A": -0.69, "B": -1.39}, "choices that are not shown may have 24.9% of the first token's probability"),
    ],
)
def test_a_small_share_of_the_probability_is_an_error_and_no_score(shown: dict[str, float], told: str) -> None:
    server = chosen(shown, next(iter(shown)))
    [answer] = ask(server, [said("which?", choices=("A", "B", "C"))])
    assert (answer.text, answer.probabilities, answer.error) == (None, None, f"not_a_choice: {told}")
    assert ["write nothing else" in body["messages"][-1]["content"] for body in server.bodies] == [False, True, True]


def test_an_instruction_can_give_the_choices_their_share() -> None:
    def reply(body: dict[str, Any]) -> Told:
        is_told = "write nothing else" in body["messages"][-1]["content"]
        return Told(payload=completion("A", logprobs=scores({"A": -0.1, "B": -2.4} if is_told else {"The": -0.1, "A": -2.4})))

    [answer] = ask(Server(reply), [said("which?", choices=("A", "B"))])
    odds = math.exp(-0.1), math.exp(-2.4)
    assert answer.probabilities == pytest.approx([each / sum(odds) for each in odds])


# Seeds


def test_samples_that_are_all_equal_are_told_of_once_and_counted(tmp_path: Path) -> None:
    run = Run(tmp_path)
    deaf = Server(lambda body: Told(payload=completion(*[body["messages"][0]["content"]] * body.get("n", 1))))
    stats = run(deaf, [said(text, index) for text in ("a", "b") for index in range(3)])
    assert (stats.answered, stats.errors, stats.repeated) == (6, 0, 4)
    [told] = [line for line in run.log if "seeds" in line]
    assert told.startswith("town: 4 of 4 further samples of the same messages equal an earlier one")
    stats = run(Server(echo), [said(text, index) for text in ("c", "d") for index in range(3)])
    assert (stats.repeated, len([line for line in run.log if "seeds" in line])) == (0, 1)


# Refusals


@pytest.mark.parametrize("told", [refused("Request flagged", 403), refused("no", 403), refused("the model finds that tulips do not exist")])
def test_a_refusal_of_one_prompt_is_its_error_row_whenever_it_comes(told: Told) -> None:
    def reply(body: dict[str, Any]) -> Told:
        return told if "tulips" in body["messages"][0]["content"] else echo(body)

    for order in (["tulips", "a", "b"], ["a", "b", "tulips"], ["tulips"]):
        found = dict(zip(order, ask(Server(reply), [said(text) for text in order], max_concurrency=1), strict=True))
        refusal = found.pop("tulips")
        is_final = "flagged" in str(told.payload)
        assert str(refusal.error).startswith("content_filter: " if is_final else f"http_{told.status}: ")
        assert refusal.is_retryable is not is_final
        assert [answer.error for answer in found.values()] == [None] * len(found)


def test_a_server_that_denies_all_is_said_to_after_a_few() -> None:
    denied = Server(lambda body: refused("no", 403))
    with pytest.raises(ServerRefusedError, match=r"denies access to town/model \(status 403\)"):
        ask(denied, [said(str(number)) for number in range(10)], max_concurrency=1)
    assert len(denied.bodies) == asking.DENIALS
    denied = Server(lambda body: refused("no", 403) if len(denied.bodies) > 1 else echo(body))
    answers = ask(denied, [said(str(number)) for number in range(10)], max_concurrency=1)
    assert [str(answer.error)[:8] for answer in answers] == ["None", *["http_403"] * 9]


def test_a_key_that_may_not_list_models_may_ask_them() -> None:
    [answer] = ask(Server(echo, models=refused("no list for you", 403)), [said("a")])
    assert answer.error is None


@pytest.mark.parametrize(
    "broken",
    [
        Server(lambda body: refused("the template is broken")),
        Server(lambda body: Told(payload=completion("x", finish_reason="tool_calls"))),
        Server(lambda body: Told(payload=completion("x", finish_reason="error"))),
        replying({"content": None, "reasoning_content": "the parser takes all for thoughts"}),
    ],
)
def test_what_was_the_servers_state_is_asked_again_once_it_is_mended(tmp_path: Path, broken: Server) -> None:
    run, requests = Run(tmp_path), [said(f"question {number}") for number in range(30)]
    with pytest.raises(TooManyErrorsError):
        run(broken, requests)
    assert {answer.error is None for answer in run.answers} == {False}
    stats = run(Server(echo), requests)
    assert (stats.cached, stats.answered, stats.errors) == (0, 30, 0)
    assert {answer.error for answer in run.answers} == {None}


def test_what_is_the_requests_fault_is_kept(tmp_path: Path) -> None:
    run, requests = Run(tmp_path, max_error_fraction=1), [said("long"), said("filtered"), said("tool")]

    def reply(body: dict[str, Any]) -> Told:
        return {
            "long": refused("This model's maximum context length is 64 tokens."),
            "filtered": refused("no", code="content_policy_violation"),
            "tool": Told(payload=completion(None, finish_reason="content_filter")),
        }[body["messages"][0]["content"]]

    assert run(Server(reply), requests).errors == 3
    before: list[ChatAnswer] = run.answers
    assert run(Server(echo), requests).cached == 3
    assert run.answers == before
    assert [str(answer.error).split(":")[0] for answer in before] == ["prompt_too_long", "content_filter", "content_filter"]


@pytest.mark.parametrize("message", [None, {}, {"role": "assistant"}])
def test_a_reply_that_ended_for_a_reason_of_the_servers_own_is_paid_once_and_kept(tmp_path: Path, message: Any) -> None:
    run, server = Run(tmp_path, prices=PRICES), replying(message, {"prompt_tokens": 2, "completion_tokens": 3}, finish_reason="LANGUAGE")
    stats = run(server, [said("2+2")])
    [answer] = run.answers
    assert (answer.error, answer.is_retryable) == ("no_reply: the server ended it as language", False)
    assert (len(server.bodies), stats.cost_usd) == (1, 2 + 2 * 3)
    assert run(server, [said("2+2")]).cached == 1
    strange = replying(message, finish_reason="As you said: 2+2")
    [answer] = ask(strange, [said("2+2")])
    assert answer.error == "no_reply: the server ended it as something that we do not know"


def test_every_try_that_the_server_counts_is_paid(tmp_path: Path) -> None:
    run, server = Run(tmp_path, prices=PRICES), replying({"content": 7}, {"prompt_tokens": 2, "completion_tokens": 3})
    stats = run(server, [said("2+2")])
    assert str(run.answers[0].error).startswith("malformed_response")
    assert (len(server.bodies), stats.cost_usd) == (3, 3 * (2 + 2 * 3))


@pytest.mark.parametrize("count", [2**31, 10**30, 1e300])
def test_a_count_of_tokens_that_no_reply_has_loses_nothing(tmp_path: Path, count: float) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": count}}
    run = Run(tmp_path)
    stats = run(replying({"content": "4"}, usage), [said("2+2"), said("3+1")])
    assert (stats.answered, stats.errors, stats.estimated) == (2, 0, 2)
    assert [answer.text for answer in run.answers] == ["4", "4"]
    assert max(answer.prompt_tokens for answer in run.answers) < 100


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize("told", [refused("no", 401), refused("pay", 402), Told(404, content=b"no route"), refused("weird", 418)])
def test_what_lets_people_in_is_in_no_error_and_in_no_answer(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", SECRET)
    with serving(Server(lambda body: told)) as address:
        url = address.replace("://", f"://user:{SECRET}@") + "/v1"
        given = OpenAISettings(base_url=url, chunk_size=10, attempts=1, api_key_variable="TEST_KEY", max_error_fraction=1)
        log = list[str]()
        desk = Desk({"store": tmp_path, "engine": given.model_dump(), "limits": {}}, log.append, lambda: False)
        generation, request = Generation(desk, MODEL, SAMPLING), said("2+2")
        try:
            generation.answer({request.key(MODEL, SAMPLING, given.identity): request}, "town")
        except ServerRefusedError as refusal:
            log.append(str(refusal))
    assert (given.address, given.identity) == (f"{address}/v1", f"openai {address}/v1")
    assert log
    stored = [pl.read_parquet(file).write_ndjson() for file in tmp_path.rglob("*.parquet")]
    assert SECRET not in "".join([*log, *stored])


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://x/v1", "https://x/v1"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/"),
        (f"https://x/v1?key={SECRET}#{SECRET}", "https://x/v1"),
        (f"https://x/v1?mail=a@b&key={SECRET}", "https://x/v1"),
        (f"https://user:{SECRET}@x:8/v1", "https://x:8/v1"),
        (f"https://{SECRET}?#/@{SECRET}@x/v1", "https://x/v1"),
        (f"user:{SECRET}@x/v1", "x/v1"),
        (f"https://user:{SECRET}@x", "https://x"),
    ],
)
def test_an_address_is_shown_without_what_lets_people_in(url: str, address: str) -> None:
    given = OpenAISettings(base_url=url, chunk_size=1)
    assert (given.address, given.identity) == (address, f"openai {address}")


@pytest.mark.parametrize("written", ["sk-proj-0123456789abcdef", "hf_abcdefghijklmnop", "AKIAIOSFODNN7EXAMPLE", "gsk_0123", "xai-99"])
def test_a_key_in_the_place_of_its_variables_name_is_not_shown(written: str) -> None:
    with pytest.raises(ServerRefusedError, match="the environment variable that api_key_variable names must hold the key") as raised:
        OpenAIChatEngine(MODEL, OpenAISettings(base_url="http://x/v1", chunk_size=10, api_key_variable=written))
    assert written not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://user:hunter2-hunter2@host:x/v1", "user:hunter2-hunter2@host/v1", "ftp://user:hunter2-hunter2@host/v1"]
)
def test_an_address_that_cannot_be_read_does_not_show_what_lets_people_in(url: str) -> None:
    with pytest.raises(ServerRefusedError) as raised:
        list(OpenAIChatEngine(MODEL, OpenAISettings(base_url=url, chunk_size=10)).answer(iter([("1", said("a"))]), SAMPLING))
    assert SECRET not in str(raised.value)


def test_a_server_that_hangs_is_told_of_and_ends_by_the_time_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "Silence", partial(Silence, every_seconds=0.2))
    run = Run(tmp_path, timeout_seconds=1.0, max_error_fraction=1)
    run(Server(lambda body: Told(fault="hang")), [said("2+2")])
    assert str(run.answers[0].error).startswith("timeout: no whole response within 1 s")
    assert len([line for line in run.log if line.startswith("town: waiting, nothing came for ")]) >= 3
