"""Which snapshot of a training run is kept: the best one on held-out users among those that are sound.

What belongs here: displacement, memorisation and the choice, as functions of what training recorded. What does not: recording it
(``workers/training_run.py``) and whether a finished checkpoint passes (``checks.py``).

DPO can lower the likelihood of preferred replies along with the dispreferred ones (likelihood displacement; Razin et al., 2024), and the
author's logs reach a loss of 1e-10 while the likelihood of preferred replies falls. Both show on users that were not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhi_dagster.training.settings import DPOSettings, TrainingSettings

SELECTION = "eval_selection"
"""Metric that the trainer minimises over snapshots."""
_UNSOUND = 1_000.0
"""Added to the loss of an unsound snapshot for each unit past a bound: any sound one is better, and of unsound ones the least unsound."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A snapshot on held-out users.

    Attributes:
        loss: Held-out loss.
        displacement: Fall of the mean log-probability of held-out preferred replies since the start, nats a token; ``None`` where the
            method does not tell.
        memorisation: Held-out loss minus training loss, nats; ``None`` before the first step.
        excess: How far past the bounds, nats; 0 for a sound snapshot.
    """

    loss: float
    displacement: float | None
    memorisation: float | None
    excess: float

    @property
    def selection(self) -> float:
        """What is minimised over snapshots."""
        return self.loss + (_UNSOUND * (1 + self.excess) if self.excess > 0 else 0.0)


def standing(history: Sequence[Mapping[str, Any]], settings: TrainingSettings, chosen_tokens: float) -> Standing:
    """How the last evaluation of ``history`` stands.

    Args:
        history: What a trainer logged, in order: training points have ``loss``, evaluations ``eval_loss`` and for DPO
            ``eval_logps/chosen``; the first evaluation is that of the start.
        settings: The bounds.
        chosen_tokens: Mean tokens of a held-out preferred reply.
    """
    evaluations = [entry for entry in history if "eval_loss" in entry]
    first, last = evaluations[0], evaluations[-1]
    trained = [entry["loss"] for entry in history if "loss" in entry]
    memorisation = float(last["eval_loss"] - trained[-1]) if trained else None
    displacement, past = None, [0.0]
    if isinstance(settings, DPOSettings) and "eval_logps/chosen" in first:
        displacement = float(first["eval_logps/chosen"] - last["eval_logps/chosen"]) / chosen_tokens
        past.append(displacement - settings.max_displacement)
    if memorisation is not None:
        past.append(memorisation - settings.max_memorisation)
    return Standing(float(last["eval_loss"]), displacement, memorisation, max(past))
