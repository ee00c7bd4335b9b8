"""TensorBoard event files of a training run, written while it goes on.

What belongs here: where points go and that a run that resumes continues its lines. What does not: what the points are (``watch.py``).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class EventFiles:
    """Two runs in TensorBoard, ``training`` and ``held_out``, whose curves of the same name share their axes."""

    def __init__(self, folder: Path, step: int) -> None:
        """Start anew, or go on after ``step``.

        Args:
            folder: Of the artefact's event files; what earlier runs wrote there goes if ``step`` is 0.
            step: Last step of the snapshot from which the run resumes; points after it are drawn again.
        """
        if not step:
            shutil.rmtree(folder, ignore_errors=True)
        _wait_for_a_later_name(folder)
        purge = {"purge_step": step + 1} if step else {}
        self._writers = {run: SummaryWriter(str(folder / run), **purge) for run in ("training", "held_out")}

    def add(self, run: str, step: int, numbers: Mapping[str, float]) -> None:
        """Write a point of ``training`` or ``held_out``; it can be read at once."""
        for name, value in numbers.items():
            self._writers[run].add_scalar(name, value, step)
        self._writers[run].flush()

    def close(self) -> None:
        """Finish the files."""
        for writer in self._writers.values():
            writer.close()


def _wait_for_a_later_name(folder: Path) -> None:
    """TensorBoard reads files by name, which begins with the second of their start: of the same second, the later one may come first."""
    seconds = [int(path.name.split(".")[3]) for path in folder.glob("*/events.out.tfevents.*")]
    if seconds:
        time.sleep(min(max(max(seconds) + 1 - time.time(), 0), 2))
