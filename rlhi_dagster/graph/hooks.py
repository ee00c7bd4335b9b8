"""What is told when a step of a job has failed: how to go on, and a message to whoever wants one.

What belongs here: the hook of the jobs. What does not: why something failed (the error says it), and commands (``base/launching.py``).
"""

from __future__ import annotations

import os

import dagster as dg
import httpx

from rlhi_dagster.base.launching import command_of_job
from rlhi_dagster.graph.partitions import ends_of_run

WEBHOOK = "RLHI_WEBHOOK"
"""Environment variable with the URL that is told of failed steps, by a POST of JSON with a ``text``, as chat services take it."""
_SECONDS = 10.0


@dg.failure_hook(name="tell_how_to_go_on")
def tell_how_to_go_on(context: dg.HookContext) -> None:
    """Log how to go on, and tell the webhook if there is one; that it cannot be reached is no failure of the run."""
    run = context.instance.get_run_by_id(context.run_id)
    again = command_of_job(context.job_name, ends_of_run(run.tags if run else {}))
    told = f"{context.op.name} failed. What was finished is kept; once the cause that its error names is gone, go on with: {again}"
    context.log.error(told)
    if url := os.environ.get(WEBHOOK):
        try:
            httpx.post(url, json={"text": f"rlhi: {told} (run {context.run_id})"}, timeout=_SECONDS).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            context.log.warning(f"{WEBHOOK} could not be told: {type(error).__name__}")
