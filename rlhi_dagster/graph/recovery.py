"""What is tried again by itself, and how often: flaky work, such as a worker that was killed or a server that did not answer.

What belongs here: asking Dagster for another try. What does not: which failures may pass (``base/failures.py``, ``graph/pipes.py``): these
alone allow retries, for all others would come again.

A retry policy of the assets would also try again what fails by a fault in the code, so another try is asked for where it makes sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

TRIES = 2
"""After the first one."""
SECONDS = 30.0
"""Before each: a server starts again in about that time, and who killed a worker for its memory has had it."""


@contextmanager
def tried_again(limit: int | None = None) -> Iterator[None]:
    """Turn a failure that may pass into a request for another try; what was finished before it is kept, so little is done twice.

    Args:
        limit: How many answers the run may ask for, if not all (``launchpad.ModelCalls``): another try would ask for as many again.
    """
    try:
        yield
    except dg.Failure as failure:
        if not failure.allow_retries or limit is not None:
            raise
        raise dg.RetryRequested(max_retries=TRIES, seconds_to_wait=SECONDS) from failure
