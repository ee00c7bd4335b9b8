"""How a worker fails: what can be expected to go wrong reaches its asset as one sentence, everything else with its stack trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlhi_dagster.base.failures import sentence


class ExpectedError(SystemExit):
    """A failure that one sentence explains; ends the process with that sentence on stderr and exit status 1."""


@contextmanager
def told() -> Iterator[None]:
    """Turn failures that can be expected into ``ExpectedError``; inside ``open_dagster_pipes``, whose closing message carries it."""
    try:
        yield
    except Exception as error:
        found = sentence(error)
        if found is None:
            raise
        raise ExpectedError(found) from error
