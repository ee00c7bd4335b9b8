"""Whether training can begin: what is known before any weights are loaded, each problem as one sentence.

What belongs here: bounds on lengths and disk space as functions of numbers. What does not: reading tokenizers and configurations, which
give the numbers (``workers/preflight_check.py``), recipes and settings (``recipes.py``), and memory of devices (``memory_forecast.py``).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ADAM_BYTES = 8
"""Of the optimiser's two moments of a trained parameter, in float32."""
_SNAPSHOTS = 3
"""On disk at once: the best one, the latest one, and the next while it is written; the older ones go after that."""
_PLACES = {
    "policy": "policy.training.max_length of the profile",
    "reward": "reward.training.max_length of the profile",
    "sft": "sft.max_length of the profile or settings.max_length of the recipe",
    "kto": "max_length of kto, or of dpo without it, in the profile, or settings.max_length of the recipe",
    "sdpo": "max_length of sdpo, or of dpo without it, in the profile, or settings.max_length of the recipe",
    "dpo": "max_length of dpo or dpo_on_rewards in the profile, or settings.max_length of the recipe",
}
"""Where the length limit of a method is set."""


class NotReadyError(ValueError):
    """Training cannot begin; the message says why and what to do."""


def context_problem(name: str, method: str, max_length: int, model: str, context: int) -> str | None:
    """What is wrong if rows may be longer than the model can read.

    Args:
        name: Of the artefact that is trained.
        method: How.
        max_length: The limit on rows in tokens.
        model: The start.
        context: Its context in tokens.
    """
    if max_length <= context:
        return None
    return f"{name}: max_length {max_length:,} is over the context of {model}, {context:,} tokens: lower {_PLACES[method]}"


def lengths_problem(name: str, method: str, lengths: Sequence[int], max_length: int) -> str | None:
    """What is wrong if no row is left.

    Args:
        name: Of the artefact that is trained.
        method: How.
        lengths: Tokens of each row's longer side.
        max_length: The limit.
    """
    if not lengths:
        return f"{name}: there is no pair to train on"
    if min(lengths) <= max_length:
        return None
    return (
        f"{name}: no pair to train on, all {len(lengths):,} are longer than max_length {max_length:,} tokens "
        f"(the shortest has {min(lengths):,}, the longest {max(lengths):,}): raise {_PLACES[method]}"
    )


@dataclass(frozen=True, slots=True)
class Writing:
    """What training one artefact writes, in bytes.

    Attributes:
        artefact: Weights.
        snapshot: Weights and optimiser states that a run resumes from.
        replaced: Of an artefact that is there already and goes when the new one is finished.
        left_over: Of snapshots of an earlier try, which are used or go.
    """

    artefact: int
    snapshot: int
    replaced: int = 0
    left_over: int = 0

    @classmethod
    def of(cls, parameters: int, trained: int, bytes_each: int, out: Path, work: Path) -> Writing:
        """Of a model with so many parameters.

        Args:
            parameters: Of the whole model.
            trained: Those that the optimiser changes; of adapters only these are in snapshots.
            bytes_each: Of a stored weight.
            out: Folder of the artefact.
            work: Folder of the snapshots.
        """
        return cls(parameters * bytes_each, trained * (4 + _ADAM_BYTES), _size(out), _size(work))


def disk_needed(writings: Sequence[Writing]) -> int:
    """Bytes that training artefacts one after the other takes at most beside what is on the disk now."""
    kept = most = 0
    for each in writings:
        most = max(most, kept + max(_SNAPSHOTS * each.snapshot, (_SNAPSHOTS - 1) * each.snapshot + each.artefact) - each.left_over)
        kept += each.artefact - each.replaced - each.left_over
    return most


def disk_problem(folder: Path, needed: int) -> str | None:
    """What is wrong if fewer than ``needed`` bytes are free under ``folder``, which need not be there yet."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if needed <= free:
        return None
    return (
        f"training needs {_told(needed)} under {there} for weights and snapshots with optimiser states, {_told(free)} are free: "
        "free space or set RLHI_DATA to another disk"
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _told(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
