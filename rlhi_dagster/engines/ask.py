"""Asking an engine what the store lacks: in which order, in chunks that are kept as they finish, until too much fails or somebody stops.

What belongs here: order, chunks, counts, stopping. Pure of processes and of Dagster: workers call ``fulfil`` with a loaded engine, assets
read with the same keys afterwards (``read.py``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import polars as pl

from rlhi_dagster.base.failures import PassingError
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest, characters, trace
from rlhi_dagster.engines.stats import CallStats, Standing
from rlhi_dagster.store.responses import ResponseStore

Request = TypeVar("Request", ChatRequest, RewardRequest)
Finished = list[tuple[str, ChatAnswer]] | list[tuple[str, RewardAnswer]]
ERRORS_BEFORE_JUDGING = 20
"""So few errors never stop a run, whatever their share."""
NOT_ASKED = {"prompt_too_long", "conversation_too_long"}
"""Errors of requests that do not fit: they say something about the logs, and nothing about the engine. They stop no run."""
OF_THE_SERVER = ("connection", "timeout", "rate_limited", "http_5")
"""How errors begin that are a server's state, and no fault of the request."""


class StoppedError(RuntimeError):
    """Whoever started the work wants it to end; what was finished is kept."""


class TooManyErrorsError(RuntimeError):
    """More requests failed than the engine's settings allow."""


class LostServerError(TooManyErrorsError, PassingError):
    """Most of them because the server could not be reached, had too much to do or failed."""


def in_order(requests: Mapping[str, Request]) -> list[str]:
    """Keys in the order to ask in: requests with the same opening message side by side, longest first.

    The opening message is the persona's system message, or the first of the history. Within it requests stand as in a dictionary, so
    that those that share more come next to each other, and samples of the same messages follow one another.
    """
    openings: dict[tuple[str, str], list[str]] = {}
    for key, request in requests.items():
        first = request.messages[0] if request.messages else {"role": "", "content": ""}
        openings.setdefault((first["role"], first["content"]), []).append(key)

    def place(key: str) -> tuple[Any, ...]:
        request = requests[key]
        said = [(message["role"], message["content"]) for message in request.messages]
        return said, getattr(request, "sample_index", 0), key

    longest = {opening: max(characters(requests[key].messages) for key in keys) for opening, keys in openings.items()}
    return [key for opening in sorted(openings, key=lambda o: (-longest[o], o)) for key in sorted(openings[opening], key=place)]


def fulfil(
    requests: Mapping[str, Request],
    store: ResponseStore,
    answers: Callable[[Iterator[tuple[str, Request]]], Iterable[Finished]],
    settings: Callable[[Request], str],
    *,
    chunk_size: int,
    max_error_fraction: float = 1.0,
    usd_per_hour: float = 0.0,
    on_progress: Callable[[Standing], None] = lambda _: None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> CallStats:
    """Answer those of ``requests`` (by key) that the store lacks.

    What is missing is asked in an order that depends on the missing requests alone: after a kill the remaining chunks are the same ones.

    Args:
        requests: By key.
        store: Where answers are kept.
        answers: The engine: takes calls as it has room, gives lists of finished ones. Called only if something is missing, so that a
            complete store loads no model.
        settings: What of a request's key is neither model nor messages, for ``rlhi store explain``.
        chunk_size: Answers per stored segment; what a kill can cost at most, beside what the engine has in hand.
        max_error_fraction: Largest share of error rows among the answers, those of ``NOT_ASKED`` apart.
        usd_per_hour: Price of the machine, if it is to be counted.
        on_progress: Told after each list of answers.
        is_stopping: Asked before each call: when true no further call is handed out, the engine finishes what it has, and that is kept.

    Raises:
        StoppedError: It was told to stop before all was answered.
        TooManyErrorsError: The share of errors is over its limit; the message counts their reasons. A ``LostServerError`` if most of them
            are the server's.
    """
    store.sweep()
    missing = set(store.missing(pl.Series("key", list(requests), dtype=pl.String())))
    order = in_order({key: requests[key] for key in requests if key in missing})
    known = len(requests) - len(order)
    stats = CallStats(requests=len(requests), cached=known)
    if not order:
        return stats
    weights = {key: 1 + characters(requests[key].messages) for key in order}
    total, read = sum(weights.values()), 0
    reasons: Counter[str] = Counter()
    kept: list[dict[str, Any]] = []
    started: list[float] = []

    def calls() -> Iterator[tuple[str, Request]]:
        for key in order:
            if is_stopping():
                return
            if not started:
                started.append(time.monotonic())
            yield key, requests[key]

    def keep() -> None:
        if kept:
            store.append(pl.DataFrame(kept, schema=store.schema))
            kept.clear()

    try:
        for finished in answers(calls()):
            for key, answer in finished:
                request = requests[key]
                kept.append({"key": key, **asdict(answer), "settings": settings(request), **asdict(trace(request))})
                reasons.update({answer.error.split(":")[0]} - NOT_ASKED if answer.error else ())
                stats += _of(request, answer)
                read += weights[key]
            if len(kept) >= chunk_size:
                keep()
            seconds = time.monotonic() - started[0] if started else 0.0
            on_progress(Standing(_timed(stats, seconds, usd_per_hour), len(order), read / total))
            _judge(reasons, stats.answered, max_error_fraction)
    finally:
        keep()
    stats = _timed(stats, time.monotonic() - started[0] if started else 0.0, usd_per_hour)
    if stats.answered < len(order):
        if is_stopping():
            raise StoppedError(f"stopped: {stats.answered:,} of {len(order):,} requests answered and kept; launch again to continue")
        raise RuntimeError(f"the engine ended after {stats.answered:,} of {len(order):,} requests; what it answered is kept")
    return stats


def _of(request: ChatRequest | RewardRequest, answer: ChatAnswer | RewardAnswer) -> CallStats:
    return CallStats(
        answered=1,
        errors=answer.error is not None,
        prompt_characters=characters(request.messages),
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        completion_tokens=getattr(answer, "completion_tokens", 0),
        cost_usd=getattr(answer, "cost_usd", 0.0),
        estimated=getattr(answer, "is_estimated", False),
    )


def _timed(stats: CallStats, seconds: float, usd_per_hour: float) -> CallStats:
    return stats + CallStats(seconds=seconds, cost_usd=seconds / 3600 * usd_per_hour)


def _judge(reasons: Counter[str], answered: int, limit: float) -> None:
    errors = reasons.total()
    if errors >= ERRORS_BEFORE_JUDGING and errors > limit * answered:
        lost = sum(count for reason, count in reasons.items() if reason.startswith(OF_THE_SERVER))
        digest = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(8))
        raise (LostServerError if 2 * lost > errors else TooManyErrorsError)(
            f"{errors:,} of {answered:,} answers are failures, over max_error_fraction {limit:g} of the engine's settings: {digest}. "
            "What was answered is kept; launching again asks for the rest."
        )
