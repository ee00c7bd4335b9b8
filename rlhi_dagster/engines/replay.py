"""Whole conversations that a model answers turn by turn on its own history.

What belongs here: which request a turn makes, given the replies before it. What does not: who answers the requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.store.responses import ResponseStore

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


def unanswered(
    dialogues: Mapping[str, Sequence[str]], store: ResponseStore, key: Callable[[ChatRequest], str]
) -> dict[str, list[ChatRequest]]:
    """The requests of ``replay`` that the store lacks, by conversation and to its end, each with as much of its history as is known.

    A turn whose reply is not there leaves the rest of its conversation unknown: those turns count as missing, too, and their histories
    hold the user's messages only.
    """
    lacking = ChatAnswer(None, "not_answered", None, 0, 0)

    def stored(requests: list[ChatRequest]) -> list[ChatAnswer]:
        keys = [key(request) for request in requests]
        missing = set(store.missing(pl.Series("key", keys, dtype=pl.String())))
        found = dict(zip(known := [each for each in keys if each not in missing], read_chat(known, store), strict=True))
        return [found.get(each, lacking) for each in keys]

    missing = {}
    for name, answers in replay(dialogues, stored).items():
        first = next((turn for turn, answer in enumerate(answers) if answer is lacking), None)
        if first is None:
            continue
        said = [{"role": "user", "content": text} for text in dialogues[name]]
        missing[name] = [ChatRequest(said[: turn + 1]) for turn in range(first, len(said))]
    return missing
