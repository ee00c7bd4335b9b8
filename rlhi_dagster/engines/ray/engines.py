"""Engines on a Ray cluster: replicas of one engine on several GPUs or machines, behind the interface of one.

What belongs here: the two kinds of engine. The store stays with whoever calls: replicas get requests and give answers, so a cluster that
vanishes costs what was in hand. An engine keeps its replicas until it is forgotten, so that the turns of a replayed dialogue load no
model again. Needs the extra ``ray``; see docs/ray.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlhi_dagster.engines.base import ChatAnswer, ChatCalls, RewardAnswer, RewardCalls, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.ray.replicas import Replicas, Settings


class RayChatEngine:
    """Chat engines on a Ray cluster."""

    def __init__(self, model: ModelRef, settings: Settings) -> None:
        self._replicas = Replicas("chat", model, settings)

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        """See ``ChatEngine.answer``."""
        return self._replicas.run(calls, _no_reply, sampling)


class RayRewardEngine:
    """Reward engines on a Ray cluster."""

    def __init__(self, model: ModelRef, settings: Settings) -> None:
        self._replicas = Replicas("reward", model, settings)

    def score(self, calls: RewardCalls) -> Iterator[list[tuple[str, RewardAnswer]]]:
        """See ``RewardEngine.score``."""
        return self._replicas.run(calls, _no_reward)


def _no_reply(error: str) -> ChatAnswer:
    return ChatAnswer(None, error, None, 0, 0, is_retryable=True)


def _no_reward(error: str) -> RewardAnswer:
    return RewardAnswer(None, error, 0, is_retryable=True)
