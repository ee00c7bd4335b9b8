"""The batch endpoint against a server that keeps batches as OpenAI does: kills, lost replies, failed lines; nothing is paid twice."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai import batches
from rlhi_dagster.engines.openai import server as asking
from rlhi_dagster.engines.openai.engine import OpenAIChatEngine
from rlhi_dagster.engines.openai.server import ServerRefusedError
from rlhi_dagster.engines.settings import OpenAISettings, Price
from tests.servers import Asked, Told, completion, serving

MODEL = ModelRef("town/model", "r1")
SAMPLING = Sampling(0.6, 0.9, 64, 7)
SCHEMA = json.dumps({"type": "object", "properties": {"verdict": {"enum": ["good", "bad"]}}, "required": ["verdict"]})


class BatchServer:
    """Files and batches; a batch is done at the ``polls``-th look, and each line of it is paid for when it is submitted."""

    def __init__(self, polls: int = 2) -> None:
        self.polls = polls
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.loses_replies = 0
        self.ends_as = "completed"

    async def __call__(self, asked: Asked) -> Told:
        path = asked.path.removeprefix("/v1/").split("?")[0]
        if (asked.method, path) == ("POST", "files"):
            assert b'name="purpose"\r\n\r\nbatch\r\n' in asked.content
            name = f"file-{len(self.files)}"
            self.files[name] = asked.content.split(b"\r\n\r\n")[-1].split(b"\r\n--")[0]
            return Told(payload={"id": name})
        if (asked.method, path) == ("POST", "batches"):
            return self._submit(asked.json)
        if path == "batches":
            return Told(payload={"data": list(self.batches.values())[::-1]})
        if path.startswith("batches/"):
            return Told(payload=self._look(path.split("/")[1]))
        if path.startswith("files/"):
            return Told(content=self.files[path.split("/")[1]])
        return Told(404)

    def _submit(self, wanted: dict[str, Any]) -> Told:
        assert (wanted["endpoint"], wanted["completion_window"]) == ("/v1/chat/completions", "24h")
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {"id": name, "status": "validating", "metadata": wanted["metadata"], "input": wanted["input_file_id"]}
        self.paid.update(line["custom_id"] for line in self._lines(name))
        if self.loses_replies:
            self.loses_replies -= 1
            return Told(500)
        return Told(payload=self.batches[name])

    def _lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[self.batches[name]["input"]].decode().splitlines()]

    def _look(self, name: str) -> dict[str, Any]:
        self.looks[name] += 1
        batch = self.batches[name]
        if self.looks[name] >= self.polls and batch["status"] == "validating":
            batch |= {"status": self.ends_as, "output_file_id": f"output-{name}", "error_file_id": f"errors-{name}"}
            lines = [(line["custom_id"], *self.reply(line["body"])) for line in self._lines(name)]
            done = [(key, status, body) for key, status, body in lines if status]
            for prefix, is_error in (("output", False), ("errors", True)):
                rows = [
                    {"custom_id": key, "response": {"status_code": status, "body": body}, "error": None}
                    for key, status, body in done[::-1]
                    if (status != 200) is is_error
                ]
                self.files[f"{prefix}-{name}"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
        return batch

    def reply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status 0: the batch ended before this line."""
        text = body["messages"][-1]["content"]
        told = {
            "moment": (500, {"error": {"message": "oops"}}),
            "final": (400, {"error": {"message": "no", "code": "content_filter"}}),
            "refused": (400, {"error": {"message": "role unknown"}}),
            "long": (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
            "unfinished": (0, {}),
        }
        if "response_format" in body:
            return 400, {"error": {"message": "no such field", "param": "response_format"}}
        if "JSON schema" in text:
            return 200, completion('{"verdict": "good"}')
        return told.get(text, (200, completion(f"{text} {body['seed']}")))


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.001)


def said(text: str, sample_index: int = 0, **more: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index, **more)


def calls_of(requests: list[ChatRequest]) -> Iterator[tuple[str, ChatRequest]]:
    return ((request.key(MODEL, SAMPLING, "batches"), request) for request in requests)


def engine(address: str, folder: Path, **more: Any) -> OpenAIChatEngine:
    settings = {"base_url": f"{address}/v1", "chunk_size": 10, "uses_batches": True, "attempts": 4, **more}
    return OpenAIChatEngine(MODEL, OpenAISettings(**settings), folder)


def ask(address: str, folder: Path, requests: list[ChatRequest], **more: Any) -> list[ChatAnswer]:
    found = list(chain.from_iterable(engine(address, folder, **more).answer(calls_of(requests), SAMPLING)))
    assert sorted(key for key, _ in found) == sorted(key for key, _ in calls_of(requests))
    answers = dict(found)
    return [answers[key] for key, _ in calls_of(requests)]


def test_calls_are_lines_of_batches_and_answers_come_back_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_LINES", 6)
    server = BatchServer()
    requests = [said(f"question {number}", index) for number in range(10) for index in range(4)]
    price = Price(prompt_usd_per_million=1, completion_usd_per_million=10)
    with serving(server) as address:
        answers = ask(address, tmp_path, requests, prices={"town/model": price})
    assert [a.text for a in answers] == [f"{r.messages[0]['content']} {r.seed(MODEL, SAMPLING)}" for r in requests]
    assert sum(answer.cost_usd for answer in answers) == pytest.approx(40 * (10 * 1 + 5 * 10) / 1e6)
    assert len(server.batches) == 7
    assert set(server.paid.values()) == {1}


def test_errors_of_lines_are_error_rows_and_only_those_of_the_moment_are_asked_again(tmp_path: Path) -> None:
    server = BatchServer()
    names = ["fine", "moment", "final", "refused", "long", "unfinished"]
    with serving(server) as address:
        found = dict(zip(names, ask(address, tmp_path, [said(name) for name in names]), strict=True))
        assert found["fine"].error is None
        assert {name: (str(a.error).split(":")[0], a.is_retryable) for name, a in found.items() if a.error} == {
            "moment": ("http_500", True),
            "final": ("content_filter", False),
            "refused": ("http_400", True),
            "long": ("prompt_too_long", False),
            "unfinished": ("batch_ended", True),
        }
        server.paid.clear()
        server.reply = lambda body: (200, completion("now"))
        again = ask(address, tmp_path, [said("moment"), said("unfinished"), said("fine")])
    assert [answer.text for answer in again] == ["now", "now", found["fine"].text]
    assert len(server.paid) == 2


class FailingServer(BatchServer):
    """The first batches fail whole, or are forgotten."""

    def __init__(self, ends_as: str, times: int, errors: Any = None) -> None:
        super().__init__(polls=1)
        self.first_end, self.times, self.errors = ends_as, times, errors

    def _look(self, name: str) -> dict[str, Any]:
        if int(name.split("-")[1]) >= self.times:
            return super()._look(name)
        self.looks[name] += 1
        return self.batches[name] | {"status": self.first_end, "errors": self.errors}

    async def __call__(self, asked: Asked) -> Told:
        told = await super().__call__(asked)
        is_look = asked.method == "GET" and "/batches/batch-" in asked.path
        return Told(404) if is_look and told.payload["status"] == "forgotten" else told


SAYS = {"object": "list", "data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}]}


@pytest.mark.parametrize(
    ("ends_as", "errors", "told"),
    [("failed", SAYS, ": Enqueued token limit reached."), ("expired", None, ""), ("forgotten", None, ""), ("failed", "no", ": no")],
)
def test_a_batch_that_came_to_nothing_is_submitted_again_as_it_was(
    ends_as: str, errors: Any, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, requests = FailingServer(ends_as, 2, errors), [said("a"), said("b")]
    with serving(server) as address, caplog.at_level(logging.WARNING):
        answers = ask(address, tmp_path, requests)
    assert [answer.text for answer in answers] == [f"{r.messages[0]['content']} {r.seed(MODEL, SAMPLING)}" for r in requests]
    assert len(server.batches) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{address}/v1 town/model@r1: batch batch-{n} ended as {ends_as}, 2 of its 2 requests are submitted again{told}" for n in (0, 1)
    ]


def test_a_batch_that_always_fails_ends_as_error_rows_with_the_reason(tmp_path: Path) -> None:
    server = FailingServer("failed", 99, SAYS)
    with serving(server) as address:
        [answer] = ask(address, tmp_path, [said("a")])
        expected = "batch_ended: the batch ended as failed without a response to this line: Enqueued token limit reached."
        assert (answer.error, answer.is_retryable, len(server.batches)) == (expected, True, 4)
        server.times = 0
        assert ask(address, tmp_path, [said("a")])[0].error is None
    assert len(server.batches) == 5


def test_a_reason_that_quotes_a_prompt_is_not_shown(tmp_path: Path) -> None:
    server = FailingServer("failed", 99, {"data": [{"message": "Cannot read: My doctor says that the results are bad."}]})
    with serving(server) as address:
        _, answer = ask(address, tmp_path, [said("My doctor says that the results are not."), said("b")], attempts=1)
    assert str(answer.error).endswith(": the server's message quotes the prompt")


def test_a_batch_that_somebody_cancelled_is_not_submitted_again_by_the_same_run(tmp_path: Path) -> None:
    server = FailingServer("cancelled", 1)
    with serving(server) as address:
        [answer] = ask(address, tmp_path, [said("a")])
        assert (str(answer.error).split(":")[0], answer.is_retryable, len(server.batches)) == ("batch_ended", True, 1)
        assert ask(address, tmp_path, [said("a")])[0].error is None


def test_results_that_the_server_has_deleted_are_asked_for_again(tmp_path: Path) -> None:
    server = BatchServer(polls=1)
    with serving(server) as address:
        ask(address, tmp_path, [said("a")])
        server.files.pop("output-batch-0")

        async def without(asked: Asked) -> Told:
            name = asked.path.split("/")[3] if "/files/" in asked.path else ""
            return await server(asked) if name in {"", *server.files} else Told(404)

    with serving(without) as other:
        for file in tmp_path.glob("*.json"):
            file.write_text(file.read_text().replace(address, other))
        [lost] = ask(other, tmp_path, [said("a")])
        assert (str(lost.error).split(":")[0], lost.is_retryable) == ("batch_ended", True)
        assert ask(other, tmp_path, [said("a")])[0].error is None


@pytest.mark.parametrize("content", ['{"token": "a", "own', "", "[]", '{"token": "a"}', '{"token": null, "keys": null}', "\xff"])
def test_a_damaged_record_is_put_aside_and_said(content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    with serving(BatchServer()) as address, caplog.at_level(logging.WARNING):
        [answer] = ask(address, tmp_path, [said("a")])
        assert answer.error is None
        ask(address, tmp_path, [said("b")])
    assert (tmp_path / "a.damaged").is_file()
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{tmp_path / 'a.json'} remembers a batch and is damaged: it is now a.damaged")


def test_a_field_that_lines_refuse_is_left_out_in_the_next_batch(tmp_path: Path) -> None:
    server = BatchServer()
    with serving(server) as address:
        answers = ask(address, tmp_path, [said(f"judge {number}", json_schema=SCHEMA) for number in range(3)])
    assert [answer.text for answer in answers] == ['{"verdict": "good"}'] * 3
    assert len(server.batches) == 2


def test_choices_without_scores_are_submitted_again_at_the_wanted_temperature(tmp_path: Path) -> None:
    server = BatchServer()
    temperatures = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        temperatures.append(body["temperature"])
        return 200, completion("A")

    server.reply = reply  # type: ignore[method-assign]
    with serving(server) as address:
        [answer] = ask(address, tmp_path, [said("which?", choices=("A", "B"))])
    assert (answer.text, answer.probabilities, temperatures) == ("A", None, [1.0, 0.6])


def test_a_batch_whose_acceptance_was_not_heard_is_found(tmp_path: Path) -> None:
    server = BatchServer()
    server.loses_replies = 1
    with serving(server) as address:
        [answer] = ask(address, tmp_path, [said("a")])
    assert answer.error is None
    assert set(server.paid.values()) == {1}


def test_a_server_that_never_accepts_ends_the_run(tmp_path: Path) -> None:
    server = BatchServer()
    server._submit = lambda wanted: Told(500)  # type: ignore[method-assign]
    with serving(server) as address, pytest.raises(ServerRefusedError, match="/v1/batches failed 4 times; launch again"):
        ask(address, tmp_path, [said("a")])


def test_a_server_without_batches_is_said(tmp_path: Path) -> None:
    async def none(asked: Asked) -> Told:
        return Told(404)

    with serving(none) as address, pytest.raises(ServerRefusedError, match="refuses POST files of its batch endpoint"):
        ask(address, tmp_path, [said("a")])


def test_batches_need_a_folder() -> None:
    with pytest.raises(ValueError, match="needs a folder"):
        OpenAIChatEngine(MODEL, OpenAISettings(base_url="http://x/v1", chunk_size=1, uses_batches=True))


def test_another_model_does_not_wait_for_these_batches(tmp_path: Path) -> None:
    server = BatchServer()
    with serving(server) as address:
        ask(address, tmp_path, [said("a")])
        other = OpenAIChatEngine(ModelRef("town/other", "r1"), engine(address, tmp_path).settings, tmp_path)
        list(other.answer(calls_of([said("a")]), SAMPLING))
    assert set(server.paid.values()) == {2}


SCRIPT = """
import sys
from pathlib import Path
from rlhi_dagster.engines.openai import batches
from tests.workers.test_engine_openai_batches import SAMPLING, calls_of, engine, said

batches.POLL_SECONDS = 0.05
for finished in engine(sys.argv[1], Path(sys.argv[2])).answer(calls_of([said(f"question {n}") for n in range(20)]), SAMPLING):
    print(len(finished), flush=True)
    sys.stdin.read()
"""


def start(address: str, folder: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SCRIPT, address, str(folder)]
    return subprocess.Popen(command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_run_killed_while_it_waits_and_again_before_it_keeps_what_it_read_pays_nothing_twice(tmp_path: Path) -> None:
    server = BatchServer(polls=10**9)
    requests = [said(f"question {number}") for number in range(20)]
    with serving(server) as address:
        waiting = start(address, tmp_path)
        while not server.looks:
            assert waiting.poll() is None
            time.sleep(0.02)
        waiting.kill()
        waiting.wait()

        server.polls = 1
        reading = start(address, tmp_path)
        assert reading.stdout
        assert reading.stdout.readline() == "20\n"  # it has read the batch, and nobody has kept that yet
        reading.kill()
        reading.wait()

        answers = ask(address, tmp_path, requests)
    assert [answer.error for answer in answers] == [None] * 20
    assert len(server.batches) == 1
    assert set(server.paid.values()) == {1}


def test_a_run_killed_between_submitting_and_hearing_of_it_finds_the_batch(tmp_path: Path) -> None:
    server = BatchServer()
    with serving(server) as address:
        ask(address, tmp_path, [said("a")])
        [file] = tmp_path.glob("*.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"batch_id": None}))
        assert ask(address, tmp_path, [said("a")])[0].error is None
        assert set(server.paid.values()) == {1}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"batch_id": None, "token": "never-arrived"}))
        assert ask(address, tmp_path, [said("a")])[0].error is None
    assert set(server.paid.values()) == {2}


def test_what_is_older_than_results_are_kept_is_forgotten(tmp_path: Path) -> None:
    server = BatchServer()
    with serving(server) as address:
        ask(address, tmp_path, [said("a")])
        [file] = tmp_path.glob("*.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"submitted_at": time.time() - 31 * 24 * 3600}))
        ask(address, tmp_path, [said("a")])
    assert set(server.paid.values()) == {2}
    assert len(list(tmp_path.glob("*.json"))) == 1
