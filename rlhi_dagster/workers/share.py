"""A worker's share of the machine, where several workers do one step side by side (`workers:` in a profile).

What belongs here: which GPUs and how many CPU threads a worker has for itself. What does not: who divides the work
(``graph/resources.py``), and the ranks of one training (``launch.py``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

KEY = "share"
"""Of a job (Pipes extras) with ``number`` (from 0), ``of`` and ``threads`` (``None`` for the cores shared out); absent for all of it."""


def take(job: Mapping[str, Any]) -> None:
    """Keep this process to its share, if it has one; to be called before a device is used."""
    if KEY not in job:
        return
    import torch

    number, of = job[KEY]["number"], job[KEY]["of"]
    if devices := _visible(torch.cuda.device_count()):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices[number::of] or [devices[number % len(devices)]])
    threads = job[KEY]["threads"] or max(1, torch.get_num_threads() // of)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of ranks that this process starts
    torch.set_num_threads(threads)


def _visible(count: int) -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]
