"""What every training worker shares: the job, serving jobs, preflight and resuming.

A run trains in a hidden folder beside its artefact and resumes there from the last complete snapshot; the artefact appears by one rename.
What belongs here: what is the same for the town's policy and for training on pairs. What does not: training on pairs
(``train_pairs.py``), what is told and judged on the way (``watch.py``) and the finished artefact (``artefact.py``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from rlhi_dagster.engines.models import read_manifest
from rlhi_dagster.training import gates
from rlhi_dagster.training.artefacts import made_of
from rlhi_dagster.training.settings import warmup_steps
from rlhi_dagster.workers import emulated, launch, preflight_check, sharding
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.parent import end_with_parent
from rlhi_dagster.workers.probe import Probe
from rlhi_dagster.workers.stopping import StopAtSignal
from rlhi_dagster.workers.tokens import token_counts
from rlhi_dagster.workers.watch import Watch

Report = Callable[[str], None]
"""Where progress lines go."""
_PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one may be writing a large artefact."""


def arguments(job: TrainingJob, rows: int, *, has_held_out: bool) -> dict[str, Any]:
    """The part of the trainers' configuration that all methods share.

    Args:
        job: What is trained.
        rows: How many there are to train on.
        has_held_out: Whether there are held-out rows, so that the best snapshot on them can be kept.
    """
    settings = job.settings
    held_out = {
        "eval_strategy": "steps",
        "eval_steps": settings.save_steps,
        "eval_on_start": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": gates.SELECTION,
        "greater_is_better": False,
    }
    return {
        "output_dir": str(job.work),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.micro_batch_size,
        "per_device_eval_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.batch_size // (settings.micro_batch_size * PartialState().num_processes),
        "gradient_checkpointing": settings.gradient_checkpointing,
        "warmup_steps": warmup_steps(settings, rows),
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
        "include_num_input_tokens_seen": "all",
        "ddp_find_unused_parameters": False,
        **sharding.arguments(settings),
        **(held_out if has_held_out else {}),
    }


def preflight(
    rows: Sequence[dict[str, Any]],
    texts: Callable[[dict[str, Any]], list[list[dict[str, str]]]],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
) -> tuple[list[dict[str, Any]], int, int]:
    """Leave out rows of which some conversation has more than ``limit`` tokens.

    Returns:
        The rows that fit, the number of rows left out, and the tokens of the longest conversation that fits.
    """
    counts = [max(token_counts(texts(row), tokenizer)) for row in rows]
    kept = [row for row, count in zip(rows, counts, strict=True) if count <= limit]
    return kept, len(rows) - len(kept), max((count for count in counts if count <= limit), default=0)


def serve(train: Callable[[TrainingJob, Report], dict[str, Any]]) -> None:
    """Run the jobs that Pipes hands over, one after the other; those whose artefact is there already are passed over.

    All that this worker and those after it will train is checked before the first. Every process that trains runs this (``launch.py``).
    """
    end_with_parent()
    with launch.open_pipes() as pipes, told():
        meet()
        jobs, later = ([TrainingJob.from_dict(entry) for entry in pipes.extras[part]] for part in ("jobs", "later"))
        preflight_check.check([job for job in [*jobs, *later] if not is_finished(job)])
        for job in jobs:
            reused = is_finished(job)
            with _half_written_removed(job):
                manifest = read_manifest(job.out) if reused else train(job, pipes.log.info)
            pipes.report_custom_message({"name": job.name, "reused": reused, "seconds": manifest["seconds"]})


def meet() -> None:
    """Connect the processes that train together, if there are several: NCCL on GPUs, gloo on the CPU."""
    PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def is_finished(job: TrainingJob) -> bool:
    """Whether the artefact is there and was made from the same inputs."""
    return made_of(job.out, job.inputs) is not None


def fit(job: TrainingJob, build: Callable[[], Trainer], report: Report, probe: Callable[[Trainer], Probe | None] | None = None) -> Trainer:
    """Train, from the last complete snapshot of the same job if there is one.

    Args:
        job: What is trained.
        build: Makes the trainer.
        report: Where progress lines go.
        probe: What samples from the trainer's policy at each evaluation.
    """
    processes = PartialState()
    if processes.is_main_process:
        emulated.tell("bf16 to false", lambda told: report(f"training {job.name}: {told}"), is_bfloat16=job.settings.bf16)
        _prepare_work(job)
    processes.wait_for_everyone()
    snapshot = _last_snapshot(job.work)
    trainer = build()
    sharding.share_out(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Watch(job.name, job.settings, trainer, report, probe(trainer) if probe else None, job.events))
    trainer.add_callback(StopAtSignal(job.name, report))
    if sharding.is_sharded(job.settings):
        trainer.add_callback(sharding.FolderFirst())
    if snapshot:
        report(f"training {job.name}: resuming from {snapshot.name}")
        trainer.args.eval_on_start = False
    trainer.train(resume_from_checkpoint=str(snapshot) if snapshot else None)
    return trainer


def _prepare_work(job: TrainingJob) -> None:
    """Leave in the work folder what this job can resume from: whole snapshots of the same inputs."""
    marker = job.work / "inputs"
    if not marker.is_file() or marker.read_text() != job.inputs:
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(parents=True)
        marker.write_text(job.inputs)
    _remove_half_written(job)


@contextmanager
def _half_written_removed(job: TrainingJob) -> Iterator[None]:
    """Let an error pass, but leave no half-written files behind, which would be the largest on a full disk."""
    try:
        yield
    except Exception:
        if PartialState().is_main_process:
            _remove_half_written(job)
        raise


def _remove_half_written(job: TrainingJob) -> None:
    """Of snapshots and the artefact. A kill or a full disk leaves a snapshot without the whole file that is written last."""
    shutil.rmtree(job.partial, ignore_errors=True)
    for folder in job.work.glob("checkpoint-*"):
        if not _is_whole(folder):
            shutil.rmtree(folder)


def _is_whole(snapshot: Path) -> bool:
    try:
        json.loads((snapshot / "trainer_state.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return True


def _last_snapshot(work: Path) -> Path | None:
    return max(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.removeprefix("checkpoint-")), default=None)
