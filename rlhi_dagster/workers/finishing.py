"""From a trained model to its artefact: weights, tokenizer, pair ids and manifest, written aside and put in place at once."""

from __future__ import annotations

import json
import platform
import shutil
import time
from importlib.metadata import version
from typing import Any

import polars as pl
import torch
from transformers import PreTrainedTokenizerBase, Trainer

from rlhi_dagster.engines.models import MANIFEST, weights_digest
from rlhi_dagster.training import gates
from rlhi_dagster.training.artefacts import PAIRS
from rlhi_dagster.workers.training_run import TrainingJob


def finish(job: TrainingJob, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, started: float, **facts: object) -> dict[str, Any]:
    """Write weights, tokenizer and manifest beside the artefact, then put them in its place; return the manifest."""
    partial = job.out.with_name(f".{job.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trainer.model.save_pretrained(partial, safe_serialization=True)
    tokenizer.save_pretrained(partial)
    evaluations = _points(trainer, "eval_loss")
    at = trainer.state.best_global_step or trainer.state.global_step
    chosen = {"step": at, "of": trainer.state.global_step, "by": gates.SELECTION if evaluations else "last step: no held-out pair"}
    held_out = next((point for point in evaluations if point["step"] == at), {})
    manifest = {
        "model": {"name": f"rlhi-{job.name}", "revision": weights_digest(partial), "path": "."},
        "inputs": job.inputs,
        "method": job.method,
        "start": job.model.identity if job.model else None,
        "settings": job.settings.model_dump(),
        "steps": _points(trainer, "loss"),
        "evaluations": evaluations,
        "chosen": chosen,
        "validation": {name.removeprefix("eval_"): value for name, value in held_out.items() if name.startswith("eval_")},
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


def _points(trainer: Trainer, what: str) -> list[dict[str, float]]:
    """What the trainer logged together with ``what``; of a step that was logged twice, because the run resumed there, the first."""
    points: dict[int, dict[str, float]] = {}
    for entry in trainer.state.log_history:
        if what in entry:
            numbers = {name: float(value) for name, value in entry.items() if name != "step"}
            points.setdefault(int(entry["step"]), {"step": int(entry["step"]), **numbers})
    return [points[step] for step in sorted(points)]
