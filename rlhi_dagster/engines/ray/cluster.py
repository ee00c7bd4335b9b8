"""The connection to a Ray cluster, and what a person is told about its room.

Ray clusters are joined here, never started: a run does not leave daemons behind.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # as for Dagster: nothing is reported to anybody

import ray

from rlhi_dagster.engines.settings import RayCluster

log = logging.getLogger(__name__)
ANNOUNCED_AFTER_SECONDS = 10.0
"""So long after the number without a place has changed, a person is told."""


class ClusterError(RuntimeError):
    """The cluster cannot be joined, or has no room; the message says what to do."""


def join(cluster: RayCluster) -> None:
    """Connect this process to the cluster, until it ends; once is enough.

    Raises:
        ClusterError: There is none at the address, or it runs another version of Ray or Python.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _knock(cluster.address)
        # What replicas print stays in Ray's logs on their nodes.
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (OSError, RuntimeError, ValueError) as error:
        detail = " ".join(str(error).split())[:300]
        raise ClusterError(
            f"no Ray cluster to join at {cluster.address!r}: run `ray start --head` on one machine and "
            f"`ray start --address=HOST:6379` on the others ({type(error).__name__}: {detail})"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would end a worker that means to finish what it has in hand


def _knock(address: str) -> None:
    """Ray itself tries for minutes where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


class Patience:
    """Waits for room in the cluster: tells a person after a while, and ends the run when no replica at all has had a place for too long."""

    def __init__(self, cluster: RayCluster) -> None:
        self._cluster = cluster
        self._told_at, self._told = time.monotonic(), 0
        self._all_since: float | None = None

    def watch(self, placed: int, unplaced: int) -> None:
        """Note how many replicas have a place and how many wait for one.

        Raises:
            ClusterError: None has had one for ``patience_seconds``.
        """
        now = time.monotonic()
        self._all_since = (self._all_since or now) if unplaced and not placed else None
        if self._all_since and now - self._all_since > self._cluster.patience_seconds:
            raise ClusterError(f"no replica found a place on the Ray cluster in {now - self._all_since:.0f} s: {_room(self._cluster)}")
        if unplaced == self._told:
            self._told_at = now
        elif now - self._told_at > ANNOUNCED_AFTER_SECONDS:
            self._told = unplaced
            waits = "%d of %d replicas wait for a place (an autoscaler may add nodes): %s"
            log.warning(waits, unplaced, placed + unplaced, _room(self._cluster))


def _room(cluster: RayCluster) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    has = ", ".join(f"{total.get(kind, 0):g} {kind} ({free.get(kind, 0):g} free)" for kind in ("CPU", "GPU"))
    nodes = sum(node["Alive"] for node in ray.nodes())
    asked = f"{cluster.cpus_per_replica:g} CPU and {cluster.gpus_per_replica:g} GPU on one node"
    return f"each of {cluster.replicas} needs {asked}; the cluster has {has} on {nodes} nodes"
