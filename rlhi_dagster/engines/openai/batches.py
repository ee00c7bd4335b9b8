"""The batch endpoint: calls as lines of uploaded files, answers within a day, nothing paid twice.

What belongs here: submitting, waiting, reading results, and remembering on disk what a server works on. Samples are lines of their own.
What does not: how a call is worded (``wording.py``) and what a response means (``reading.py``).
"""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from pydantic import TypeAdapter, ValidationError

from rlhi_dagster.engines.base import ChatAnswer, ChatCall, ChatCalls
from rlhi_dagster.engines.openai.payloads import MalformedError, parse
from rlhi_dagster.engines.openai.reading import Judge, server_error
from rlhi_dagster.engines.openai.server import Finished, ServerRefusedError, check_access, pause, time_limits
from rlhi_dagster.engines.openai.wording import Dialect
from rlhi_dagster.engines.settings import OpenAISettings

MOST_LINES, MOST_BYTES = 50_000, 100_000_000
"""Of one batch: OpenAI takes so many lines, and twice the bytes."""
MOST_UNDER_WAY = 4
"""Batches at the server at once."""
POLL_SECONDS = 30.0
_RUNNING = {"validating", "in_progress", "finalizing", "cancelling"}
_LOST = {"failed", "expired", "forgotten"}
"""How a batch ends whose requests without a response are submitted again; the last word is ours, for one that the server does not know."""
_TOKEN = "rlhi_token"
"""Name under which a batch carries our word for it, by which it is found again among the latest ``_LISTED`` ones."""
_LISTED = 100
_SECONDS_KEPT = 30 * 24 * 3600
"""For as long as servers keep results we remember a batch."""
_Read = TypeVar("_Read")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch that a server works on, or has worked on.

    Attributes:
        token: Our word for it.
        owner: Server and model.
        submitted_at: Seconds since 1970.
        keys: Of the calls that are answered in it, or may be.
        tries: Batches that these calls were in before, in other words.
        batch_id: The server's word for it; ``None`` while it is being submitted.
        losses: Batches that these calls were in before, and that came to nothing.
    """

    token: str
    owner: str
    submitted_at: float
    keys: list[str]
    tries: int = 0
    batch_id: str | None = None
    losses: int = 0

    def remember(self, folder: Path) -> None:
        """Write it into a file of its own, which replaces the one before at once; one without keys is forgotten.

        It stays after the batch has ended, since the run may be killed before it keeps what it read: then the next run reads it again.
        """
        file = folder / f"{self.token}.json"
        if not self.keys:
            file.unlink(missing_ok=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".partial").open("w") as stream:
            json.dump(asdict(self), stream)
            stream.flush()
            os.fsync(stream.fileno())
        file.with_suffix(".partial").rename(file)


_PENDING = TypeAdapter(Pending)
_Job = tuple[Pending, dict[str, ChatCall]]
"""A batch, and the calls by key that wait for it."""


class Batches:
    """Answers calls through one server's batch endpoint.

    A batch is remembered in ``folder`` before it is submitted. A run that was killed finds it again and waits for it; a key that was
    answered in a batch is read from there, even if the run ended before it kept the answer.
    """

    def __init__(self, settings: OpenAISettings, headers: dict[str, str], dialect: Dialect, judge: Judge, folder: Path) -> None:
        self.settings, self.dialect, self.judge, self.folder = settings, dialect, judge, folder
        self._http = httpx.Client(base_url=settings.base_url, headers=headers, timeout=time_limits(settings.timeout_seconds))
        self._owner = f"{settings.address} {dialect.model.identity}"

    def answer(self, calls: ChatCalls) -> Iterator[Finished]:
        """See ``ChatEngine.answer``; takes as many calls as ``MOST_UNDER_WAY`` batches hold.

        Raises:
            ServerRefusedError: The server refuses, or still fails after the settings' ``attempts``; nothing is lost by it.
        """
        with self._http:
            remembered, is_open = self._remembered(), True
            waiting: list[_Job] = []
            while is_open or waiting:
                while is_open and len(waiting) < MOST_UNDER_WAY:
                    jobs, is_open = self._jobs(calls, remembered)
                    waiting += jobs
                running = []
                for pending, awaited in waiting:
                    batch = self._tried(
                        lambda told: dict(told.json()), "GET", f"batches/{pending.batch_id}", unknown={"status": "forgotten"}
                    )
                    if batch.get("status") in _RUNNING:
                        running.append((pending, awaited))
                        continue
                    answers, again, lost = self._ended(pending, awaited, batch)
                    running += [self._submitted(again, pending.tries + 1, pending.losses)] if again else []
                    running += [self._submitted(lost, pending.tries, pending.losses + 1)] if lost else []
                    if answers:
                        yield answers
                waiting = running
                if waiting and not (is_open and len(waiting) < MOST_UNDER_WAY):
                    time.sleep(POLL_SECONDS)

    def _remembered(self) -> dict[str, Pending]:
        """Batches by key, the latest of each. Of one that was being submitted as the run ended, the server says whether it got it."""
        found: dict[str, Pending] = {}
        batches = [each for file in self.folder.glob("*.json") if (each := _pending(file)) and each.owner == self._owner]
        for pending in sorted(batches, key=lambda each: each.submitted_at):
            is_kept = pending.submitted_at >= time.time() - _SECONDS_KEPT
            batch_id = (pending.batch_id or self._find(pending.token)) if is_kept else None
            known = replace(pending, batch_id=batch_id, keys=pending.keys if batch_id else [])
            known.remember(self.folder)
            found |= dict.fromkeys(known.keys, known)
        return found

    def _jobs(self, calls: ChatCalls, remembered: dict[str, Pending]) -> tuple[list[_Job], bool]:
        """Take calls, and say whether there may be more: those of remembered batches wait for them, others are submitted."""
        known: dict[str, _Job] = {}
        fresh: dict[str, ChatCall] = {}
        count = size = 0
        while count < MOST_LINES and size < MOST_BYTES and (call := next(calls, None)):
            if pending := remembered.get(call[0]):
                known.setdefault(pending.token, (pending, {}))[1][call[0]] = call
            else:
                fresh[call[0]] = call
            count, size = count + 1, size + len(self._line(call, 0))
        is_open = count == MOST_LINES or size >= MOST_BYTES
        return [*known.values(), *([self._submitted(fresh, 0, 0)] if fresh else [])], is_open

    def _submitted(self, calls: dict[str, ChatCall], tries: int, losses: int) -> _Job:
        """Upload lines and submit them as a batch. A try that failed may have been heard: then the batch is found."""
        pending = Pending(uuid4().hex, self._owner, time.time(), list(calls), tries, losses=losses)
        pending.remember(self.folder)
        lines = b"".join(self._line(call, tries) for call in calls.values())
        form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("batch.jsonl", lines)}}
        wanted = {
            "input_file_id": self._tried(_id, "POST", "files", **form),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {_TOKEN: pending.token},
        }
        batch_id = self._tried(_id, "POST", "batches", instead=lambda: self._find(pending.token), json=wanted)
        pending = replace(pending, batch_id=batch_id)
        pending.remember(self.folder)
        return pending, calls

    def _line(self, call: ChatCall, tries: int) -> bytes:
        body = self.dialect.body([call], self.judge.sampling, tries)
        line = {"custom_id": call[0], "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line).encode() + b"\n"

    def _ended(
        self, pending: Pending, calls: dict[str, ChatCall], batch: dict[str, Any]
    ) -> tuple[Finished, dict[str, ChatCall], dict[str, ChatCall]]:
        """Answers of a batch that has ended, calls to submit in other words, and lost ones to submit as they were.

        What has no final answer is not looked for there again.
        """
        responses = self._responses(batch)
        asked = copy.deepcopy(self.dialect)  # as the lines were worded: one of them may teach what the next one names, too
        answers: Finished = []
        again: dict[str, ChatCall] = {}
        status, may_repeat = str(batch.get("status"))[:40], pending.losses + 1 < self.settings.attempts
        why = f"the batch ended as {status} without a response to this line{_reason(batch, calls)}"
        lost = {key: call for key, call in calls.items() if key not in responses and status in _LOST and may_repeat}
        if lost:
            told = "%s: batch %s ended as %s, %s of its %s requests are submitted again%s"
            _log.warning(told, self._owner, pending.batch_id, status, f"{len(lost):,}", f"{len(calls):,}", _reason(batch, calls))
        for key, call in calls.items():
            if key in lost:
                continue
            answer = self._answer(call, responses[key], asked, pending.tries) if key in responses else _of_the_moment(f"batch_ended: {why}")
            if answer is None:
                again[key] = call
            else:
                answers.append((key, answer))
        dropped = {*again, *lost, *(key for key, answer in answers if answer.is_retryable)}
        replace(pending, keys=[key for key in pending.keys if key not in dropped]).remember(self.folder)
        return answers, again, lost

    def _responses(self, batch: dict[str, Any]) -> dict[str, tuple[int, Any]]:
        """Status and payload of each well-formed line of a batch's output and error files, by custom id."""
        found: dict[str, tuple[int, Any]] = {}
        for file_id in (batch.get("error_file_id"), batch.get("output_file_id")):
            text = self._tried(lambda told: told.text, "GET", f"files/{file_id}/content", unknown="") if file_id else ""
            for line in text.split("\n"):
                try:
                    told = json.loads(line)
                    key, status, payload = told["custom_id"], told["response"]["status_code"], told["response"].get("body")
                except (AttributeError, KeyError, TypeError, ValueError):
                    continue  # the call counts as lost, and is asked again by the next run
                if isinstance(key, str) and type(status) is int:
                    found[key] = status, payload
        return found

    def _answer(self, call: ChatCall, response: tuple[int, Any], asked: Dialect, tries: int) -> ChatAnswer | None:
        """The answer to a line; ``None`` if it is to be submitted again in other words."""
        (status, payload), request = response, call[1]
        may_repeat = tries + 1 < self.settings.attempts
        body = asked.body([call], self.judge.sampling, tries)
        if status != 200:
            error = server_error(status, payload)
            if error.is_of_the_moment:
                return _of_the_moment(f"http_{status}: the server failed at this line")
            if may_repeat and not error.is_too_long and self.dialect.learn(error, body, request):
                return None
            return error.answer(request.messages)
        try:
            judged = self.judge([call], body, parse(payload, 1, is_json="response_format" in body))
        except MalformedError as error:
            spent = self.judge.cost(error.spent) if error.spent else 0.0
            return replace(_of_the_moment(f"malformed_response: {error}"), cost_usd=spent)
        if may_repeat and judged.lacks_scores:
            self.dialect.lacks_scores()
            return None
        if judged.answers:
            return replace(judged.answers[0][1], cost_usd=judged.cost_usd)
        return None if may_repeat else replace(judged.unusable[0][1], cost_usd=judged.cost_usd)

    def _find(self, token: str) -> str | None:
        """Id of the batch that carries a token, among the latest ones."""
        batches = self._tried(lambda told: dict(told.json()).get("data", []), "GET", "batches", params={"limit": _LISTED})
        return next((str(batch["id"]) for batch in batches if (batch.get("metadata") or {}).get(_TOKEN) == token), None)

    def _tried(
        self,
        read: Callable[[httpx.Response], _Read],
        method: str,
        path: str,
        *,
        instead: Callable[[], _Read | None] | None = None,
        unknown: _Read | None = None,
        **what: Any,
    ) -> _Read:
        """Send a request and read the response, again after faults of the moment.

        ``instead`` says whether a failed try was heard; ``unknown`` stands for what the server does not have.
        """
        name = path.split("/")[0]
        for tries in range(1, self.settings.attempts + 1):
            try:
                response = self._http.request(method, path, **what)
                if response.is_success:
                    return read(response)
                if response.status_code in {404, 410} and unknown is not None:
                    return unknown
                error = server_error(response.status_code, None)
                if not error.is_of_the_moment:
                    check_access(self.settings, self.dialect.model.name, error, has_answered=True)
                    told = f"refuses {method} {name} of its batch endpoint (status {error.status})"
                    raise ServerRefusedError(f"{self.settings.address} {told}")
            except (httpx.RequestError, KeyError, TypeError, ValueError):
                pass  # as good as a fault of the moment
            if instead or tries < self.settings.attempts:
                time.sleep(pause(tries))
            if instead and (found := instead()):
                return found
        told = f"failed {self.settings.attempts} times; launch again to go on with the batches under way"
        raise ServerRefusedError(f"{self.settings.address}/{name} {told}")


def _pending(file: Path) -> Pending | None:
    """What a file remembers; one that is damaged is put aside, so that nobody stumbles over it again."""
    try:
        return _PENDING.validate_json(file.read_bytes())
    except ValidationError:
        aside = file.with_suffix(".damaged")
        _log.warning("%s remembers a batch and is damaged: it is now %s, and what it was waiting for is submitted again", file, aside.name)
        file.rename(aside)
        return None


def _reason(batch: dict[str, Any], calls: dict[str, ChatCall]) -> str:
    """Why a batch failed, as the server says; nothing of it if it quotes one of the prompts."""
    errors = batch.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else errors
    error = server_error(0, listed or None)
    quoted = next((call[1].messages for call in calls.values() if error.quotes(call[1].messages)), [])
    return f": {error.shown(quoted)}" if error.message else ""


def _id(told: httpx.Response) -> str:
    return str(told.json()["id"])


def _of_the_moment(error: str) -> ChatAnswer:
    return ChatAnswer(None, error, None, 0, 0, is_retryable=True)
