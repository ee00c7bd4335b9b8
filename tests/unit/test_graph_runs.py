"""Runs belong to their code location however they were launched, and none counts as going on whose process has ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.test_utils import create_run_for_test

from rlhi_dagster.graph import runs


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@dg.op
def step() -> None: ...


@dg.job(executor_def=runs.steps_in_one_process("here"))
def steps() -> None:
    step()


def test_a_run_that_was_launched_without_a_code_location_is_shown_among_those_of_its_own(instance: dg.DagsterInstance) -> None:
    with dg.execute_job(dg.reconstructable(steps), instance) as done:
        assert done.success
    (run,) = instance.get_runs(dg.RunsFilter(tags={REPOSITORY_LABEL_TAG: "__repository__@here"}))
    assert run.run_id == done.run_id
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.job_name == "steps"
    assert run.remote_job_origin.repository_origin.get_selector().location_name == "here"


def test_only_runs_of_this_host_whose_process_has_ended_are_ended(instance: dg.DagsterInstance) -> None:
    killed, alive = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2))
    try:
        written = {"killed": runs._written(psutil.Process(killed.pid)), "alive": runs._written(psutil.Process(alive.pid))}
        host, number, _ = written["alive"].rsplit(" ", 2)
        written |= {"number used again": f"{host} {number} 1.00", "elsewhere": f"another-host {killed.pid} 1.00"}
        started = dg.DagsterRunStatus.STARTED
        ids = {
            name: create_run_for_test(instance, "steps", status=started, tags={runs.PROCESS_TAG: tag}).run_id
            for name, tag in written.items()
        }
        ids["untold"] = create_run_for_test(instance, "steps", status=started).run_id
        tagged = {runs.PROCESS_TAG: written["killed"]}
        ids["done"] = create_run_for_test(instance, "steps", status=dg.DagsterRunStatus.SUCCESS, tags=tagged).run_id
        killed.kill()  # not waited for: what nobody waits for stays as a zombie
        while psutil.Process(killed.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        with dg.build_sensor_context(instance) as context:
            told = runs.abandoned_runs(context)
        assert runs.end_abandoned(instance) == []
    finally:
        for process in (killed, alive):
            process.kill()
            process.communicate()
    assert isinstance(told, dg.SkipReason)
    status = {name: instance.get_run_by_id(run_id).status for name, run_id in ids.items()}  # type: ignore[union-attr]
    failed = {name for name, each in status.items() if each is dg.DagsterRunStatus.FAILURE}
    assert failed == {"killed", "number used again"}
    assert {ids[name] in (told.skip_message or "") for name in failed} == {True}
