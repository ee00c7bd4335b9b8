"""From a trained model to its artefact: weights, tokenizer, pair ids, manifest, card and curves, written aside and put in place at once."""

from __future__ import annotations

import shutil
import time
from typing import Any

import polars as pl
from transformers import PreTrainedTokenizerBase, Trainer

from rlhi_dagster.engines.models import read_manifest, weights_digest, write_manifest
from rlhi_dagster.training import curves, gates, model_card
from rlhi_dagster.training.artefacts import put_in_place, trained_pairs, write_pairs
from rlhi_dagster.workers import environment
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.weights import save_weights


def finish(job: TrainingJob, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, started: float, **facts: object) -> dict[str, Any]:
    """Write weights, tokenizer and manifest beside the artefact, then put them in its place; return the manifest.

    Every process takes part in gathering the weights; the first one writes.

    Raises:
        ValueError: There are held-out pairs, and no snapshot has a finite loss on them.
    """
    evaluations = _points(trainer, "eval_loss")
    step = _chosen_step(job, trainer, evaluations)
    trainer.model.config.use_cache = True  # training turns it off, and whoever loads the weights would generate without a cache
    partial = job.partial
    save_weights(trainer, partial)
    if not trainer.accelerator.is_main_process:
        trainer.accelerator.wait_for_everyone()
        return read_manifest(job.out)
    tokenizer.save_pretrained(partial)
    held_out = next((point for point in evaluations if point["step"] == step), {})
    earlier = trained_pairs(job.model)
    manifest = {
        "model": {"name": f"rlhi-{job.name}", "revision": weights_digest(partial), "path": "."},
        "inputs": job.inputs,
        "method": job.method,
        "start": {"name": job.model.name, "revision": job.model.revision, "is_on_hub": job.model.path is None} if job.model else None,
        "extra": dict(job.extra),
        "settings": job.settings.model_dump(),
        "effective_batch": trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size,
        "world_size": trainer.args.world_size,
        "steps": _points(trainer, "loss"),
        "evaluations": evaluations,
        "chosen": gates.choice(evaluations, step, trainer.state.global_step, job.settings),
        "validation": {name.removeprefix("eval_"): value for name, value in held_out.items() if name.startswith("eval_")},
        "seconds": round(time.monotonic() - started, 1),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "trained_rows": len(trainer.train_dataset),
        "earlier_pairs": len(earlier),
        "data": dict(job.origin),
        "code": environment.code(),
        "hardware": environment.hardware(),
        "packages": environment.packages(),
        **facts,
    }
    if "pair_id" in pl.read_parquet_schema(job.train):
        write_pairs(partial, pl.concat([earlier, pl.read_parquet(job.train, columns=["pair_id"])]))
    manifest = write_manifest(partial, manifest)
    (partial / model_card.FILE).write_text(model_card.card(manifest), encoding="utf-8")
    curves.picture(partial, manifest)
    put_in_place(partial, job.out)
    shutil.rmtree(job.work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return manifest


def _chosen_step(job: TrainingJob, trainer: Trainer, evaluations: list[dict[str, float]]) -> int:
    """The step of the snapshot whose weights the trainer holds: the best one, or without held-out pairs the last."""
    best = trainer.state.best_global_step
    if evaluations and best is None:
        raise ValueError(f"{job.name}: no snapshot has a finite loss on held-out users; lower the learning rate")
    return int(trainer.state.global_step if best is None else best)


def _points(trainer: Trainer, what: str) -> list[dict[str, float]]:
    """What the trainer logged together with ``what``; of a step that was logged twice, because the run resumed there, the first."""
    points: dict[int, dict[str, float]] = {}
    for entry in trainer.state.log_history:
        if what in entry:
            numbers = {name: float(value) for name, value in entry.items() if name != "step"}
            points.setdefault(int(entry["step"]), {"step": int(entry["step"]), **numbers})
    return [points[step] for step in sorted(points)]
