"""The asset's side of Dagster Pipes: a worker runs to its end, and if it fails the run says why in one sentence.

What belongs here: handing a worker its job, reading its messages and how it ended, and making a failure of that. What does not: how its
process comes to be (``starting.py``), what a worker counts as expected (``workers/expected.py``), and which workers there are and what they
are asked (``resources.py``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter, PipesMessage, PipesParams

from rlhi_dagster import profiles
from rlhi_dagster.graph import observations, starting

_SECONDS_TO_STOP = 600
"""How long a worker that is told to stop may take to finish what it has in hand."""
_SECONDS_BETWEEN_READS = 0.01
_SECONDS_BETWEEN_LOOKS = 0.2
_EXPECTED, _EXPECTED_TO_PASS = "ExpectedError", "ExpectedToPassError"
"""Names of the exceptions of ``workers/expected.py`` in the message with which a worker closes."""
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""Signals that somebody sends, rather than a fault of the program."""
_KERNEL_COUNTS = Path("/proc/vmstat")


class Messages(dg.PipesMessageReader):
    """Reads a worker's messages from a file, whole lines only; logs observations, and keeps the exception of the closing one.

    Dagster's own ``PipesTempFileMessageReader`` takes for a message what is there of a line that is still being written, and stops reading:
    messages of more than one page, as stack traces and pictures are, are then lost by chance.

    Attributes:
        exception: ``name`` and ``message`` of the exception that ended the worker; ``None`` if it told of none.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        """``context`` is the asset's."""
        self._context = context
        self.exception: Mapping[str, Any] | None = None

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Hand each message to ``handler``, in a thread of its own, from when a worker is started until it has ended."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "messages"
            path.touch()
            has_ended = Event()
            thread = Thread(target=self._read, args=(path, handler, has_ended), name="messages of a worker", daemon=True)
            thread.start()
            try:
                yield {
                    PipesDefaultMessageWriter.FILE_PATH_KEY: str(path),
                    PipesDefaultMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY: False,
                }
            finally:
                has_ended.set()
                thread.join()

    @property
    def expected_writer_count(self) -> int:
        """One: of processes that work together the first alone writes."""
        return 1

    def no_messages_debug_text(self) -> str:
        """What Dagster adds to its warning when no message came."""
        return "Attempted to read messages from a file that the worker appends to."

    def _read(self, path: Path, handler: dg.PipesMessageHandler, has_ended: Event) -> None:
        try:
            for line in whole_lines(path, has_ended):
                self._take(json.loads(line), handler)
        except Exception:
            handler.report_pipes_framework_exception("reader of the worker's messages", sys.exc_info())
            raise

    def _take(self, message: PipesMessage, handler: dg.PipesMessageHandler) -> None:
        params = message["params"] or {}
        if message["method"] == "closed":
            self.exception = params.get("exception")
        is_custom = message["method"] == "report_custom_message"
        if not (is_custom and observations.record(self._context, params["payload"])):
            handler.handle_message(message)


def whole_lines(path: Path, has_ended: Event) -> Iterator[bytes]:
    """The lines of a file that another process appends to, each once it is whole.

    A last line without its end, as a killed process leaves one, is left out.

    Args:
        path: Of the file.
        has_ended: Set once nothing more will be written.
    """
    begun = b""
    with path.open("rb") as file:
        while True:
            is_last = has_ended.is_set()
            if read := file.read():
                *lines, begun = (begun + read).split(b"\n")
                yield from lines
            elif is_last:
                return
            else:
                time.sleep(_SECONDS_BETWEEN_READS)


def run(context: dg.AssetExecutionContext, worker: str, command: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
    """Run a worker for each job, all at the same time, to their end; each one's custom messages.

    Args:
        context: Of the asset.
        worker: Its name, for people.
        command: Program and arguments.
        jobs: What each has to do, as Pipes extras.

    Raises:
        dg.Failure: A worker failed; the description says why. The others finish what they have in hand first. Retries are allowed where
            the same may not happen again: a signal from outside ended it, or it lost a connection.
    """
    kills_before = _kills_for_memory()
    readers = [Messages(context) for _ in jobs]
    with ExitStack() as stack:
        sessions = [stack.enter_context(_session(context, job, reader)) for job, reader in zip(jobs, readers, strict=True)]
        processes = [_started(command, session) for session in sessions]
        try:
            ended = _ended(processes)
        except dg.DagsterExecutionInterruptedError:
            context.log.info(f"this run is to end: worker {worker} finishes what it has in hand")
            _stop(processes)
            raise
    for number, status in ended.items():
        if status:
            raise failure(worker, status, readers[number].exception, for_memory=_kills_for_memory() > kills_before)
    return [session.get_custom_messages() for session in sessions]


def _session(context: dg.AssetExecutionContext, job: Mapping[str, Any], reader: Messages) -> AbstractContextManager[dg.PipesSession]:
    injector = dg.PipesTempFileContextInjector()
    return dg.open_pipes_session(context=context, extras=dict(job), context_injector=injector, message_reader=reader)


def _started(command: Sequence[str], session: dg.PipesSession) -> starting.Started:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", **session.get_bootstrap_env_vars()}
    return starting.start(command, environment, str(profiles.ROOT))


def _ended(processes: Sequence[starting.Started]) -> dict[int, int]:
    """How each ended, by its place, the first to end first; where one fails the others are told to stop."""
    ended: dict[int, int] = {}
    while len(ended) < len(processes):
        for number, process in enumerate(processes):
            if number in ended:
                continue
            try:
                # The last one is waited for without looking up from time to time.
                ended[number] = process.wait(None if len(ended) == len(processes) - 1 else _SECONDS_BETWEEN_LOOKS)
            except (TimeoutError, subprocess.TimeoutExpired):
                continue
            if ended[number]:
                for other in processes:
                    other.send_signal(signal.SIGINT)
    return ended


def _stop(processes: Sequence[starting.Started]) -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait(_SECONDS_TO_STOP)


def failure(worker: str, status: int, exception: Mapping[str, Any] | None, *, for_memory: bool = False) -> dg.Failure:
    """What to tell of a worker that failed, and whether another try may help (``allow_retries``).

    Args:
        worker: Its name.
        status: Exit status; the negative number of a signal that killed it.
        exception: With which it closed, if it came to that.
        for_memory: The system has killed a process for want of memory meanwhile.
    """
    if exception and exception["name"] in (_EXPECTED, _EXPECTED_TO_PASS):
        told = exception["message"].partition(": ")[2].strip()
        return dg.Failure(told, allow_retries=exception["name"] == _EXPECTED_TO_PASS)
    if exception:
        first = exception["message"].strip().partition("\n")[0]
        why = f"failed unexpectedly with {first} (stack trace: the event before this one, and stderr)"
        return dg.Failure(f"worker {worker} {why}", allow_retries=False)
    if status < 0:
        name = signal.Signals(-status)
        is_for_memory = for_memory and name == signal.SIGKILL
        why = f"{name.name}, and memory ran out: lower batch_size of the engine or micro_batch_size" if is_for_memory else name.name
        told = f"worker {worker} was ended by {why}; what it had finished is kept: launch again to continue"
        return dg.Failure(told, allow_retries=name in _FROM_OUTSIDE and not is_for_memory)
    return dg.Failure(f"worker {worker} ended with status {status} before it could say why: see stderr of this run", allow_retries=False)


def _kills_for_memory() -> int:
    """How many processes the system has killed so far because memory had run out; 0 where it does not say."""
    try:
        counts = dict(line.split() for line in _KERNEL_COUNTS.read_text().splitlines())
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))
