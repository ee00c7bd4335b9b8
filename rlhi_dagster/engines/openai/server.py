"""One server of OpenAI's chat completions, asked until calls are answered or error rows.

What belongs here: connections, one request and what can become of it (a response, a fault, a refusal, the run's end), how long to wait,
what to ask again, when to give up. What does not: which calls make a request when (``pacing.py``), its words (``wording.py``) and what
a response means (``reading.py``).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import httpx

from rlhi_dagster.base.failures import PassingError
from rlhi_dagster.engines.base import ChatAnswer, ChatCall
from rlhi_dagster.engines.openai.pacing import RateLimits, Slots
from rlhi_dagster.engines.openai.payloads import MalformedError, Response, parse
from rlhi_dagster.engines.openai.reading import Judge, ServerError, retry_after, server_error
from rlhi_dagster.engines.openai.wording import Dialect, run_length, tokens_guessed
from rlhi_dagster.engines.settings import OpenAISettings

CONNECT_SECONDS = 10.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
PATIENCE_SECONDS = 600.0
"""A server that asks to wait longer gets no further try in this run."""
DENIALS = 5
"""So many requests that are denied before any is answered are no matter of single prompts."""
_BUSY = {429, 503, 529}
_ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)
_sleep = asyncio.sleep
Finished = list[tuple[str, ChatAnswer]]
Emit = Callable[[Finished], None]


class ServerRefusedError(RuntimeError):
    """The server takes no request of ours, so that all further work is pointless."""


class AbsentServerError(ServerRefusedError, PassingError):
    """No server answers at the address; it may be starting."""


class FaultError(Exception):
    """A fault of the moment; another try may help.

    Attributes:
        reason: First word of the error row.
        detail: The rest of it.
        is_busy: The server says that it has too much to do.
        wait: Seconds that the server asks to wait.
        spent: The tokens that it counts all the same.
    """

    def __init__(self, reason: str, detail: str, *, is_busy: bool = False, wait: float = 0.0, spent: Response | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.is_busy, self.wait, self.spent = reason, detail, is_busy, wait, spent


def check_access(settings: OpenAISettings, model: str, error: ServerError, *, has_answered: bool) -> None:
    """Raise for what no request can succeed with.

    Args:
        settings: Of the server.
        model: Name of the model.
        error: What the server says.
        has_answered: It has answered a request, so that address and model are right.

    Raises:
        ServerRefusedError: Wrong key, no credit, no such model or no such address.
    """
    if error.is_unpaid:
        raise ServerRefusedError(f"{settings.address} says that the account has no credit left (status {error.status})")
    if error.status in {401, 403}:
        remedy = (
            f"check the key in {settings.key_variable}" if settings.api_key_variable else "api_key_variable is null, so no key was sent"
        )
        raise ServerRefusedError(f"{settings.address} denies access to {model} (status {error.status}): {remedy}")
    if not has_answered and (error.is_about_model or error.names_no_model or error.is_misdirected):
        raise ServerRefusedError(f"{settings.address} has no chat completions of the model {model} (status {error.status})")


def time_limits(seconds: float) -> httpx.Timeout:
    """Those of httpx, which are by read; the limit of the whole request is set around it."""
    return httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))


def pause(tries: int, asked: float = 0.0) -> float:
    """Seconds before another try: a random time, of longer range with each try, after what the server asks for."""
    return asked + random.uniform(0, min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (tries - 1)))


class Connections:
    """HTTP connections to one server, as many as requests are under way; a context manager.

    Each is an httpx client of its own: a pool looks at all of its connections several times per request, and with 64 of them that costs
    more than the request itself (docs/decisions/openai_engine.md).
    """

    def __init__(self, settings: OpenAISettings, headers: dict[str, str]) -> None:
        tls, limits = httpx.create_ssl_context(), time_limits(settings.timeout_seconds)
        headers = headers | {"Content-Type": "application/json"}
        self._new = lambda: httpx.AsyncClient(base_url=settings.base_url, headers=headers, limits=_ONE, timeout=limits, verify=tls)
        self._free: list[httpx.AsyncClient] = []
        self._all: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._all:
            await client.aclose()

    async def post(self, path: str, content: bytes) -> httpx.Response:
        """Send JSON over a connection that is free or new, and read the whole response."""
        if not self._free:
            self._free.append(self._new())
            self._all.append(self._free[-1])
        client = self._free.pop()
        try:
            return await client.post(path, content=content)
        finally:
            self._free.append(client)


@dataclass(slots=True)
class Tally:
    """What an engine has sent so far: HTTP requests, those of them that came after a fault, by its reason, and error rows by reason.

    Once a request ``has_answered``, address and model are known to be right. Until then it counts those that were ``denied`` in a way
    that can be about their prompt alone.
    """

    requests: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    has_answered: bool = False
    denied: int = 0


@dataclass(slots=True)
class _Work:
    """Calls with the same messages on their way to answers.

    Attributes:
        open: Not answered yet.
        emit: Takes answers.
        tries: In a row of those that answered nothing.
        unusable: Responses with a reply that was no choice or not valid under its schema.
        charged_usd: Charged by the server, and on no answer yet.
        faults: What was wrong with the last reply to a call, by key.
    """

    open: list[ChatCall]
    emit: Emit
    tries: int = 0
    unusable: int = 0
    charged_usd: float = 0.0
    faults: dict[str, ChatAnswer] = field(default_factory=dict)

    def take(self, answers: Finished) -> None:
        """Hand out answers, the first of which carries the cost, and keep open what has none."""
        if answers:
            (key, first), *others = answers
            answered = {key for key, _ in answers}
            self.open = [call for call in self.open if call[0] not in answered]
            self.emit([(key, replace(first, cost_usd=self.charged_usd)), *others])
            self.charged_usd = 0.0

    def fail(self, error: str) -> None:
        """End with one error of the moment for all open calls."""
        self.refuse(ChatAnswer(None, error, None, 0, 0, is_retryable=True))

    def refuse(self, answer: ChatAnswer) -> None:
        """End with one error row for all open calls."""
        self.take([(key, answer) for key, _ in self.open])


@dataclass(frozen=True, slots=True)
class Server:
    """Asks one server until calls are settled.

    Attributes:
        settings: Of the engine.
        http: To the server.
        dialect: Words requests.
        judge: Reads responses.
        slots: Places of requests under way; each response and each fault moves their limit.
        rates: When the next request may be sent.
        tally: Counts.
    """

    settings: OpenAISettings
    http: Connections
    dialect: Dialect
    judge: Judge
    slots: Slots
    rates: RateLimits
    tally: Tally

    async def settle(self, calls: list[ChatCall], emit: Emit) -> None:
        """Ask until each call has an answer or an error row. Whoever calls has a place, and it is kept while waiting for another try.

        Kept, because a server that refuses at once would otherwise see one call after the other use up its tries.
        """
        work = _Work(calls, emit)
        try:
            while work.open:
                group = work.open[: run_length(work.open, self.dialect.most_samples)]
                body = self.dialect.body(group, self.judge.sampling, work.unusable)
                try:
                    received = await self._send(body)
                except FaultError as fault:
                    await self._failed(work, fault)
                    continue
                if isinstance(received, Response):
                    self._received(work, group, body, received)
                elif received.is_too_long or not self.dialect.learn(received, body, group[0][1]):
                    work.refuse(received.answer(group[0][1].messages))
        finally:
            self.slots.give_back()

    def _received(self, work: _Work, group: list[ChatCall], body: dict[str, Any], response: Response) -> None:
        self.slots.serve()
        judged = self.judge(group, body, response)
        work.charged_usd += judged.cost_usd
        if judged.lacks_scores:
            self.dialect.lacks_scores()
            return
        if judged.unusable:
            self.dialect.ignores_constraint(group[0][1])
            work.unusable += 1
            work.faults |= dict(judged.unusable)
        work.take(judged.answers)
        work.tries = 0 if judged.answers else work.tries + 1
        if work.tries >= self.settings.attempts:
            missing = ChatAnswer(None, f"malformed_response: {response.odd or 'a sample is missing'}", None, 0, 0, is_retryable=True)
            work.take([(key, work.faults.get(key, missing)) for key, _ in work.open])
        elif work.tries:
            self.tally.retries["unusable" if judged.unusable else "missing"] += 1

    async def _failed(self, work: _Work, fault: FaultError) -> None:
        work.tries += 1
        work.charged_usd += self.judge.cost(fault.spent) if fault.spent else 0.0
        if fault.wait > PATIENCE_SECONDS:
            work.fail(f"{fault}; it asks to wait {fault.wait:,.0f} s")
        elif work.tries >= self.settings.attempts:
            work.fail(str(fault))
        else:
            self.tally.retries[fault.reason] += 1
            await _sleep(pause(work.tries, fault.wait))
            await self.slots.keep()

    async def _send(self, body: dict[str, Any]) -> Response | ServerError:
        """Send one request; return the response, or the error of a server that refuses it and will again.

        Raises:
            FaultError: Another try may help.
            ServerRefusedError: No other request will help either.
        """
        guessed = tokens_guessed(body)
        await self.rates.take(guessed)
        cuts = self.slots.limit.cuts
        self.tally.requests += 1
        try:
            received = self._read(await self._post(json.dumps(body).encode()), body)
        except MalformedError as error:
            raise FaultError("malformed_response", str(error), spent=error.spent) from error
        except FaultError as fault:
            self.slots.limit.failed(cuts, is_busy=fault.is_busy)
            raise
        if isinstance(received, Response):
            self.tally.has_answered = True
            self.slots.limit.succeeded()
            self.rates.correct(guessed, received.prompt_tokens + received.completion_tokens if received.prompt_tokens else guessed)
        return received

    async def _post(self, content: bytes) -> httpx.Response:
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                return await self.http.post("chat/completions", content)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise FaultError("timeout", f"no whole response within {self.settings.timeout_seconds:g} s") from error
        except httpx.DecodingError as error:
            raise MalformedError("a broken encoding") from error
        except httpx.RequestError as error:
            raise FaultError("connection", type(error).__name__) from error

    def _read(self, response: httpx.Response, body: dict[str, Any]) -> Response | ServerError:
        try:
            payload = response.json()
        except (ValueError, RecursionError):
            payload = None
        if response.is_success:
            return parse(payload, body.get("n", 1), is_json="response_format" in body)
        status = response.status_code
        error = server_error(status, payload)
        if error.may_be_about_prompt and (self.tally.has_answered or self.tally.denied + 1 < DENIALS):
            self.tally.denied += 1
            return error
        check_access(self.settings, self.dialect.model.name, error, has_answered=self.tally.has_answered)
        if not error.is_of_the_moment:
            return error
        reason, detail = ("rate_limited", "the server has too many requests") if status == 429 else (f"http_{status}", "the server failed")
        raise FaultError(reason, detail, is_busy=status in _BUSY, wait=retry_after(response.headers, datetime.now(UTC)) or 0.0)
