"""Whether a training run is sound, and which of its snapshots is kept: the best one on held-out users among those that are sound.

What belongs here: the loss before the first step, displacement, memorisation and the choice, as functions of what training recorded. What
does not: recording it (``workers/watch.py``) and whether a finished checkpoint passes (``checks.py``).

DPO can lower the likelihood of preferred replies along with the dispreferred ones (likelihood displacement; Razin et al., 2024), and the
author's logs reach a loss of 1e-10 while the likelihood of preferred replies falls. Both show on users that were not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhi_dagster.training.settings import TrainingSettings

TERM = "preference_loss"
"""What DPO is judged by: its own term of the loss, which is the loss where nothing is added to it."""
SELECTION = "eval_selection"
"""Metric that the trainer minimises over snapshots."""
_RIGHT = "eval_accuracy"
"""Share of held-out pairs that a reward model tells right; no other trainer logs it under this name."""
_TIE = 1e-3
"""Weight of the loss beside ``_RIGHT``: enough to choose between snapshots that tell as many pairs right."""
_START_TOLERANCE = 1e-3
_UNSOUND = 1_000.0
"""Added to the loss of an unsound snapshot for each unit past a bound: any sound one is better, and of unsound ones the least unsound."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A snapshot on held-out users.

    Attributes:
        loss: Held-out loss; of DPO its own term, whatever else is in the loss.
        displacement: Fall of the mean log-probability of held-out preferred replies since the start, nats a token; ``None`` where the
            method does not tell.
        memorisation: Held-out loss minus training loss, nats; ``None`` before the first step.
        excess: How far past the bounds, nats; 0 for a sound snapshot.
        wrong: Share of held-out pairs that a reward model tells wrong; ``None`` for other models.
    """

    loss: float
    displacement: float | None
    memorisation: float | None
    excess: float
    wrong: float | None = None

    @property
    def selection(self) -> float:
        """What is minimised over snapshots.

        A reward model only ranks. Its loss rises as soon as it is surer of its mistakes, while it still tells more and more pairs right.
        """
        found = self.loss if self.wrong is None else self.wrong + _TIE * self.loss
        return found + (_UNSOUND * (1 + self.excess) if self.excess > 0 else 0.0)


def standing(history: Sequence[Mapping[str, Any]], settings: TrainingSettings, chosen_tokens: float) -> Standing:
    """How the last evaluation of ``history`` stands.

    Args:
        history: What a trainer logged, in order: training points have ``loss``, evaluations ``eval_loss``, for DPO with ``TERM`` beside
            it and ``eval_logps/chosen``, for reward models with ``eval_accuracy``; the first evaluation is that of the start.
        settings: The bounds.
        chosen_tokens: Mean tokens of a held-out preferred reply.
    """
    evaluations = [entry for entry in history if "eval_loss" in entry]
    first, last = evaluations[0], evaluations[-1]
    loss = held_out_loss(last)
    trained = [entry.get(TERM, entry["loss"]) for entry in history if "loss" in entry]
    memorisation = float(loss - trained[-1]) if trained else None
    displacement = None
    if "eval_logps/chosen" in first:
        displacement = float(first["eval_logps/chosen"] - last["eval_logps/chosen"]) / chosen_tokens
    past = excesses({"displacement": displacement, "memorisation": memorisation}, settings.model_dump())
    wrong = 1 - last[_RIGHT] if _RIGHT in last else None
    return Standing(loss, displacement, memorisation, max([0.0, *past.values()]), wrong)


def is_ln2(loss: float) -> bool:
    """Whether DPO's term has the value that it has where policy and reference agree, to 1e-3."""
    return math.isfinite(loss) and abs(loss - math.log(2)) <= _START_TOLERANCE


def is_half(loss: float) -> bool:
    """Whether KTO's loss, in weights of an example, has the value that it has where policy and reference agree, to 1e-3."""
    return math.isfinite(loss) and abs(loss - 0.5) <= _START_TOLERANCE


def held_out_loss(point: Mapping[str, Any]) -> float:
    """What snapshots are compared by, of an evaluation."""
    return float(point.get(f"eval_{TERM}", point["eval_loss"]))


def excesses(measured: Mapping[str, float | None], settings: Mapping[str, Any]) -> dict[str, float]:
    """By how much what was measured is past its bound, in nats: only what is past it, or not a number.

    Args:
        measured: ``displacement`` and ``memorisation``, as far as known.
        settings: Training settings; a method without the bound ``max_<name>`` has none.
    """
    bounds = {name: settings[f"max_{name}"] for name in ("displacement", "memorisation") if f"max_{name}" in settings}
    past = {name: measured[name] - bound for name, bound in bounds.items() if measured.get(name) is not None}
    return {name: excess if math.isfinite(excess) else math.inf for name, excess in past.items() if not excess <= 0}


def choice(evaluations: Sequence[Mapping[str, float]], step: int, of: int, settings: TrainingSettings) -> dict[str, Any]:
    """What a manifest says of the choice.

    Args:
        evaluations: Points on held-out users, the start's first; none without held-out pairs.
        step: Of the snapshot that was kept.
        of: Steps that were trained.
        settings: The bounds.

    Returns:
        ``step``, ``of``, ``why``, the number of ``snapshots`` to choose from, and ``passed_over``: those past a bound with their ``step``,
        ``loss``, ``displacement`` and ``memorisation``, and which bounds are ``past``.
    """
    snapshots = [point for point in evaluations if point["step"] > 0]
    unsound = [told for point in snapshots if (told := _unsound(point, settings))]
    if not snapshots:
        why = "the last step: there is no held-out pair to choose by"
    elif len(unsound) == len(snapshots):
        why = "no snapshot is within the bounds: the one least far past them"
    else:
        by = "most held-out pairs told right" if _RIGHT in snapshots[0] else "lowest held-out loss"
        why = by + (" of those within the bounds" if unsound else "")
    return {
        "step": step,
        "of": of,
        "why": why,
        "snapshots": len(snapshots),
        "passed_over": [told for told in unsound if told["step"] != step],
    }


def _unsound(point: Mapping[str, float], settings: TrainingSettings) -> dict[str, Any] | None:
    measured = {name: point.get(f"eval_{name}") for name in ("displacement", "memorisation")}
    past = excesses(measured, settings.model_dump())
    return {"step": int(point["step"]), "loss": held_out_loss(point), **measured, "past": sorted(past)} if past else None
