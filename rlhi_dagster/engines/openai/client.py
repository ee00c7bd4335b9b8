"""One request to a server of OpenAI's chat completions, and what can become of it: a response, a fault, a refusal, or the run's end.

What belongs here: sending, and telling these apart. What does not: trying again (``tries.py``) and which calls make a request when
(``flow.py``).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from rlhi_dagster.engines.openai.concurrency import AdaptiveLimit
from rlhi_dagster.engines.openai.connections import Connections
from rlhi_dagster.engines.openai.rate_limits import RateLimits
from rlhi_dagster.engines.openai.replies import MalformedError, Response, ServerError, parse, retry_after, server_error
from rlhi_dagster.engines.openai.requests import tokens_guessed
from rlhi_dagster.engines.settings import OpenAISettings

_OF_THE_MOMENT = {408, 409, 425, 429}
_BUSY = {429, 503, 529}


class ServerRefusedError(RuntimeError):
    """The server takes no request of ours, so that all further work is pointless."""


class FaultError(Exception):
    """A fault of the moment; another try may help.

    Attributes:
        reason: First word of the error row.
        detail: The rest of it.
        is_busy: The server says that it has too much to do; ``None`` if the fault says nothing about that.
        wait: Seconds that the server asks to wait.
    """

    def __init__(self, reason: str, detail: str, *, is_busy: bool | None = False, wait: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.is_busy, self.wait = reason, detail, is_busy, wait


class RefusalError(Exception):
    """The server refuses this request and will again; the message is for ``ServerError.shown`` alone."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(f"status {error.status}")
        self.error = error


@dataclass(slots=True)
class Tally:
    """What an engine has sent so far: HTTP requests, those of them that came after a fault, by its reason, and error rows by reason."""

    requests: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


def headers(settings: OpenAISettings) -> dict[str, str]:
    """Headers of every request.

    Raises:
        ServerRefusedError: The key's environment variable is not set.
    """
    if settings.api_key_variable is None:
        return {}
    key = os.environ.get(settings.api_key_variable, "").strip()
    if not key:
        raise ServerRefusedError(
            f"the environment variable {settings.api_key_variable} must hold the key of {settings.base_url}; it is not set"
        )
    return {"Authorization": f"Bearer {key}"}


def check_access(settings: OpenAISettings, model: str, error: ServerError, *, has_answered: bool) -> None:
    """Raise for what no request can succeed with.

    Raises:
        ServerRefusedError: Wrong key, no credit, no such model or no such address.
    """
    if error.status in {401, 403}:
        name = settings.api_key_variable
        remedy = f"check the key in the environment variable {name}" if name else "api_key_variable is null, so no key was sent"
        raise ServerRefusedError(f"{settings.base_url} denies access to {model} (status {error.status}): {remedy}")
    if error.status == 402 or error.code in {"insufficient_quota", "billing_hard_limit_reached"}:
        raise ServerRefusedError(f"{settings.base_url} says that the account has no credit left (status {error.status})")
    if not has_answered and (error.is_about_model or is_misdirected(error)):
        raise ServerRefusedError(f"{settings.base_url} has no chat completions of the model {model} (status {error.status})")


def is_misdirected(error: ServerError) -> bool:
    """Whether the status is about the address, not about the request."""
    return error.status in {404, 405} or 300 <= error.status < 400


@dataclass(slots=True)
class Client:
    """Sends requests.

    Attributes:
        settings: Of the engine.
        model: Its name.
        http: To the server.
        limit: How many requests may be under way; each response and each fault moves it.
        rates: When the next request may be sent.
        tally: Counts.
        has_answered: Some request was answered, so address and model are right.
    """

    settings: OpenAISettings
    model: str
    http: Connections
    limit: AdaptiveLimit
    rates: RateLimits
    tally: Tally
    has_answered: bool = False

    async def response(self, body: dict[str, Any]) -> Response:
        """Send one request.

        Raises:
            FaultError: Another try may help.
            RefusalError: None will.
            ServerRefusedError: No other request will help either.
        """
        guessed = tokens_guessed(body)
        await self.rates.take(guessed)
        cuts = self.limit.cuts
        self.tally.requests += 1
        try:
            response = parse(await self._post(body), body.get("n", 1))
        except MalformedError as error:
            raise FaultError("malformed_response", str(error), is_busy=None) from error
        except FaultError as fault:
            if fault.is_busy is not None:
                self.limit.failed(cuts, is_busy=fault.is_busy)
            raise
        self.has_answered = True
        self.limit.succeeded()
        self.rates.correct(guessed, response.prompt_tokens + response.completion_tokens)
        return response

    async def _post(self, body: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                response = await self.http.post("chat/completions", json.dumps(body).encode())
        except (TimeoutError, httpx.TimeoutException) as error:
            raise FaultError("timeout", f"no whole response within {self.settings.timeout_seconds:g} s") from error
        except httpx.DecodingError as error:
            raise MalformedError("a broken encoding") from error
        except httpx.RequestError as error:
            raise FaultError("connection", type(error).__name__) from error
        payload = _json(response)
        if not response.is_success:
            raise self._fault(response, server_error(response.status_code, payload))
        if payload is None:
            raise MalformedError("not JSON")
        return payload

    def _fault(self, response: httpx.Response, error: ServerError) -> FaultError | RefusalError:
        check_access(self.settings, self.model, error, has_answered=self.has_answered)
        status = error.status
        if status not in _OF_THE_MOMENT and status < 500:
            return RefusalError(error)
        wait = retry_after(response.headers, datetime.now(UTC)) or 0.0
        if status == 429:
            return FaultError("rate_limited", "the server has too many requests", is_busy=True, wait=wait)
        return FaultError(f"http_{status}", "the server failed", is_busy=status in _BUSY, wait=wait)


def _json(response: httpx.Response) -> Any:
    """The payload; ``None`` if it is no JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
