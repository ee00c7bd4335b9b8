"""The batch endpoint: calls as lines of uploaded files, answers within a day, nothing paid twice.

What belongs here: submitting, waiting, reading results. What is remembered on disk: ``pending.py``. Samples are lines of their own.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from rlhi_dagster.engines.base import ChatAnswer, ChatCalls
from rlhi_dagster.engines.openai.answers import Judge, lacks_scores
from rlhi_dagster.engines.openai.batch_api import BatchApi
from rlhi_dagster.engines.openai.pending import Pending, PendingBatches
from rlhi_dagster.engines.openai.replies import MalformedError, parse, server_error
from rlhi_dagster.engines.openai.requests import Call, Dialect
from rlhi_dagster.engines.openai.tries import refusal
from rlhi_dagster.engines.settings import OpenAISettings

MOST_LINES, MOST_BYTES = 50_000, 100_000_000
"""Of one batch: OpenAI takes so many lines, and twice the bytes."""
MOST_UNDER_WAY = 4
"""Batches at the server at once."""
POLL_SECONDS = 30.0
_RUNNING = {"validating", "in_progress", "finalizing", "cancelling"}


@dataclass(frozen=True, slots=True)
class Job:
    """Calls that wait for one batch.

    Attributes:
        pending: The batch.
        calls: By key.
        tries: Batches that these calls were in before.
    """

    pending: Pending
    calls: dict[str, Call]
    tries: int = 0


class Batches:
    """Answers calls through one server's batch endpoint.

    A batch is remembered before it is submitted. A run that was killed finds it again and waits for it; a key that was answered in a
    batch is read from there, even if the run ended before it kept the answer.
    """

    def __init__(self, settings: OpenAISettings, dialect: Dialect, judge: Judge, http: httpx.Client, folder: Path) -> None:
        self.settings, self.dialect, self.judge = settings, dialect, judge
        self.api = BatchApi(settings, dialect.model.name, http)
        self.pending = PendingBatches(folder, f"{settings.base_url} {dialect.model.identity}")

    def answer(self, calls: ChatCalls) -> Iterator[list[tuple[str, ChatAnswer]]]:
        """See ``ChatEngine.answer``; takes as many calls as ``MOST_UNDER_WAY`` batches hold."""
        jobs, is_open = self._adopted(), True
        waiting: list[Job] = []
        while is_open or waiting:
            while is_open and len(waiting) < MOST_UNDER_WAY:
                taken, is_open = self._take(calls)
                waiting += self._jobs(taken, jobs)
            running = []
            for job in waiting:
                batch = self.api.batch(str(job.pending.batch_id))
                if batch.get("status") in _RUNNING:
                    running.append(job)
                    continue
                answers, again = self._read(job, batch)
                running += [self._submitted(again, job.tries + 1)] if again else []
                if answers:
                    yield answers
            waiting = running
            if waiting and not (is_open and len(waiting) < MOST_UNDER_WAY):
                time.sleep(POLL_SECONDS)

    def _adopted(self) -> dict[str, Pending]:
        """Remembered batches by key. Of one that was being submitted as the run ended, the server says whether it got it."""
        found: dict[str, Pending] = {}
        for pending in self.pending.load():
            batch_id = pending.batch_id or self.api.find(pending.token)
            if batch_id is None:
                self.pending.forget(pending)
                continue
            known = replace(pending, batch_id=batch_id)
            self.pending.remember(known)
            found |= dict.fromkeys(known.keys, known)
        return found

    def _take(self, calls: ChatCalls) -> tuple[dict[str, Call], bool]:
        """Calls for one batch, and whether there may be more."""
        taken: dict[str, Call] = {}
        size = 0
        for call in calls:
            taken[call[0]] = call
            size += len(self._line(call, 0))
            if len(taken) == MOST_LINES or size >= MOST_BYTES:
                return taken, True
        return taken, False

    def _jobs(self, taken: dict[str, Call], remembered: dict[str, Pending]) -> list[Job]:
        """Calls of remembered batches wait for those; the others are submitted."""
        known: dict[str, Job] = {}
        fresh: dict[str, Call] = {}
        for key, call in taken.items():
            if pending := remembered.get(key):
                known.setdefault(pending.token, Job(pending, {})).calls[key] = call
            else:
                fresh[key] = call
        return [*known.values(), *([self._submitted(fresh, 0)] if fresh else [])]

    def _submitted(self, calls: dict[str, Call], tries: int) -> Job:
        pending = self.pending.new(list(calls))
        content = b"".join(self._line(call, tries) for call in calls.values())
        batch_id = self.api.submit(content, pending.token)
        pending = replace(pending, batch_id=batch_id)
        self.pending.remember(pending)
        return Job(pending, calls, tries)

    def _line(self, call: Call, tries: int) -> bytes:
        body = self.dialect.body([call], self.judge.sampling, tries)
        line = {"custom_id": call[0], "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line).encode() + b"\n"

    def _read(self, job: Job, batch: dict[str, Any]) -> tuple[list[tuple[str, ChatAnswer]], dict[str, Call]]:
        """Answers of a batch that has ended, and calls to submit once more. What has no final answer is not looked for there again."""
        lines = self.api.results(batch)
        asked = copy.deepcopy(self.dialect)  # as the lines were worded: one of them may teach what the next one names, too
        answers: list[tuple[str, ChatAnswer]] = []
        again: dict[str, Call] = {}
        for key, call in job.calls.items():
            answer = self._line_answer(call, lines.get(key), asked, job.tries) if key in lines else _lost(batch)
            if answer is None:
                again[key] = call
            else:
                answers.append((key, answer))
        dropped = {*again, *(key for key, answer in answers if answer.is_retryable)}
        self.pending.remember(replace(job.pending, keys=[key for key in job.pending.keys if key not in dropped]))
        return answers, again

    def _line_answer(self, call: Call, line: Any, asked: Dialect, tries: int) -> ChatAnswer | None:
        """The answer of a line; ``None`` if it is to be submitted again in other words."""
        response = line.get("response") if isinstance(line, dict) else None
        status = response.get("status_code") if isinstance(response, dict) else None
        if not isinstance(response, dict) or type(status) is not int:
            return ChatAnswer(None, "malformed_response: a line of the batch has no response", None, 0, 0, is_retryable=True)
        may_repeat = tries + 1 < self.settings.attempts
        body = asked.body([call], self.judge.sampling, tries)
        if status != 200:
            error = server_error(status, response.get("body"))
            if status in {408, 409, 425, 429} or status >= 500:
                return ChatAnswer(None, f"http_{status}: the server failed at this line", None, 0, 0, is_retryable=True)
            if may_repeat and not error.is_too_long and self.dialect.learn(error, body, call[1]):
                return None
            return ChatAnswer(None, refusal(error, call[1]), None, 0, 0)
        try:
            received = parse(response.get("body"), 1)
        except MalformedError as error:
            return ChatAnswer(None, f"malformed_response: {error}", None, 0, 0, is_retryable=True)
        judged = self.judge([call], body, received)
        if may_repeat and lacks_scores(body, received):
            self.dialect.lacks_scores()
            return None
        if judged.answers:
            return replace(judged.answers[0][1], cost_usd=judged.cost_usd)
        return None if may_repeat else replace(judged.unusable[0][1], cost_usd=judged.cost_usd)


def _lost(batch: dict[str, Any]) -> ChatAnswer:
    """The error row of a call that an ended batch says nothing about."""
    status = str(batch.get("status"))[:40]
    return ChatAnswer(None, f"batch_ended: the batch ended as {status} without this line", None, 0, 0, is_retryable=True)
