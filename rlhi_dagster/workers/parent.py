"""Program: the warm parent of a run's workers. It imports the heavy libraries once, and forks a worker whenever it is asked to.

``python -m rlhi_dagster.workers.parent N`` takes requests from the socket with the number N (``graph/starting.py`` is at its other end). A
worker is a child that becomes what ``python -m MODULE ARGUMENTS`` would be: with the environment, the three standard streams and the signal
handling of whoever asked, and it ends as a Python program ends. While libraries are still being imported, a worker is forked after the one
in hand and imports the rest itself.

The parent holds no device, no seed and no thread that minds: it never asks CUDA for anything (a child could not use a device then), and
Polars, which starts threads when it is imported, is left to the workers. The two libraries whose threads remain, OpenBLAS (of NumPy) and
jemalloc (of PyArrow), restart them in a child. The fork server of ``multiprocessing`` would do much of this, but its children first import
the main module of whoever asked, which is all of Dagster here, leave without exit handlers, and keep the server alive when the run is
killed.

What belongs here: what to import, forking and what ties a worker's life to its parent's. What does not: asking for a worker
(``graph/starting.py``) and what a worker does.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
from typing import Any

LIBRARIES = (
    "torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "llguidance.hf",
    "peft",
    "trl.trainer.dpo_trainer",
    "trl.trainer.reward_trainer",
    "trl.trainer.sft_trainer",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)
"""What workers spend seconds to import, in the order in which most of them need it."""
NUMBER = struct.Struct("!q")
"""What is told of a worker: its process id, then how it ended (exit status, or the negative number of a signal)."""
STREAMS = 3
"""Standard input, output and error."""
_HELD = {signal.SIGINT, signal.SIGTERM}
"""Signals that reach a whole process group; the parent ends by the end of its socket alone."""
_PR_SET_PDEATHSIG = 1
"""Of Linux' prctl(2): the signal that a process gets when its parent dies."""


STARTED_BY = "RLHI_STARTED_BY"
"""Variable in which a fresh worker is told who starts it: it takes seconds before it can ask to be told that its parent died."""


def end_with_parent() -> None:
    """Have this process told to stop (SIGTERM) when the one that started it dies, however it dies; on Linux only.

    Raises:
        SystemExit: It has died already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        started_by = os.environ.pop(STARTED_BY, None)
        if started_by is not None and int(started_by) != os.getppid():
            raise SystemExit("the run that started this worker has ended")


def check_no_device() -> None:
    """Make sure that a child can use a GPU.

    Raises:
        RuntimeError: This process has initialised CUDA.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        raise RuntimeError("the parent of the workers has initialised CUDA: a forked worker could not use a GPU")


def serve(line: socket.socket) -> list[int]:
    """Fork a worker for each request on ``line``; ends the process when the other end of ``line`` is closed.

    Returns:
        In a worker alone: descriptors of the socket with what it is to be, and of its standard streams.
    """
    waiting, parent = list(LIBRARIES), os.getpid()
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(0 if waiting else None):
                if key.fileobj is not line:
                    selector.unregister(key.fileobj)
                    _tell_end(key.fd, *key.data)
                    continue
                _, descriptors, _, _ = socket.recv_fds(line, 1, 1 + STREAMS)
                if not descriptors:
                    os._exit(0)  # the run is over or dead: its workers are told to stop by the death of this process
                check_no_device()
                pid = os.fork()
                if pid == 0:
                    end_with_parent()
                    if os.getppid() != parent:
                        os._exit(1)
                    return descriptors
                told, *streams = descriptors
                for stream in streams:
                    os.close(stream)
                os.write(told, NUMBER.pack(pid))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, told))
            if waiting:
                # Whoever needs a library that is not there says so itself.
                with contextlib.suppress(ImportError):
                    importlib.import_module(waiting.pop(0))


def become(descriptors: list[int]) -> None:
    """Be the program that the first of ``descriptors`` tells of, with the others as its standard streams."""
    with socket.socket(fileno=descriptors[0]) as told, told.makefile("rb") as file:
        program = json.load(file)
    for number, stream in enumerate(descriptors[1:]):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(program["environment"])
    output: Any = sys.stdout
    output.reconfigure(line_buffering=output.isatty() and not output.write_through)
    # Who draws without a seed draws something else each time; random sees to that itself.
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    sys.argv = program["command"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _tell_end(process: int, pid: int, told: int) -> None:
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # nobody may wait any more
        os.write(told, NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os.close(told)
    os.close(process)


def main(number: int) -> None:
    """Serve the socket with this number; in a worker, be that worker."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    with socket.socket(fileno=number) as line:
        descriptors = serve(line)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    become(descriptors)


if __name__ == "__main__":
    main(int(sys.argv[1]))
