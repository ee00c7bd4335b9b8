"""``rlhi refresh``: launch the jobs of which something is not up to date, and say why.

What belongs here: asking what is stale, and launching as a person would (``dg launch``). What does not: what counts as stale
(``graph/staleness.py``).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.cli import dagster_home, ranges
from rlhi_dagster.graph.staleness import Stale, stale

JOBS = {"preference_data": "month", "training": "recipe"}
"""How each job is cut, in the order in which they are launched."""
_SHOWN = 5


class LaunchFailedError(ValueError):
    """A job that was launched has failed; what happened is above."""


def add_parser(commands: Any) -> None:
    """Add ``refresh`` to the parsers of ``rlhi``."""
    told = "launch the jobs of which something is not up to date, and say why"
    adding = commands.add_parser(
        "refresh",
        help=told,
        description="For each job: whether every asset is made, by this code and these settings, of the logs as they are now, as the "
        "UI's own column has it. If not, the whole job is launched over all months or recipes; answers in the response store are not "
        "asked for again.",
    )
    adding.add_argument(
        "jobs", metavar="JOB", nargs="*", choices=[[], *JOBS], help=f"{' or '.join(JOBS)}; both, one after the other, if not given"
    )
    adding.add_argument("--dry-run", action="store_true", help="say what is not up to date, and launch nothing")


def run(given: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Launch what is not up to date, in the instance of the outputs in use, whatever ``DAGSTER_HOME`` says.

    Args:
        given: The command line.
        say: Where lines go.

    Raises:
        LaunchFailedError: A launched job failed; the jobs after it were not looked at.
    """
    home, profile = dagster_home.home(), profiles.current()
    lake = Lake(root=str(profile.root / "lake"))
    loaded = definitions.build(profile)
    keys = {"month": ranges.months(str(home), say), "recipe": ranges.recipes()}
    for job in given.jobs or JOBS:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            found = stale(loaded, job, keys, definitions.source_versions(profile), lake, instance)
        if not found:
            say(f"{job}: everything is up to date")
            continue
        say(f"{job}: {_told(found)}")
        if not given.dry_run:
            _launch(job, ranges.written(keys[JOBS[job]]), home)


def _told(found: Sequence[Stale]) -> str:
    shown = [f"{each.asset} ({each.reason})" for each in found[:_SHOWN]]
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return f"not up to date: {', '.join([*shown, *more])}"


def _launch(job: str, keys: str, home: Path) -> None:
    command = [str(Path(sys.executable).with_name("dg")), "launch", "--job", job, "--partition-range", keys]
    with subprocess.Popen(command, env={**os.environ, "DAGSTER_HOME": str(home)}) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the run was told as well, and ends in good order
            raise
    if code:
        raise LaunchFailedError(f"{job} failed; what happened is above, and `rlhi refresh {job}` goes on where it stopped")
