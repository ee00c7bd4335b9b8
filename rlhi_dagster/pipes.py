"""The asset's side of Dagster Pipes: a worker runs to its end, and if it fails the run says why in one sentence.

What belongs here: starting a worker, reading how it ended, and making a failure of that. What does not: what a worker counts as expected
(``workers/failures.py``), and which workers there are and what they are asked (``resources.py``).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from rlhi_dagster import observations, profiles

_SECONDS_TO_STOP = 600
"""How long a worker that is told to stop may take to finish what it has in hand."""
_EXPECTED = "ExpectedError"
"""Name of ``workers.failures.ExpectedError`` in the message with which a worker closes."""


class Ending(dg.PipesTempFileMessageReader):
    """Reads a worker's messages as ever, logs those that are observations, and keeps the exception that the closing one carries.

    Attributes:
        exception: ``name`` and ``message`` of the exception that ended the worker; ``None`` if it told of none.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        """``context`` is the asset's."""
        super().__init__()
        self._context = context
        self.exception: Mapping[str, Any] | None = None

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[Any]:
        """See ``PipesTempFileMessageReader.read_messages``."""
        handle = handler.handle_message

        def noting(message: Mapping[str, Any]) -> None:
            if message["method"] == "closed":
                self.exception = (message["params"] or {}).get("exception")
            is_custom = message["method"] == "report_custom_message"
            if not (is_custom and observations.record(self._context, message["params"]["payload"])):
                handle(message)

        handler.handle_message = noting
        with super().read_messages(handler) as params:
            yield params


def run(context: dg.AssetExecutionContext, worker: str, command: Sequence[str], job: Mapping[str, Any]) -> Sequence[Any]:
    """Run a worker to its end and return its custom messages.

    Args:
        context: Of the asset.
        worker: Its name, for people.
        command: Program and arguments.
        job: What it has to do, as Pipes extras.

    Raises:
        dg.Failure: The worker failed; the description says why. Retries are not allowed where it said so itself: the same would happen.
    """
    ending = Ending(context)
    client = dg.PipesSubprocessClient(
        env={"TOKENIZERS_PARALLELISM": "false"},
        cwd=str(profiles.ROOT),
        message_reader=ending,
        termination_timeout_seconds=_SECONDS_TO_STOP,
    )
    try:
        return client.run(context=context, command=command, extras=job).get_custom_messages()
    except DagsterPipesExecutionError as error:
        raise failure(worker, int(str(error).rpartition(" ")[2]), ending.exception) from None


def failure(worker: str, status: int, exception: Mapping[str, Any] | None) -> dg.Failure:
    """What to tell of a worker that failed.

    Args:
        worker: Its name.
        status: Exit status; the negative number of a signal that killed it.
        exception: With which it closed, if it came to that.
    """
    if exception and exception["name"] == _EXPECTED:
        return dg.Failure(exception["message"].partition(": ")[2].strip(), allow_retries=False)
    if exception:
        first = exception["message"].strip().partition("\n")[0]
        return dg.Failure(f"worker {worker} failed unexpectedly with {first} (stack trace: the event before this one, and stderr)")
    if status < 0:
        name = signal.Signals(-status).name
        why = ", as the system does when memory runs out" if -status == signal.SIGKILL else ""
        return dg.Failure(f"worker {worker} was ended by {name}{why}; what it had finished is kept: launch again to continue")
    return dg.Failure(f"worker {worker} ended with status {status} before it could say why: see stderr of this run")
