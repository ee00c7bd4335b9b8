"""Chat engine on any server of OpenAI's chat completions: vLLM's, SGLang, llama.cpp, or hosted.

Calls go out as others come back, up to a limit that follows what the server can take. Samples of the same messages are one request with
``n``, so that their prompt is paid once. What happens at each kind of fault: docs/openai_engine.md.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain, islice
from pathlib import Path

import httpx

from rlhi_dagster.engines.base import ChatAnswer, ChatCalls, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai.answers import Judge
from rlhi_dagster.engines.openai.batches import Batches
from rlhi_dagster.engines.openai.client import Client, ServerRefusedError, Tally, check_access, headers
from rlhi_dagster.engines.openai.concurrency import AdaptiveLimit, Slots
from rlhi_dagster.engines.openai.connections import CONNECT_SECONDS, Connections, time_limits
from rlhi_dagster.engines.openai.flow import Flow, Settle
from rlhi_dagster.engines.openai.rate_limits import RateLimits
from rlhi_dagster.engines.openai.replies import server_error
from rlhi_dagster.engines.openai.requests import Dialect
from rlhi_dagster.engines.openai.tries import Solicitor
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
    """

    def __init__(self, model: ModelRef, settings: OpenAISettings, folder: Path | None = None) -> None:
        if settings.uses_batches and folder is None:
            raise ValueError("uses_batches needs a folder in which batches under way are remembered")
        self.ref, self.settings, self.folder = model, settings, folder
        self.headers = headers(settings)
        self.limit, self.tally = AdaptiveLimit(settings.max_concurrency), Tally()
        self.dialect = Dialect(model)
        self.rates = RateLimits(settings.requests_per_minute, settings.tokens_per_minute)
        self.context: int | None = None
        self._is_known = self._has_answered = False

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
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
        judge = Judge(self.ref, sampling, self.context, self.settings.prices.get(self.ref.name))
        if self.settings.uses_batches and self.folder:
            limits = time_limits(self.settings.timeout_seconds)
            with httpx.Client(base_url=self.settings.base_url, headers=self.headers, timeout=limits) as http:
                yield from Batches(self.settings, self.dialect, judge, http, self.folder).answer(chain([first], calls))
        else:
            yield from self._stream(chain([first], calls), judge)
            _log.info("%s: %s", self.ref.name, summary(self.tally, self.limit))

    def _stream(self, calls: ChatCalls, judge: Judge) -> Iterator[list[tuple[str, ChatAnswer]]]:
        most = min(2 * self.settings.max_concurrency, self.settings.chunk_size)
        with Flow(self.dialect, self.limit, lambda slots: self._solicitor(judge, slots)) as flow:
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

    @asynccontextmanager
    async def _solicitor(self, judge: Judge, slots: Slots) -> AsyncIterator[Settle]:
        async with Connections(self.settings.base_url, self.headers, self.settings.timeout_seconds) as http:
            client = Client(self.settings, self.ref.name, http, self.limit, self.rates, self.tally, self._has_answered)
            yield Solicitor(client, self.dialect, judge, judge.sampling, slots).settle
            self._has_answered = client.has_answered

    def _meet(self) -> None:
        """Ask for the server's models once: whether it is there and lets us in, and what it says about the model. It need not have them."""
        try:
            response = httpx.get(f"{self.settings.base_url.rstrip('/')}/models", headers=self.headers, timeout=CONNECT_SECONDS)
            payload = response.json() if response.is_success else None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            name = type(error).__name__
            raise ServerRefusedError(
                f"no server at {self.settings.base_url} to ask for the model {self.ref.name}: {error or name}"
            ) from error
        except (httpx.RequestError, ValueError):
            return
        if response.status_code in {401, 402, 403}:
            check_access(self.settings, self.ref.name, server_error(response.status_code, payload), has_answered=False)
        self._is_known = True
        cards = payload.get("data") if isinstance(payload, dict) else None
        for card in cards if isinstance(cards, list) else []:
            if isinstance(card, dict) and card.get("id") == self.ref.name:
                context = card.get("max_model_len")
                self.context = context if type(context) is int else None
                self.dialect.is_vllm = card.get("owned_by") == "vllm"
                self.dialect.renders = card.get("owned_by") in _RENDERERS


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
