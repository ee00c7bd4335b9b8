"""Runs as the UI needs them: each belongs to its code location, and none counts as going on whose process has ended.

What belongs here: the executor, which notes both when a run starts, and the sensor that ends runs whose process is gone. What does not:
how steps run (Dagster) and how workers' processes end (``graph/pipes.py``).

``dg launch`` executes in its own process and leaves a run without a code location. The timeline and the pages of jobs show runs of a code
location alone, so such a run would be seen nowhere but in the list of all runs. A run that is killed (SIGKILL, a machine that is switched
off) says nothing to Dagster either: it would count as started for ever, and where one run is let through at a time, block all later ones.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

import dagster as dg
import psutil
from dagster._core.definitions.executor_definition import IN_PROC_CONFIG  # not exported
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

REPOSITORY = "__repository__"
"""The name that Dagster gives the repository of a code location that is made of `dagster.Definitions`."""
PROCESS_TAG = ".rlhi/process"
"""Where a run is executed: host, process id and the time when the process started. A leading dot hides a tag in the UI."""


def steps_in_one_process(location: str) -> dg.ExecutorDefinition:
    """Dagster's executor for one process, which notes of a run where it belongs and where it is executed.

    Args:
        location: Name of the code location.
    """

    @dg.executor(name="in_process", config_schema=IN_PROC_CONFIG)
    def in_process(init_context: dg.InitExecutorContext) -> InProcessExecutor:
        """All steps of a run in its own process, one after the other."""
        return _Noting(location, RetryMode.from_config(cast("Any", init_context.executor_config["retries"])))

    return in_process


class _Noting(InProcessExecutor):
    def __init__(self, location: str, retries: Any) -> None:
        super().__init__(retries=retries)
        self._location = location

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        """Note it, then execute."""
        note(plan_context.instance, plan_context.dagster_run.run_id, self._location)
        yield from super().execute(plan_context, execution_plan)


def note(instance: dg.DagsterInstance, run_id: str, location: str) -> None:
    """Note of a run that starts in this process where it is executed, and, if it was launched without one, its code location."""
    tags = {PROCESS_TAG: _written(psutil.Process())}
    run = instance.get_run_by_id(run_id)
    if run is not None and run.remote_job_origin is None:
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), REPOSITORY)
        instance.add_run_tags(run_id, tags | {REPOSITORY_LABEL_TAG: repository.get_label()})
        if (tagged := instance.get_run_by_id(run_id)) is not None:
            instance.run_storage.replace_job_origin(tagged, RemoteJobOrigin(repository, run.job_name))
    else:
        instance.add_run_tags(run_id, tags)


def end_abandoned(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed that were executed on this host by a process that is no more; return their ids."""
    going_on = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]))
    abandoned = [run for run in going_on if _is_gone(run.tags.get(PROCESS_TAG))]
    for run in abandoned:
        told = "The process of this run has ended without a word: it was killed, or its machine was switched off. "
        instance.report_run_failed(run, f"{told}Launch it again: tables, answers of models and snapshots of trainings are kept.")
    return [run.run_id for run in abandoned]


@dg.sensor(
    name="abandoned_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Runs whose process was killed are marked as failed, so that they hold up no other run. Launches no run.",
)
def abandoned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look once."""
    ended = end_abandoned(context.instance)
    return dg.SkipReason(f"marked as failed: {', '.join(ended)}" if ended else "every run that is going on has its process")


def _written(process: psutil.Process) -> str:
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"


def _is_gone(written: str | None) -> bool:
    """Whether a process of this host has ended; not so if the run tells of none, or of another host's."""
    if written is None:
        return False
    host, process, _ = written.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        found = psutil.Process(int(process))
        return found.status() == psutil.STATUS_ZOMBIE or _written(found) != written
    except psutil.NoSuchProcess:
        return True
