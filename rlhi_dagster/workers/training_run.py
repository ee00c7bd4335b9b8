"""What every training worker shares: preflight, resuming, curves and the finished artefact.

A run trains in a hidden folder beside its artefact and resumes there from the last complete snapshot; the artefact appears by one rename.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from rlhi_dagster.engines.models import MANIFEST, ModelRef, weights_digest
from rlhi_dagster.training.artefacts import PAIRS
from rlhi_dagster.training.settings import TrainingSettings
from rlhi_dagster.workers.progress import Progress
from rlhi_dagster.workers.tokens import token_counts


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One artefact to train.

    Attributes:
        name: Name of the artefact, for progress and the model's name.
        method: ``policy``, ``sft``, ``dpo`` or ``reward``.
        model: Starting model; ``None`` for a fresh one.
        train: Parquet of training rows.
        validation: Parquet of validation rows (may be empty).
        settings: How to train.
        out: Folder of the artefact.
        inputs: Digest of everything that determines the result; an artefact with the same digest is kept as it is.
    """

    name: str
    method: str
    model: ModelRef | None
    train: Path
    validation: Path | None
    settings: TrainingSettings
    out: Path
    inputs: str

    @classmethod
    def from_dict(cls, job: dict[str, Any]) -> TrainingJob:
        """Read a job from Pipes extras."""
        return cls(
            name=job["name"],
            method=job["method"],
            model=ModelRef(**job["model"]) if job["model"] else None,
            train=Path(job["train"]),
            validation=Path(job["validation"]) if job["validation"] else None,
            settings=TrainingSettings(**job["settings"]),
            out=Path(job["out"]),
            inputs=job["inputs"],
        )

    @property
    def work(self) -> Path:
        """Where snapshots lie while the run is not finished."""
        return self.out.with_name(f".{self.out.name}.training")


def arguments(job: TrainingJob) -> dict[str, Any]:
    """The part of the trainers' configuration that all methods share."""
    settings = job.settings
    if settings.batch_size % settings.micro_batch_size:
        raise ValueError(f"{job.name}: batch_size {settings.batch_size} is not a multiple of micro_batch_size {settings.micro_batch_size}")
    return {
        "output_dir": str(job.work),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.micro_batch_size,
        "per_device_eval_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.batch_size // settings.micro_batch_size,
        "gradient_checkpointing": torch.cuda.is_available(),
        "warmup_steps": settings.warmup_steps,
        "lr_scheduler_type": "cosine",
        "adam_beta2": 0.95,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "save_steps": settings.save_steps,
        "save_total_limit": 1,
        "logging_steps": settings.logging_steps,
        "logging_first_step": True,
        "report_to": [],
        "disable_tqdm": True,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "dataloader_num_workers": 0,
    }


def preflight(
    rows: Sequence[dict[str, Any]],
    texts: Callable[[dict[str, Any]], list[list[dict[str, str]]]],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
) -> tuple[list[dict[str, Any]], int]:
    """Leave out rows of which some conversation has more than ``limit`` tokens.

    Returns:
        The rows that fit, and the number of rows left out.
    """

    def fits(row: dict[str, Any]) -> bool:
        return max(token_counts(texts(row), tokenizer)) <= limit

    kept = [row for row in rows if fits(row)]
    return kept, len(rows) - len(kept)


class _Report(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        self.progress(state.global_step, state.max_steps)


def is_finished(job: TrainingJob) -> bool:
    """Whether the artefact is there and was made from the same inputs."""
    manifest = job.out / MANIFEST
    return manifest.is_file() and json.loads(manifest.read_text())["inputs"] == job.inputs


def fit(job: TrainingJob, build: Callable[[], Trainer], report: Callable[[str], None]) -> Trainer:
    """Train, from the last complete snapshot of the same job if there is one."""
    marker = job.work / "inputs"
    if not marker.is_file() or marker.read_text() != job.inputs:
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(parents=True)
        marker.write_text(job.inputs)
    trainer = build()
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Report(Progress(report, f"training {job.name}")))
    snapshot = _last_snapshot(job.work)
    if snapshot:
        report(f"training {job.name}: resuming from {snapshot.name}")
    trainer.train(resume_from_checkpoint=str(snapshot) if snapshot else None)
    return trainer


def _last_snapshot(work: Path) -> Path | None:
    """The latest snapshot whose last-written file is there; a kill while saving leaves one without it, which is removed."""
    complete: list[tuple[int, Path]] = []
    for folder in work.glob("checkpoint-*"):
        if (folder / "trainer_state.json").is_file():
            complete.append((int(folder.name.removeprefix("checkpoint-")), folder))
        else:
            shutil.rmtree(folder)
    return max(complete)[1] if complete else None


def finish(job: TrainingJob, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, started: float, **facts: object) -> dict[str, Any]:
    """Write weights, tokenizer and manifest beside the artefact, then put them in its place; return the manifest."""
    partial = job.out.with_name(f".{job.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trainer.model.save_pretrained(partial, safe_serialization=True)
    tokenizer.save_pretrained(partial)
    steps = [
        {name: float(value) if name != "step" else int(value) for name, value in entry.items()}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    manifest = {
        "model": {"name": f"rlhi-{job.name}", "revision": weights_digest(partial), "path": "."},
        "inputs": job.inputs,
        "method": job.method,
        "start": job.model.identity if job.model else None,
        "settings": job.settings.model_dump(),
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "hardware": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "packages": {name: version(name) for name in ("torch", "transformers", "trl")},
        **facts,
    }
    if "pair_id" in pl.read_parquet_schema(job.train):
        pl.read_parquet(job.train, columns=["pair_id"]).write_parquet(partial / PAIRS)
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
    if job.out.exists():
        old = job.out.with_name(f".{job.out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        job.out.rename(old)
        partial.rename(job.out)
        shutil.rmtree(old)
    else:
        partial.rename(job.out)
    shutil.rmtree(job.work, ignore_errors=True)
    return manifest
