"""Tries until the calls of a group are answered or error rows: how long to wait, what to ask again, when to give up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.openai.answers import Judge, Judged, lacks_scores
from rlhi_dagster.engines.openai.client import Client, FaultError, RefusalError, Tally, is_misdirected
from rlhi_dagster.engines.openai.concurrency import Slots
from rlhi_dagster.engines.openai.replies import Response, ServerError
from rlhi_dagster.engines.openai.requests import Call, Dialect, run_length

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
"""A server that asks to wait longer gets no further try in this run."""
_sleep = asyncio.sleep
Emit = Callable[[list[tuple[str, ChatAnswer]]], None]


def pause(tries: int, asked: float) -> float:
    """Seconds before another try: a random time, of longer range with each try, after what the server asks for."""
    return asked + random.uniform(0, min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (tries - 1)))


@dataclass(slots=True)
class Work:
    """Calls with the same messages on their way to answers.

    Attributes:
        open: Not answered yet.
        emit: Takes answers.
        tally: Counts errors.
        tries: In a row of those that answered nothing.
        unusable: Responses with a reply that was no choice or not valid under its schema.
        charged_usd: Charged by the server, and on no answer yet.
        faults: What was wrong with the last reply to a call, by key.
    """

    open: list[Call]
    emit: Emit
    tally: Tally
    tries: int = 0
    unusable: int = 0
    charged_usd: float = 0.0
    faults: dict[str, ChatAnswer] = field(default_factory=dict)

    def take(self, group: list[Call], judged: Judged) -> None:
        """Hand out the answers to a group, the first of ``open``, and keep open what has none. The first answer carries the cost."""
        self.charged_usd += judged.cost_usd
        self.unusable += bool(judged.unusable)
        self.faults |= {key: answer for (key, _), answer in judged.unusable}
        answered = {key for key, _ in judged.answers}
        self.open = [call for call in self.open if call[0] not in answered]
        self.tries = 0 if answered else self.tries + 1
        self._send(judged.answers)

    def give_up(self) -> None:
        """End with what was wrong with the replies."""
        missing = ChatAnswer(None, "malformed_response: a sample is missing", None, 0, 0, is_retryable=True)
        self._end([(key, self.faults.get(key, missing)) for key, _ in self.open])

    def fail(self, error: str, *, is_retryable: bool) -> None:
        """End with one error for all open calls."""
        self._end([(key, ChatAnswer(None, error, None, 0, 0, is_retryable=is_retryable)) for key, _ in self.open])

    def _end(self, answers: list[tuple[str, ChatAnswer]]) -> None:
        self.open = []
        self._send(answers)

    def _send(self, answers: list[tuple[str, ChatAnswer]]) -> None:
        if answers:
            (key, first), *others = answers
            self.emit([(key, replace(first, cost_usd=self.charged_usd)), *others])
            self.charged_usd = 0.0
            self.tally.errors.update(answer.error.split(":")[0] for _, answer in answers if answer.error)


@dataclass(frozen=True, slots=True)
class Solicitor:
    """Asks one server until calls are settled.

    Attributes:
        client: Sends.
        dialect: Words requests.
        judge: Reads responses.
        sampling: Of the replies.
        slots: Places of requests under way.
    """

    client: Client
    dialect: Dialect
    judge: Judge
    sampling: Sampling
    slots: Slots

    async def settle(self, calls: list[Call], emit: Emit) -> None:
        """Ask until each call has an answer or an error row. Whoever calls has a place, and it is kept while waiting for another try.

        Kept, because a server that refuses at once would otherwise see one call after the other use up its tries.
        """
        work = Work(calls, emit, self.client.tally)
        while work.open:
            group = work.open[: run_length(work.open, self.dialect.most_samples)]
            body = self.dialect.body(group, self.sampling, work.unusable)
            try:
                self._received(work, group, body, await self.client.response(body))
            except FaultError as fault:
                await self._failed(work, fault)
            except RefusalError as refusal:
                self._refused(work, refusal.error, body)

    def _received(self, work: Work, group: list[Call], body: dict[str, Any], response: Response) -> None:
        self.slots.serve()
        judged = self.judge(group, body, response)
        if lacks_scores(body, response):
            work.charged_usd += judged.cost_usd
            self.dialect.lacks_scores()
            return
        if judged.unusable:
            self.dialect.ignores_constraint(group[0][1])
        work.take(group, judged)
        if work.open and not judged.answers:
            self._count(work, "missing" if judged.missing else "unusable")
        if work.tries >= self.client.settings.attempts:
            work.give_up()

    async def _failed(self, work: Work, fault: FaultError) -> None:
        work.tries += 1
        if fault.wait > PATIENCE_SECONDS:
            work.fail(f"{fault.reason}: {fault.detail}; it asks to wait {fault.wait:,.0f} s", is_retryable=True)
        elif work.tries >= self.client.settings.attempts:
            work.fail(f"{fault.reason}: {fault.detail}", is_retryable=True)
        else:
            self._count(work, fault.reason)
            await _sleep(pause(work.tries, fault.wait))
            await self.slots.keep()

    def _count(self, work: Work, reason: str) -> None:
        if work.tries < self.client.settings.attempts:
            self.client.tally.retries[reason] += 1

    def _refused(self, work: Work, error: ServerError, body: dict[str, Any]) -> None:
        if not error.is_too_long and self.dialect.learn(error, body, work.open[0][1]):
            return
        work.fail(refusal(error, work.open[0][1]), is_retryable=is_misdirected(error))


def refusal(error: ServerError, request: ChatRequest) -> str:
    """The error row of a request that a server refuses."""
    said = error.shown(request.messages) or "the server says nothing more"
    if error.is_too_long:
        return f"prompt_too_long: {said}"
    return f"content_filter: {said}" if error.code == "content_filter" else f"http_{error.status}: {said}"
