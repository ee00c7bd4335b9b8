"""What a training worker is asked to make: one artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.training.settings import OF_METHOD, TrainingSettings


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One artefact to train.

    Attributes:
        name: Name of the artefact, for progress and the model's name.
        method: ``policy``, ``sft``, ``dpo``, ``kto``, ``sdpo`` or ``reward``.
        model: Starting model; ``None`` for a fresh one.
        train: Parquet of training rows.
        validation: Parquet of validation rows (may be empty).
        settings: How to train.
        out: Folder of the artefact.
        inputs: Digest of everything that determines the result; an artefact with the same digest is kept as it is.
        store: Root of the response store.
        extra: What the method needs beside that: of the town's policy its shape, of a recipe what it shows and how long replies are.
        origin: Where the rows come from, for the manifest: see ``training.origin``.
        events: Folder of TensorBoard event files; ``None`` for none.
    """

    name: str
    method: str
    model: ModelRef | None
    train: Path
    validation: Path | None
    settings: TrainingSettings
    out: Path
    inputs: str
    store: Path
    extra: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)
    events: Path | None = None

    @classmethod
    def from_dict(cls, job: dict[str, Any]) -> TrainingJob:
        """Read a job from Pipes extras."""
        return cls(
            name=job["name"],
            method=job["method"],
            model=ModelRef(**job["model"]) if job["model"] else None,
            train=Path(job["train"]),
            validation=Path(job["validation"]) if job["validation"] else None,
            settings=OF_METHOD.get(job["method"], TrainingSettings)(**job["settings"]),
            out=Path(job["out"]),
            inputs=job["inputs"],
            store=Path(job["store"]),
            extra=job["extra"],
            origin=job.get("origin", {}),
            events=Path(job["events"]) if job.get("events") else None,
        )

    @property
    def start(self) -> ModelRef:
        """The starting model of a job that has one."""
        assert self.model
        return self.model

    @property
    def work(self) -> Path:
        """Where snapshots lie while the run is not finished."""
        return self.out.with_name(f".{self.out.name}.training")

    @property
    def partial(self) -> Path:
        """Where the artefact is written before it gets its name."""
        return self.out.with_name(f".{self.out.name}.partial")
