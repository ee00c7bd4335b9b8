"""Program: start a training worker, in one process a device.

``python -m rlhi_dagster.workers.launch train_dpo`` reads from Pipes how many processes the jobs ask for. One runs in this very process; for
several, ``accelerate launch`` starts ranks, of which only the first talks to Dagster. Ranks talk through NCCL on GPUs, gloo on the CPU.
What belongs here: counting devices, starting ranks, and ending with them and with whoever started this. What does not: what a rank does
(``train_loop.py``).
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

from dagster_pipes import (
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesContext,
    PipesDefaultContextLoader,
    PipesEnvVarParamsLoader,
    PipesMappingParamsLoader,
    encode_param,
    open_dagster_pipes,
)

from rlhi_dagster.base import owned
from rlhi_dagster.workers import share
from rlhi_dagster.workers.answering import ECHO_SECONDS
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.parent import end_with_parent

SECONDS_TO_STOP = 600
"""How long ranks may take to finish the step in hand and to write a snapshot when they are told to stop."""


def rank() -> int:
    """Number of this process among those that train together, from 0."""
    return int(os.environ.get("RANK", "0"))


def open_pipes() -> PipesContext:
    """The Pipes context of a rank: all read the job, only the first one's messages reach Dagster."""
    if rank() == 0:
        return open_dagster_pipes()
    silent = {**os.environ, DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": os.devnull})}
    return open_dagster_pipes(params_loader=PipesMappingParamsLoader(silent))


def processes(settings: Mapping[str, Any]) -> int:
    """How many processes train: as many as ``settings`` say, else one a GPU, else one.

    Raises:
        ValueError: There are GPUs, but fewer than processes.
    """
    import torch

    devices = torch.cuda.device_count()
    asked = settings["processes"] or devices or 1
    if devices and asked > devices:
        raise ValueError(f"processes: {asked} are asked for, {devices} GPUs are in sight: set processes to {devices} or fewer, or to null")
    batch, micro = settings["batch_size"], settings["micro_batch_size"]
    if batch % (micro * asked):
        raise ValueError(f"batch_size {batch} is not a multiple of micro_batch_size {micro} times {asked} processes")
    return int(asked)


def accelerate_launch(worker: str, count: int) -> int:
    """Run ``count`` ranks of a worker to their end; the exit status.

    The first SIGTERM or SIGINT is handed on once, as SIGTERM, and the ranks have ``SECONDS_TO_STOP`` to stop; another one, not an echo of
    the first, ends them at once.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    options = {
        "--num_processes": str(count),
        "--num_machines": "1",
        "--main_process_port": "0",
        "--mixed_precision": "no",
        "--dynamo_backend": "no",
        "--num_cpu_threads_per_process": threads,
    }
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", *(part for option in options.items() for part in option)]
    environment = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SECONDS_TO_STOP)}
    # A session of its own: Ctrl-C in a terminal reaches this process only, which hands it on once.
    ranks = subprocess.Popen(
        [*command, "--module", f"rlhi_dagster.workers.{worker}"], env=environment, start_new_session=True, preexec_fn=end_with_parent
    )
    told_at: list[float] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        if not told_at:
            told_at.append(time.monotonic())
            ranks.send_signal(signal.SIGTERM)
        elif time.monotonic() - told_at[0] > ECHO_SECONDS:
            os.killpg(ranks.pid, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    return ranks.wait()


def main(worker: str) -> None:
    """Start ``worker`` for the jobs that Pipes hands over."""
    end_with_parent()
    with PipesDefaultContextLoader().load_context(PipesEnvVarParamsLoader().load_context_params()) as given:
        extras = given["extras"] or {}
        jobs = extras["jobs"]
    owned.work_for(extras)
    share.take(extras)
    import torch

    try:
        count = max(processes(job["settings"]) for job in jobs)
    except ValueError:
        with open_pipes(), told():
            raise

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    elif count == 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if count == 1:
        sys.argv = sys.argv[1:]
        runpy.run_module(f"rlhi_dagster.workers.{worker}", run_name="__main__")
    else:
        sys.exit(accelerate_launch(worker, count))


if __name__ == "__main__":
    main(sys.argv[1])
