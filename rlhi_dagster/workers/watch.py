"""What is told and judged while a training run goes on: its curves, live, and each snapshot on held-out users.

What belongs here: the trainer's callback, and where its numbers go: log, observations of the asset, event files, manifest. What does not:
the bounds and the choice (``training/gates.py``), what the numbers are called (``training/curves.py``) and sampling (``probe.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhi_dagster.base.progress import Paced
from rlhi_dagster.training import gates
from rlhi_dagster.training.curves import OBSERVED, measured
from rlhi_dagster.training.settings import TrainingSettings
from rlhi_dagster.workers.batching import lengths
from rlhi_dagster.workers.event_files import EventFiles
from rlhi_dagster.workers.memory_gauge import peak_gib
from rlhi_dagster.workers.probe import Probe

_SAID = {
    "loss": "loss {:.2f}",
    "margin": "margin {:.2f}",
    "accuracy": "accuracy {:.2f}",
    "token_accuracy": "token accuracy {:.2f}",
    "kl": "KL {:.1f}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "memory_gib": "{:.1f} GiB",
    "seconds_left": "{:,.0f} s left",
}
_COUNTERS = ("num_input_tokens_seen", "num_tokens", "train_runtime", "train_tokens_per_second")
"""What trainers add up from the start of the process or run; the rates are kept instead."""


class Watch(TrainerCallback):
    """Tells how a run goes, and judges each snapshot on held-out users before the trainer compares it with the best one.

    Every process calls it, because sampling needs all of them; only the first one tells.

    Args:
        name: Name of the artefact.
        settings: How it is trained.
        trainer: Trains it.
        report: Where progress lines go.
        probe: Samples from the policy at each evaluation; ``None`` where the method has none.
        events: Folder of TensorBoard event files; ``None`` for none.
    """

    def __init__(
        self,
        name: str,
        settings: TrainingSettings,
        trainer: Trainer,
        report: Callable[[str], None],
        probe: Probe | None = None,
        events: Path | None = None,
    ) -> None:
        self.name, self.settings, self.probe, self.events = name, settings, probe, events
        self.report = report
        self.chosen_tokens = _chosen_tokens(trainer.eval_dataset)
        self._files: EventFiles | None = None
        self._trained: dict[str, float] = {}
        self._held_out: dict[str, float] = {}
        self._speed = _Speed(0)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Start the clocks, and the event files after the step from which the run resumes."""
        self._pace, self._first = Paced(self.report, f"training {self.name}"), state.global_step
        self._speed = _Speed(state.num_input_tokens_seen)
        if self.events and state.is_world_process_zero:
            self._files = EventFiles(self.events, state.global_step)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Let the clock of the training steps run."""
        self._speed.go()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Tell how far it is; the last step is tried on held-out users like every snapshot."""
        self._speed.note()
        control.should_evaluate |= state.global_step >= state.max_steps and args.eval_strategy != "no"
        if not control.should_log:
            self._tell(state)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs: object
    ) -> None:
        """Add speed and memory to a training point, and tell it."""
        if "loss" not in logs:
            return
        entry = state.log_history[-1]
        entry.update(self._speed.rates(state.num_input_tokens_seen, logs.get("num_tokens")), memory_gib=peak_gib())
        for counter in _COUNTERS:
            entry.pop(counter, None)
        self._trained = measured(entry)
        if self._files:
            self._files.add("training", state.global_step, measured(entry))
        self._tell(state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **kwargs: object
    ) -> None:
        """Add what is judged to the metrics that the trainer goes by and to the history, and tell it."""
        found = gates.standing(state.log_history, self.settings, self.chosen_tokens)
        told = {"displacement": found.displacement, "memorisation": found.memorisation, **(self.probe() if self.probe else {})}
        known = {f"eval_{name}": value for name, value in told.items() if value is not None} | {gates.SELECTION: found.selection}
        metrics.update(known)
        entry = state.log_history[-1]
        entry.update(known)
        self._speed.rest()
        if not state.is_world_process_zero:
            return
        numbers = measured(entry, "eval_")
        if self._files:
            self._files.add("held_out", state.global_step, numbers)
        self._held_out = numbers | {"step": state.global_step}
        self._show(f"step {state.global_step:,} of {state.max_steps:,} on held-out users, {said(numbers)}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Writing a snapshot is no training."""
        self._speed.rest()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Finish the event files."""
        if self._files:
            self._files.close()

    def _tell(self, state: TrainerState) -> None:
        """The latest numbers as a line and as an observation, if the last ones are some time ago or the run is at its end."""
        if not state.is_world_process_zero or not self._pace.is_due(state.global_step, state.max_steps):
            return
        each = (time.monotonic() - self._pace.started) / max(state.global_step - self._first, 1)
        self._trained |= {"step": state.global_step, "seconds_left": each * (state.max_steps - state.global_step)}
        divergence = {name: value for name, value in self._held_out.items() if name == "kl"}
        self._show(f"step {state.global_step:,} of {state.max_steps:,}, {said(self._trained | divergence)}")

    def _show(self, line: str) -> None:
        """Tell a line, and observe all that is known: Dagster's plots break where an event lacks a number."""
        self.report(f"training {self.name}: {line}")
        known = {"training": self._trained, "held_out": self._held_out}
        observe(self.name, line, {f"{part}/{name}": value for part, numbers in known.items() for name, value in numbers.items()})


class _Speed:
    """Tokens a second of the training steps alone: evaluations, samples and snapshots do not count."""

    def __init__(self, tokens: int) -> None:
        """``tokens`` were seen before."""
        self._all, self._useful, self._seconds = float(tokens), 0.0, 0.0
        self._since: float | None = None

    def go(self) -> None:
        """The clock runs from here, unless it does already."""
        self._since = self._since or time.monotonic()

    def note(self) -> None:
        """A step ended; collating for the next one counts."""
        now = time.monotonic()
        self._seconds += now - (self._since or now)
        self._since = now

    def rest(self) -> None:
        """The clock stands still until the next step begins."""
        self._since = None

    def rates(self, seen: int, useful: float | None) -> dict[str, float]:
        """``tokens_per_second``, padding included, and ``useful_tokens_per_second`` since the last call.

        Args:
            seen: Tokens that the run has read.
            useful: Those of this process that are no padding; ``None`` where the trainer does not tell.
        """
        seconds = max(self._seconds, 1e-9)
        found = {"tokens_per_second": (seen - self._all) / seconds}
        if useful is not None:
            found["useful_tokens_per_second"] = (useful - self._useful) / seconds
        self._all, self._useful, self._seconds = float(seen), useful or 0.0, 0.0
        return found


def said(numbers: Mapping[str, float]) -> str:
    """The numbers that a progress line has, in its order."""
    parts = [form.format(numbers[name]) for name, form in _SAID.items() if name in numbers]
    if "samples_malformed" in numbers:
        n = round(numbers["samples"])
        parts.append(f"{round(numbers['samples_malformed'] * n)} of {n} samples malformed")
    return ", ".join(parts)


def observe(name: str, line: str, numbers: Mapping[str, float]) -> None:
    """Have numbers shown on the asset's page while the run goes on; without Dagster at the other end nobody is told.

    Args:
        name: Name of the artefact.
        line: What is told, in words.
        numbers: By their names in the UI.
    """
    if PipesContext.is_initialized():
        PipesContext.get().report_custom_message({OBSERVED: {"name": name, "line": line, "numbers": dict(numbers)}})


def _chosen_tokens(rows: Any) -> float:
    """Mean tokens of a preferred reply, or of one with a thumb up; 1 where there are no such rows."""
    if rows is None or not len(rows):
        return 1.0
    if "chosen_ids" in rows.column_names:
        return float(lengths(rows, "chosen_ids").mean())
    is_up = rows["label"] if "label" in rows.column_names else []
    up = [length for length, is_preferred in zip(lengths(rows, "completion_ids"), is_up, strict=True) if is_preferred] if any(is_up) else []
    return float(sum(up) / len(up)) if up else 1.0
