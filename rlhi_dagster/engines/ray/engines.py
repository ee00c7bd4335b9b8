"""Engines on a Ray cluster: replicas of one engine on several GPUs or machines, behind the interface of one.

What belongs here: the side of whoever asks. Ray places the actors, starts them again when they die, and ends them when an engine is
forgotten; here calls are handed out in shards, and those of a dead replica once more, to another one: Ray itself would hold them back
until the dead one has a place again. The store stays with whoever calls. Needs the extra ``ray``; see docs/decisions/ray.md.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # as for Dagster: nothing is reported to anybody

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rlhi_dagster.engines.base import ChatAnswer, ChatCalls, RewardAnswer, RewardCalls, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.ray.actor import Answers, Ask, Call, Load, Replica
from rlhi_dagster.engines.settings import RayCluster, TransformersSettings, VllmSettings

log = logging.getLogger(__name__)
SHARDS = 8
"""In hand of a replica at most: its engine takes the calls of half of them, the others wait for it."""
DEATHS = 3
"""A shard in hand when so many replicas died becomes error rows, and a replica that dies so often while it loads ends the run."""
ANNOUNCED_AFTER_SECONDS = 10.0
"""So long after the number of replicas without a place has changed, a person is told."""


class ClusterError(RuntimeError):
    """The cluster cannot be joined or has no room, or an engine on it cannot be loaded or cannot go on; the message says what to do."""


@dataclass(slots=True, eq=False)
class _Member:
    """A replica as its owner sees it: Ray's handle, where it stands, its shards in hand, and its deaths since it last served."""

    actor: Any
    stage: Literal["placing", "loading", "serving", "dead"] = "placing"
    in_hand: int = 0
    failed_starts: int = 0


@dataclass(slots=True, eq=False)
class _Shard:
    """Calls for one replica, and how many replicas have died with them in hand."""

    calls: list[Call]
    deaths: int = 0


class RayEngine:
    """A chat or a reward engine that is replicas on a Ray cluster; they stay until this is forgotten.

    Args:
        model: What they load.
        settings: With a cluster. Each replica has a share of ``chunk_size`` in hand: half of it in the engine, the rest waiting for it.
        load: Makes the engine of one replica of the model and of that replica's settings.

    Raises:
        ClusterError: No cluster, no room in it, or a model that cannot be loaded.
    """

    def __init__(self, model: ModelRef, settings: TransformersSettings | VllmSettings, load: Load) -> None:
        assert settings.cluster
        _check_gpus(settings, settings.cluster)
        self._cluster = settings.cluster
        share = max(2, settings.chunk_size // settings.cluster.replicas)
        self._shard_size = max(1, share // SHARDS)
        one = settings.model_copy(update={"cluster": None, "chunk_size": share // 2})
        if model.path:
            model = replace(model, path=str(Path(model.path).resolve()))  # a replica has another working directory
        join(settings.cluster)
        options = {"num_cpus": settings.cluster.cpus_per_replica, "num_gpus": settings.cluster.gpus_per_replica}
        actor: Any = ray.remote(Replica).options(max_restarts=-1, max_concurrency=SHARDS + 1, scheduling_strategy="SPREAD", **options)
        self._pending: dict[Any, tuple[_Member, _Shard | None]] = {}
        self._again: list[_Shard] = []
        self._unplaced, self._unplaced_since, self._is_told = 0, time.monotonic(), False
        self._members = [_Member(actor.remote(load, model, one)) for _ in range(settings.cluster.replicas)]
        for member in self._members:
            self._place(member)
        while not self._free():
            self._step(str)

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        """See ``ChatEngine.answer``."""

        def refused(error: str) -> ChatAnswer:
            return ChatAnswer(None, error, None, 0, 0, is_retryable=True)

        return self._run(calls, lambda engine, some: engine.answer(some, sampling), refused)

    def score(self, calls: RewardCalls) -> Iterator[list[tuple[str, RewardAnswer]]]:
        """See ``RewardEngine.score``."""
        return self._run(calls, lambda engine, some: engine.score(some), lambda error: RewardAnswer(None, error, 0, is_retryable=True))

    def _run(self, calls: Iterator[Call], ask: Ask, refused: Callable[[str], Any]) -> Iterator[Answers]:
        """Answer every call once; ``refused`` makes an answer of the error of a call in hand when ``DEATHS`` replicas died."""
        try:
            while True:
                while (member := self._free()) and (shard := self._next(calls)):
                    self._pending[member.actor.answer.remote(shard.calls, ask)] = member, shard
                    member.in_hand += 1
                if member and not any(each.in_hand for each in self._members):
                    return
                if finished := self._step(refused):
                    yield finished
        finally:
            self._forget()

    def _free(self) -> _Member | None:
        """The replica with the fewest shards in hand, if it has room for one more."""
        free = (member for member in self._members if member.stage == "serving" and member.in_hand < SHARDS)
        return min(free, key=lambda member: member.in_hand, default=None)

    def _next(self, calls: Iterator[Call]) -> _Shard | None:
        if self._again:
            return self._again.pop()
        taken = list(islice(calls, self._shard_size))
        return _Shard(taken) if taken else None

    def _step(self, refused: Callable[[str], Any]) -> Answers:
        """Wait for news and take it in; returns what is finished."""
        self._watch()
        ray.wait(list(self._pending), timeout=1.0)
        ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        finished: Answers = []
        for reference in ready:
            member, shard = self._pending.pop(reference)
            member.in_hand -= shard is not None
            try:
                finished += ray.get(reference) or []
            except RayTaskError as error:
                raise ClusterError(f"a replica's engine failed: {type(error.cause).__name__}: {_line(error.cause)}") from None
            except RayError as error:
                finished += self._bury(member, shard, error, refused)
            else:
                if not shard:
                    self._advance(member)
            if member.stage == "dead" and not member.in_hand:
                self._place(member)
        return finished

    def _place(self, member: _Member) -> None:
        member.stage = "placing"
        self._pending[member.actor.arrive.options(max_task_retries=-1).remote()] = member, None

    def _advance(self, member: _Member) -> None:
        """A replica has a place, or has loaded its model."""
        if member.stage == "placing":
            member.stage = "loading"
            self._pending[member.actor.load.remote()] = member, None
        else:
            member.stage, member.failed_starts = "serving", 0

    def _bury(self, member: _Member, shard: _Shard | None, error: RayError, refused: Callable[[str], Any]) -> Answers:
        """A replica died: Ray starts it again, and others get its calls; returns error rows of those that are given up."""
        if member.stage == "serving":
            log.warning("a replica died with %d shards of requests in hand: %s", member.in_hand + 1, type(error).__name__)
        member.stage = "dead"
        if not shard:
            member.failed_starts += 1  # Ray would count its own attempts to reach a dead actor, too
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise ClusterError("a node cannot import rlhi_dagster: install the same version on every node")
            if member.failed_starts == DEATHS:
                raise ClusterError(f"a replica died {DEATHS} times while it loaded the model: is there memory enough on the nodes?")
            return []
        shard.deaths += 1
        if shard.deaths < DEATHS:
            self._again.append(shard)
            return []
        return [(key, refused(f"replica_died: {DEATHS} replicas died with this request in hand")) for key, _ in shard.calls]

    def _forget(self) -> None:
        """Drop what is in hand, and its replicas with it: whoever asked is gone."""
        self._again.clear()
        self._pending = {reference: asked for reference, asked in self._pending.items() if not asked[1]}
        for member in [each for each in self._members if each.in_hand]:
            ray.kill(member.actor, no_restart=False)
            member.in_hand = 0
            self._place(member)

    def _watch(self) -> None:
        """Tell a person after a while who waits for a place, and end the run when no replica at all has had one for too long."""
        now, unplaced = time.monotonic(), sum(member.stage == "placing" for member in self._members)
        if unplaced != self._unplaced:
            self._unplaced, self._unplaced_since, self._is_told = unplaced, now, False
        waited = now - self._unplaced_since
        if unplaced == len(self._members) and waited > self._cluster.patience_seconds:
            raise ClusterError(f"no replica found a place on the Ray cluster in {waited:.0f} s: {_room(self._cluster)}")
        if unplaced and waited > ANNOUNCED_AFTER_SECONDS and not self._is_told:
            self._is_told = True
            waits = "%d of %d replicas wait for a place (an autoscaler may add nodes): %s"
            log.warning(waits, unplaced, len(self._members), _room(self._cluster))


def join(cluster: RayCluster) -> None:
    """Connect this process to the cluster, until it ends; once is enough. Clusters are never started here: no daemon is left behind.

    Raises:
        ClusterError: There is none at the address, or it runs another version of Ray or Python.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = cluster.address.removeprefix("ray://").rpartition(":")
        if port.isdigit():  # Ray itself tries for minutes where nobody listens
            socket.create_connection((host, int(port)), timeout=10).close()
        # What replicas print stays in Ray's logs on their nodes.
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster to join at {cluster.address!r}: run `ray start --head` on one machine and "
            f"`ray start --address=HOST:6379` on the others ({type(error).__name__}: {_line(error)})"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would end a worker that means to finish what it has in hand


def _room(cluster: RayCluster) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    has = ", ".join(f"{total.get(kind, 0):g} {kind} ({free.get(kind, 0):g} free)" for kind in ("CPU", "GPU"))
    nodes = sum(node["Alive"] for node in ray.nodes())
    asked = f"{cluster.cpus_per_replica:g} CPU and {cluster.gpus_per_replica:g} GPU on one node"
    return f"each of {cluster.replicas} needs {asked}; the cluster has {has} on {nodes} nodes"


def _check_gpus(settings: TransformersSettings | VllmSettings, cluster: RayCluster) -> None:
    """Ray shows a replica the GPUs it asked for and no more."""
    gpus = settings.tensor_parallel if settings.kind == "vllm" else 1
    if gpus > 1 and cluster.gpus_per_replica != gpus:
        raise ClusterError(f"tensor_parallel is {gpus}: set gpus_per_replica of the cluster to {gpus}, which must be on one node")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
