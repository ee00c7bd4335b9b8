"""What is told and judged while a training run goes on: progress, and each snapshot on held-out users.

What belongs here: callbacks of the trainer. What does not: the bounds and the choice (``training/gates.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhi_dagster.training import gates
from rlhi_dagster.training.settings import TrainingSettings
from rlhi_dagster.workers.progress import Progress


class Watch(TrainerCallback):
    """Tells how a run goes, and judges each snapshot on held-out users before the trainer compares it with the best one."""

    def __init__(self, name: str, settings: TrainingSettings, trainer: Trainer, report: Callable[[str], None]) -> None:
        """``trainer`` trains the artefact ``name``."""
        self.settings, self.progress = settings, Progress(report, f"training {name}")
        self.chosen_tokens = _chosen_tokens(trainer.eval_dataset)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Tell how far it is; the last step is tried on held-out users like every snapshot."""
        self.progress(state.global_step, state.max_steps)
        control.should_evaluate |= state.global_step >= state.max_steps and args.eval_strategy != "no"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **kwargs: object
    ) -> None:
        """Add what is judged to the metrics that the trainer goes by, and to the history."""
        found = gates.standing(state.log_history, self.settings, self.chosen_tokens)
        told = {"eval_displacement": found.displacement, "eval_memorisation": found.memorisation, gates.SELECTION: found.selection}
        known = {name: value for name, value in told.items() if value is not None}
        metrics.update(known)
        state.log_history[-1].update(known)


def _chosen_tokens(rows: Any) -> float:
    """Mean tokens of a preferred reply; 1 where there are no such rows."""
    if rows is None or "chosen_ids" not in rows.column_names or not len(rows):
        return 1.0
    return sum(map(len, rows["chosen_ids"])) / len(rows)
