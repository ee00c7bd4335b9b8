"""The replicas of one model on a Ray cluster: started, kept supplied with calls, and replaced when they die.

What belongs here: the side of whoever asks. What runs on the nodes is in ``actor``, and what is asked next in ``shards``. The
replacement of a dead replica is a new actor and not Ray's restart, so that its calls and its starts are counted here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.ray.actor import Failure, Replica, Report
from rlhi_dagster.engines.ray.cluster import Patience, join
from rlhi_dagster.engines.ray.shards import DEATHS, Call, Shards
from rlhi_dagster.engines.settings import NotInstalledError, TransformersSettings, VllmSettings

log = logging.getLogger(__name__)
Answers = list[tuple[str, Any]]
Settings = TransformersSettings | VllmSettings
FAILED_STARTS = 3
"""A replica that fails so often before it has loaded its model is not started again."""


class ReplicaError(RuntimeError):
    """A replica's engine cannot be loaded, or cannot go on."""


@dataclass(slots=True, eq=False)
class _Member:
    """A replica as its owner sees it.

    Attributes:
        actor: Ray's handle.
        pending: The one call under way; ``None`` while it serves and has nothing to do.
        stage: It waits for a place, loads its model, or serves.
        session: Its engine rests, expects more calls, or finishes what it has.
        in_hand: Requests by key that it has not answered.
        waiting: How many of these its engine has not taken.
        failed_starts: Replicas before it in the same stead that failed before they had their model.
        is_proven: A replica served in the same stead before: what keeps this one from loading is the node, not the settings.
    """

    actor: Any
    pending: Any
    stage: Literal["placing", "loading", "serving"] = "placing"
    session: Literal["none", "open", "closing"] = "none"
    in_hand: dict[str, Any] = field(default_factory=dict)
    waiting: int = 0
    failed_starts: int = 0
    is_proven: bool = False


class Replicas:
    """Loaded replicas; they stay until this is forgotten: Ray ends an actor that nobody can call any more.

    Each has a share of ``chunk_size``: half of it in the engine, the rest waiting for the engine in shards of a quarter.

    Args:
        kind: Of the engines.
        model: What they load.
        settings: With a cluster.

    Raises:
        ClusterError: No cluster, or no room in it.
        NotInstalledError: The engine's extra is missing on a node.
        ReplicaError: The model cannot be loaded.
    """

    def __init__(self, kind: Literal["chat", "reward"], model: ModelRef, settings: Settings) -> None:
        assert settings.cluster
        _check_gpus(settings)
        self._wanted = settings.cluster.replicas
        share = max(2, settings.chunk_size // self._wanted)
        self._shard = max(1, share // 4)
        one = settings.model_copy(update={"cluster": None, "chunk_size": share - 2 * self._shard + 1})
        if model.path:
            model = replace(model, path=str(Path(model.path).resolve()))  # a replica has another working directory
        self._patience = Patience(settings.cluster)
        self._members: list[_Member] = []
        join(settings.cluster)
        options = {"num_cpus": settings.cluster.cpus_per_replica, "num_gpus": settings.cluster.gpus_per_replica}
        actor: Any = ray.remote(Replica).options(max_restarts=0, scheduling_strategy="SPREAD", **options)
        self._start = partial(actor.remote, kind, model, one, self._shard)
        self._members += [self._new() for _ in range(self._wanted)]
        try:
            while not any(member.stage == "serving" for member in self._members):
                self._step(Shards(iter(()), 1))
        except BaseException:
            for member in list(self._members):
                self._remove(member)
            raise

    def run(self, calls: Iterator[Call], refused: Callable[[str], Any], *arguments: Any) -> Iterator[Answers]:
        """Answer every call once.

        Args:
            calls: Taken as replicas have room.
            refused: Makes an answer of the error of a call that killed replicas.
            arguments: Of the engine beside the calls.
        """
        self._members += [self._new(is_proven=True) for _ in range(self._wanted - len(self._members))]
        shards = Shards(calls, self._shard)
        try:
            while not shards.is_empty or any(member.session != "none" for member in self._members):
                for member in self._members:
                    if member.stage == "serving" and not member.pending:
                        self._supply(member, shards, arguments)
                finished, given_up = self._step(shards)
                error = f"replica_died: {DEATHS} replicas died with this request in hand"
                finished += [(key, refused(error)) for key in given_up]
                if finished:
                    yield finished
        finally:
            for member in [each for each in self._members if each.session != "none"]:
                self._remove(member)  # whoever asked is gone: nobody waits for these answers

    def _new(self, failed_starts: int = 0, is_proven: bool = False) -> _Member:
        actor = self._start()
        return _Member(actor, actor.arrive.remote(), failed_starts=failed_starts, is_proven=is_proven)

    def _supply(self, member: _Member, shards: Shards, arguments: tuple[Any, ...]) -> None:
        """Start the next exchange with a replica, with a shard if there is room for one and one is left."""
        calls: list[Call] = []
        if member.session == "none" or (member.session == "open" and member.waiting < self._shard):
            shard = shards.next(is_idle=member.session == "none")
            if not shard and member.session == "none":
                return
            calls = shard.calls if shard else []
            member.session = "open" if shard and not shard.is_alone else "closing"
        member.in_hand.update(calls)
        member.pending = member.actor.exchange.remote(calls, member.session == "closing", arguments)

    def _step(self, shards: Shards) -> tuple[Answers, list[str]]:
        """Wait for news; returns what is finished, and keys that are given up."""
        self._watch()
        pending = {member.pending: member for member in self._members if member.pending}
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=1.0)
        if ready:
            ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        finished: Answers = []
        given_up: list[str] = []
        for reference in ready:
            member = pending[reference]
            member.pending = None
            try:
                finished += self._advance(member, ray.get(reference))
            except RayTaskError as error:
                raise ReplicaError(f"a replica failed: {Failure.of(error.cause)}") from None
            except RayError as error:
                given_up += self._bury(member, shards, error)
        return finished, given_up

    def _advance(self, member: _Member, news: Any) -> Answers:
        """Take in the answer to a replica's pending call."""
        if member.stage == "placing":
            member.stage, member.pending = "loading", member.actor.load.remote()
        elif member.stage == "loading":
            if news:
                self._refuse(member, news)
            else:
                member.stage, member.failed_starts = "serving", 0
        else:
            return self._take(member, news)
        return []

    def _take(self, member: _Member, report: Report) -> Answers:
        if report.failure:
            raise _raised(report.failure)
        for key, _ in report.finished:
            del member.in_hand[key]
        member.waiting = report.waiting
        if report.is_idle:
            member.session = "none"
            if member.in_hand:
                raise ReplicaError(f"a replica's engine ended with {len(member.in_hand):,} requests unanswered")
        return report.finished

    def _refuse(self, member: _Member, failure: Failure) -> None:
        """A replica cannot load: the end at the first start, another try where one has served before."""
        if not member.is_proven:
            raise _raised(failure)
        log.warning("a replacement of a replica cannot load the model: %s: %s", failure.kind, failure.message)
        self._succeed(member)

    def _bury(self, member: _Member, shards: Shards, error: RayError) -> list[str]:
        """A replica died: its calls go back, another one takes its place; returns keys that are given up."""
        if isinstance(error, RayActorError) and error.actor_init_failed:
            self._refuse(member, Failure("ImportError", "a node cannot import rlhi_dagster: install the same version on every node"))
            return []
        log.warning("a replica died with %d requests in hand: %s", len(member.in_hand), type(error).__name__)
        given_up = shards.give_back(list(member.in_hand.items()))
        self._succeed(member)
        return given_up

    def _succeed(self, member: _Member) -> None:
        """Put a new replica in the stead of one that died."""
        has_served = member.stage == "serving"
        failed_starts = 0 if has_served else member.failed_starts + 1
        self._remove(member)
        if failed_starts < FAILED_STARTS:
            self._members.append(self._new(failed_starts, member.is_proven or has_served))
            return
        self._wanted -= 1
        if not self._wanted:
            raise ReplicaError(f"replicas died {FAILED_STARTS} times while they loaded the model: is there memory enough on the nodes?")
        log.warning("a replica failed %d times before it had loaded the model; %d replicas go on", FAILED_STARTS, self._wanted)

    def _remove(self, member: _Member) -> None:
        ray.kill(member.actor)
        self._members.remove(member)

    def _watch(self) -> None:
        unplaced = sum(member.stage == "placing" for member in self._members)
        self._patience.watch(len(self._members) - unplaced, unplaced)


def _check_gpus(settings: Settings) -> None:
    """Ray shows a replica the GPUs it asked for and no more."""
    assert settings.cluster
    gpus = settings.tensor_parallel if settings.kind == "vllm" else 1
    if gpus > 1 and settings.cluster.gpus_per_replica != gpus:
        raise ReplicaError(f"tensor_parallel is {gpus}: set gpus_per_replica of the cluster to {gpus}, which must be on one node")


def _raised(failure: Failure) -> Exception:
    if failure.kind == NotInstalledError.__name__:
        return NotInstalledError(failure.message)
    return ReplicaError(f"a replica's engine failed: {failure.kind}: {failure.message}")
