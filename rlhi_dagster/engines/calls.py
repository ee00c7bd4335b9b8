"""Running requests through the store: look up, answer what is missing in chunks, keep each finished chunk.

Pure of processes and of Dagster: workers call ``fulfil_*`` with a loaded engine, assets read with the same keys afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import polars as pl

from rlhi_dagster.engines.base import ChatAnswer, ChatEngine, ChatRequest, Messages, RewardEngine, RewardRequest, Sampling
from rlhi_dagster.engines.store import ResponseStore

OnChunk = Callable[[int, int, int], None]
"""Called after each stored chunk with answers done, answers wanted, and completion tokens written."""


@dataclass(frozen=True, slots=True)
class CallStats:
    """What a piece of work cost."""

    requests: int
    cached: int
    answered: int
    errors: int
    prompt_tokens: int
    completion_tokens: int

    def __add__(self, other: CallStats) -> CallStats:
        """Totals of two pieces of work."""
        mine, theirs = asdict(self), asdict(other)
        return CallStats(**{name: mine[name] + theirs[name] for name in mine})


def fulfil_chat(
    requests: Mapping[str, ChatRequest],
    sampling: Sampling,
    store: ResponseStore,
    engine: Callable[[], ChatEngine],
    chunk_size: int,
    on_chunk: OnChunk,
) -> CallStats:
    """Answer those of ``requests`` (by key) that the store lacks.

    Chunks are cut from the missing requests in order of length and key: after a kill the remaining chunks are the same ones.
    ``engine`` is called only if something is missing, so that a complete store loads no model.
    """
    missing = set(store.missing(pl.Series("key", list(requests), dtype=pl.String())))
    order = sorted(missing, key=lambda key: (sum(len(message["content"]) for message in requests[key].messages), key))
    loaded = engine() if order else None
    stats = CallStats(len(requests), len(requests) - len(order), 0, 0, 0, 0)
    for start in range(0, len(order), chunk_size):
        keys = order[start : start + chunk_size]
        assert loaded is not None
        answers = loaded.generate([requests[key] for key in keys], keys, sampling)
        store.append(
            pl.DataFrame([{"key": key, **asdict(answer)} for key, answer in zip(keys, answers, strict=True)], infer_schema_length=None)
        )
        stats += CallStats(
            0,
            0,
            len(keys),
            sum(answer.error is not None for answer in answers),
            sum(answer.prompt_tokens for answer in answers),
            sum(answer.completion_tokens for answer in answers),
        )
        on_chunk(stats.answered, len(order), stats.completion_tokens)
    return stats


def fulfil_rewards(
    requests: Mapping[str, RewardRequest],
    store: ResponseStore,
    engine: Callable[[], RewardEngine],
    chunk_size: int,
    on_chunk: OnChunk,
) -> CallStats:
    """Score those of ``requests`` (by key) that the store lacks; chunks as in ``fulfil_chat``."""
    missing = set(store.missing(pl.Series("key", list(requests), dtype=pl.String())))
    order = sorted(missing, key=lambda key: (sum(len(message["content"]) for message in requests[key].messages), key))
    loaded = engine() if order else None
    stats = CallStats(len(requests), len(requests) - len(order), 0, 0, 0, 0)
    for start in range(0, len(order), chunk_size):
        keys = order[start : start + chunk_size]
        assert loaded is not None
        answers = loaded.score([requests[key] for key in keys])
        store.append(
            pl.DataFrame([{"key": key, **asdict(answer)} for key, answer in zip(keys, answers, strict=True)], infer_schema_length=None)
        )
        errors = sum(answer.error is not None for answer in answers)
        stats += CallStats(0, 0, len(keys), errors, sum(answer.prompt_tokens for answer in answers), 0)
        on_chunk(stats.answered, len(order), 0)
    return stats


class NotAnsweredError(LookupError):
    """The store lacks an answer that was read as if complete."""


def read_chat(keys: Sequence[str], store: ResponseStore) -> list[ChatAnswer]:
    """The stored answers to ``keys``, in order.

    Raises:
        NotAnsweredError: Some key has no answer; the message counts them.
    """
    found = {row.pop("key"): ChatAnswer(**row) for row in store.lookup(pl.Series("key", keys, dtype=pl.String())).to_dicts()}
    lacking = sum(key not in found for key in keys)
    if lacking:
        raise NotAnsweredError(f"{lacking} of {len(keys)} requests have no answer in {store.folder}")
    return [found[key] for key in keys]


Complete = Callable[[list[ChatRequest]], list[ChatAnswer]]
"""Answers requests, in order."""


def replay(dialogues: Mapping[str, Sequence[str]], complete: Complete) -> dict[str, list[ChatAnswer]]:
    """Let a model answer whole conversations turn by turn on its own history, all conversations abreast.

    Args:
        dialogues: User messages by conversation.
        complete: The model; called once per turn with that turn's requests of all conversations that got so far.

    Returns:
        One answer per user message. After a turn without a reply the rest of that conversation is ``earlier_turn_failed``.
    """
    histories: dict[str, Messages] = {name: [] for name in sorted(dialogues)}
    answers: dict[str, list[ChatAnswer]] = {name: [] for name in histories}
    alive = list(histories)
    turn = 0
    while alive := [name for name in alive if turn < len(dialogues[name])]:
        requests = [ChatRequest([*histories[name], {"role": "user", "content": dialogues[name][turn]}]) for name in alive]
        for name, request, answer in zip(alive, requests, complete(requests), strict=True):
            answers[name].append(answer)
            if answer.text is not None:
                histories[name] = [*request.messages, {"role": "assistant", "content": answer.text}]
        alive = [name for name in alive if answers[name][-1].text is not None]
        turn += 1
    failed = ChatAnswer(None, "earlier_turn_failed", None, 0, 0)
    return {name: [*found, *[failed] * (len(dialogues[name]) - len(found))] for name, found in answers.items()}
