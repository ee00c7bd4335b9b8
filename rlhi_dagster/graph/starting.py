"""How a worker's process comes to be: forked from a warm parent where that is possible, else a fresh one.

A fresh worker spends most of its start on importing torch, transformers and trl. So the first worker of a run (a process that executes
steps) starts ``workers/parent.py`` beside it, which imports them once and forks the later ones; a run that needs no worker starts nothing.
Fresh are: workers with another interpreter (vLLM's environment), and all of them where forking is unsafe (anywhere but on Linux).
What belongs here: starting, waiting and signalling. What does not: messages and failures (``graph/pipes.py``), and forking itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Protocol

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR

from rlhi_dagster.workers.parent import NUMBER, STARTED_BY, STREAMS

_OWN = {DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR}
"""Variables that differ from worker to worker. Libraries read others while they are imported, so another value asks for another parent."""


class Started(Protocol):
    """A worker's process."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, or the negative number of the signal that ended it, once it has ended.

        Raises:
            TimeoutError: Or ``subprocess.TimeoutExpired``: it has not ended after ``timeout`` seconds.
        """

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""


def start(command: Sequence[str], environment: Mapping[str, str], folder: str) -> Started:
    """Start a program with the standard streams of this process.

    Args:
        command: Interpreter and arguments; ``-m`` and a module are what can be forked.
        environment: All of its environment.
        folder: Where it runs.
    """
    if sys.platform == "linux" and list(command[:2]) == [sys.executable, "-m"]:
        return _parent(environment, folder).fork(command[2:], environment)
    return subprocess.Popen(command, cwd=folder, env={**environment, STARTED_BY: str(os.getpid())})


class _Forked:
    """A worker that a parent forks; told of by numbers on ``line``."""

    def __init__(self, line: socket.socket, parent: subprocess.Popen[bytes]) -> None:
        self._line, self._parent = line, parent
        self._status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            self._line.settimeout(timeout)
            # Without a parent nobody knows how the worker ended, but it was told to stop, and the end of the parent says why.
            ended = self._next() if self._pid else None
            self._status = (self._parent.wait() or 1) if ended is None else ended
            self._line.close()
        return self._status

    def send_signal(self, sig: int) -> None:
        if self._status is not None:
            return
        self._line.settimeout(None)
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, sig)

    @cached_property
    def _pid(self) -> int | None:
        return self._next()

    def _next(self) -> int | None:
        """The next number; ``None`` if the parent died."""
        with contextlib.suppress(ConnectionError):
            told = self._line.recv(NUMBER.size, socket.MSG_WAITALL)
            if len(told) == NUMBER.size:
                return int(NUMBER.unpack(told)[0])
        return None


class _Parent:
    """The process that workers of one environment and folder are forked from; it ends with this one."""

    def __init__(self, environment: Mapping[str, str], folder: str) -> None:
        self.key = _key(environment, folder)
        self._line, theirs = socket.socketpair()
        command = [sys.executable, "-m", "rlhi_dagster.workers.parent", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        atexit.register(self.end)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, command: Sequence[str], environment: Mapping[str, str]) -> _Forked:
        """Ask for a worker, without waiting for it."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.suppress(ConnectionError):  # a parent that died meanwhile is told of by ``wait``
            socket.send_fds(self._line, [b"\0"], [theirs.fileno(), *range(STREAMS)])
            theirs.close()
            ours.sendall(json.dumps({"command": list(command), "environment": dict(environment)}).encode())
            ours.shutdown(socket.SHUT_WR)
        return _Forked(ours, self._process)

    def end(self) -> None:
        """End the process, which tells what it has forked to stop; it may be importing, and has nothing to finish."""
        atexit.unregister(self.end)
        self._line.close()
        self._process.kill()
        self._process.wait()


_lock = Lock()
_latest: _Parent | None = None


def _parent(environment: Mapping[str, str], folder: str) -> _Parent:
    """The parent of this environment and folder; that of another one ends."""
    global _latest
    with _lock:
        if _latest is None or not _latest.is_alive or _latest.key != _key(environment, folder):
            if _latest is not None:
                _latest.end()
            _latest = _Parent(environment, folder)
        return _latest


def _key(environment: Mapping[str, str], folder: str) -> tuple[dict[str, str], str]:
    return {name: value for name, value in environment.items() if name not in _OWN}, folder
