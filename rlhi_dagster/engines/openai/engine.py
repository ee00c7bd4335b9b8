"""Chat engine on any server of OpenAI's chat completions: vLLM's, SGLang, llama.cpp, or hosted.

Calls go out as others come back, up to a limit that follows what the server can take. Samples of the same messages are one request with
``n``, so that their prompt is paid once. Requests run in an event loop in a thread of its own, so that the server is busy while answers
are kept. What happens at each kind of fault: docs/decisions/openai_engine.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

import httpx

from rlhi_dagster.base import failures
from rlhi_dagster.engines.base import ChatCall, ChatCalls, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai.batches import Batches
from rlhi_dagster.engines.openai.counting import TokenCount
from rlhi_dagster.engines.openai.pacing import AdaptiveLimit, Line, RateLimits, Slots
from rlhi_dagster.engines.openai.reading import Judge, server_error
from rlhi_dagster.engines.openai.server import (
    CONNECT_SECONDS,
    AbsentServerError,
    Connections,
    Finished,
    Server,
    ServerRefusedError,
    Tally,
    check_access,
)
from rlhi_dagster.engines.openai.wording import Dialect
from rlhi_dagster.engines.schemas import validator
from rlhi_dagster.engines.settings import OpenAISettings

_log = logging.getLogger(__name__)
_RENDERERS = {"vllm", "sglang", "llamacpp"}
"""Owners of model cards, as servers call themselves, that take `chat_template_kwargs`."""


class OpenAIChatEngine:
    """A model behind a server.

    Args:
        model: Its name is sent as it stands.
        settings: Of the server.
        folder: Where batches under way are remembered; needed with ``uses_batches`` alone.

    Attributes:
        limit: How many requests may be under way, and its course so far.
        tally: What was sent, and what went wrong.

    Raises:
        ServerRefusedError: The key's environment variable is not set.
    """

    def __init__(self, model: ModelRef, settings: OpenAISettings, folder: Path | None = None) -> None:
        if settings.uses_batches and folder is None:
            raise ValueError("uses_batches needs a folder in which batches under way are remembered")
        self.ref, self.settings, self.folder = model, settings, folder
        self.headers: dict[str, str] = {}
        if variable := settings.api_key_variable:
            key = os.environ.get(variable, "").strip()
            if not key:
                raise ServerRefusedError(f"{settings.key_variable} must hold the key of {settings.address}; it is not set")
            self.headers = {"Authorization": f"Bearer {key}"}
        self.limit, self.tally = AdaptiveLimit(settings.max_concurrency), Tally()
        self.dialect = Dialect(model)
        self.rates = RateLimits(settings.requests_per_minute, settings.tokens_per_minute)
        self.count = TokenCount(model.name)
        self.context: int | None = None
        self._is_known = False

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[Finished]:
        """See ``ChatEngine.answer``.

        Raises:
            ServerRefusedError: The server is not there, denies access, or has no such model.
        """
        calls = _checked(calls)
        first = next(calls, None)
        if first is None:
            return
        if not self._is_known:
            self._meet()
        judge = Judge(self.ref, sampling, self.context, self.settings.prices.get(self.ref.name), self.count)
        if self.settings.uses_batches and self.folder:
            yield from Batches(self.settings, self.headers, self.dialect, judge, self.folder).answer(chain([first], calls))
        else:
            yield from self._stream(chain([first], calls), judge)
            _log.info("%s: %s", self.ref.name, summary(self.tally, self.limit))

    def _stream(self, calls: ChatCalls, judge: Judge) -> Iterator[Finished]:
        most = min(2 * self.settings.max_concurrency, self.settings.chunk_size)
        http = Connections(self.settings, self.headers)
        with _Flow(Server(self.settings, http, self.dialect, judge, Slots(self.limit), self.rates, self.tally)) as flow:
            in_hand, is_open = 0, True
            while is_open or in_hand:
                if is_open:
                    taken = list(islice(calls, most - in_hand))
                    is_open = in_hand + len(taken) == most
                    in_hand += len(taken)
                    flow.put(taken, is_last=not is_open)
                if in_hand:
                    finished = flow.get()
                    in_hand -= len(finished)
                    yield finished

    def _meet(self) -> None:
        """Ask for the server's models once: whether it is there and lets us in, and what it says about the model. It need not have them.

        A key may well be denied the list (403) and not the model.
        """
        try:
            response = httpx.get(f"{self.settings.base_url.rstrip('/')}/models", headers=self.headers, timeout=CONNECT_SECONDS)
            payload = response.json() if response.is_success else None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            # A URL that cannot be read may be quoted, with what lets people in.
            why = type(error).__name__ if isinstance(error, httpx.InvalidURL) or not str(error) else error
            told = f"no server at {self.settings.address} to ask for the model {self.ref.name}: {why}"
            is_setting = isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL) or _is_unknown_host(error)
            raise (ServerRefusedError if is_setting else AbsentServerError)(told) from error
        except (httpx.RequestError, ValueError):
            return
        if response.status_code in {401, 402}:
            check_access(self.settings, self.ref.name, server_error(response.status_code, payload), has_answered=False)
        self._is_known = True
        cards = payload.get("data") if isinstance(payload, dict) else None
        for card in cards if isinstance(cards, list) else []:
            if isinstance(card, dict) and card.get("id") == self.ref.name:
                context = card.get("max_model_len")
                self.context = context if type(context) is int else None
                self.dialect.is_vllm = card.get("owned_by") == "vllm"
                self.dialect.renders = card.get("owned_by") in _RENDERERS


class _Flow:
    """An event loop in a thread, from entering the context to leaving it; leaving it ends whatever is under way."""

    def __init__(self, server: Server) -> None:
        self._server, self._line = server, Line(server.dialect)
        self._results: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="openai-flow", daemon=True)

    def __enter__(self) -> _Flow:
        self._thread.start()
        self._is_running.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._task:
            self._call(self._task.cancel)
        self._thread.join()

    def put(self, calls: list[ChatCall], *, is_last: bool) -> None:
        """Hand calls in, and say whether further ones may come."""
        self._call(self._line.add, calls, is_last)

    def get(self) -> Finished:
        """Wait for answers, and take all that are there.

        Raises:
            Exception: What ended the loop, once all answers before it have been taken.
        """
        finished: Finished = []
        while self._error is None and not (finished and self._results.empty()):
            result = self._results.get()
            if isinstance(result, BaseException):
                self._error = result
            else:
                finished += result
        if self._error and not finished:
            raise self._error
        return finished

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended; `get` says why
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        error: BaseException = RuntimeError("the event loop ended before all calls were answered")
        try:
            asyncio.run(self._main())
        except BaseException as caught:  # whatever it is, whoever waits for answers has to get it
            error = caught
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
        self._results.put(error)

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._is_running.set()
        async with self._server.http, asyncio.TaskGroup() as tasks:
            while await self._line.has_group():
                await self._server.slots.take()
                tasks.create_task(self._server.settle(self._line.group(), self._emit))

    def _emit(self, answers: Finished) -> None:
        self._server.tally.errors.update(answer.error.split(":")[0] for _, answer in answers if answer.error)
        self._line.settled(len(answers))
        self._results.put(answers)


def _is_unknown_host(error: Exception) -> bool:
    """Whether nobody knows the name of the host, rather than that it does not answer."""
    found = [each for each in failures.chain(error) if isinstance(each, socket.gaierror)]
    return any(each.errno == socket.EAI_NONAME for each in found)


def _checked(calls: ChatCalls) -> ChatCalls:
    """The calls; an invalid schema ends the work here."""
    for key, request in calls:
        if request.json_schema:
            validator(request.json_schema)
        yield key, request


def summary(tally: Tally, limit: AdaptiveLimit) -> str:
    """What was sent, in a line."""
    retries = ", ".join(f"{reason} {count:,}" for reason, count in tally.retries.most_common()) or "none"
    return f"{tally.requests:,} requests sent; retries: {retries}; under way at most {limit.allowed} now, {limit.lowest} at the lowest"
