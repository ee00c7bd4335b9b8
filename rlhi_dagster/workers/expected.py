"""How a worker fails: what can be expected to go wrong reaches its asset as one sentence, everything else with its stack trace.

The closing message of Dagster Pipes carries the name of the exception, by which ``graph/pipes.py`` knows these two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlhi_dagster.base.failures import may_pass, sentence


class ExpectedError(SystemExit):
    """A failure that one sentence explains; ends the process with that sentence on stderr and exit status 1."""


class ExpectedToPassError(ExpectedError):
    """One that may have passed when the same is tried again."""


@contextmanager
def told() -> Iterator[None]:
    """Turn failures that can be expected into ``ExpectedError``; inside ``open_dagster_pipes``, whose closing message carries it."""
    try:
        yield
    except Exception as error:
        found = sentence(error)
        if found is None:
            raise
        raise (ExpectedToPassError if may_pass(error) else ExpectedError)(found) from error
