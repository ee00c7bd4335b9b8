"""Stopping a training run at a signal: the step in hand is finished, a snapshot is written, and the run ends.

What belongs here: agreeing on it among processes, at the end of a step. What does not: noting a signal (``answering.Stop``) and going on
from the snapshot (``training_run.fit``).
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhi_dagster.engines.ask import StoppedError
from rlhi_dagster.workers.answering import Stop


class StopAtSignal(TrainerCallback):
    """From the first step to the last, SIGTERM and SIGINT wait for the end of the step in hand; before and after they end the process."""

    def __init__(self, name: str, log: Callable[[str], None]) -> None:
        """``name`` is what is trained."""
        self.name, self._log = name, log
        self._stop: Stop | None = None
        self._is_stopping = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Take over the signals."""
        self._stop = Stop(self._log, "the step in hand")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Ask for a snapshot if any of the processes was told to stop; after the last step there is nothing to stop."""
        if self._anybody_stops(args.device) and state.global_step < state.max_steps:
            self._is_stopping = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """End the run once its snapshot is there.

        Raises:
            StoppedError: The run was told to stop; the message says how far it came.
        """
        if self._is_stopping:
            raise StoppedError(f"stopped: {self.name} is kept at step {state.global_step} of {state.max_steps}; launch again to continue")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Give the signals back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _anybody_stops(self, device: torch.device) -> bool:
        told = bool(self._stop and self._stop())
        if not torch.distributed.is_initialized():
            return told
        flag = torch.tensor(int(told), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)
