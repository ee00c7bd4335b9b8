"""Worker: train checkpoints from preference pairs, by DPO or by fine-tuning on the chosen replies, and reward models, with TRL.

Job (Pipes extras): ``jobs``, a list of ``TrainingJob``. Rows are Parquet of ``prompt`` (messages, with the persona where the recipe says
so), ``chosen`` and ``rejected``. Finished artefacts of the same inputs are left alone. Reports one custom message per job.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.engines.models import MANIFEST
from rlhi_dagster.workers.tokens import replied


def _conversations(row: dict[str, Any]) -> list[list[dict[str, str]]]:
    return [replied(row["prompt"], row[side]) for side in ("chosen", "rejected")]


def _rows(path: Path | None) -> list[dict[str, Any]]:
    return pl.read_parquet(path, columns=["prompt", "chosen", "rejected"]).to_dicts() if path else []


def train(job: Any, report: Callable[[str], None]) -> dict[str, Any]:
    """Train one artefact and return its manifest.

    Raises:
        ValueError: No row is left to train on; the message says how many were too long.
    """
    import torch
    from datasets import Dataset, disable_caching
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, Trainer, set_seed
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    from rlhi_dagster.workers.shared_prefix import SharedPrefixDPOTrainer
    from rlhi_dagster.workers.training_run import arguments, finish, fit, preflight

    started = time.monotonic()
    disable_caching()
    set_seed(job.settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.model.source, **job.model.load_kwargs())
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    train_rows, too_long = preflight(_rows(job.train), _conversations, tokenizer, job.settings.max_length)
    validation_rows, _ = preflight(_rows(job.validation), _conversations, tokenizer, job.settings.max_length)
    if not train_rows:
        raise ValueError(f"{job.name}: no pair to train on ({too_long} are longer than max_length {job.settings.max_length} tokens)")
    facts: dict[str, Any] = {"pairs": len(train_rows), "validation_pairs": len(validation_rows), "pairs_too_long": too_long}

    def dataset(rows: list[dict[str, Any]]) -> Dataset:
        def said(text: str) -> list[dict[str, str]]:
            return [{"role": "assistant", "content": text}]

        if job.method == "sft":
            return Dataset.from_list([{"prompt": row["prompt"], "completion": said(row["chosen"])} for row in rows])
        return Dataset.from_list(
            [{"prompt": row["prompt"], "chosen": said(row["chosen"]), "rejected": said(row["rejected"])} for row in rows]
        )

    # Too long rows are left out and counted by `preflight`; the trainer must neither cut nor drop any.
    shared = arguments(job) | {"max_length": None}
    load: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, **job.model.load_kwargs()}
    data: dict[str, Any] = {
        "train_dataset": dataset(train_rows),
        "eval_dataset": dataset(validation_rows) if validation_rows else None,
        "processing_class": tokenizer,
    }

    def build() -> Trainer:
        if job.method == "reward":
            scorer = AutoModelForSequenceClassification.from_pretrained(job.model.source, num_labels=1, **load)
            scorer.config.pad_token_id = tokenizer.pad_token_id
            return RewardTrainer(model=scorer, args=RewardConfig(**shared), **data)
        model = AutoModelForCausalLM.from_pretrained(job.model.source, **load)
        if job.method == "sft":
            return SFTTrainer(model=model, args=SFTConfig(**shared), **data)
        losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, job.settings.sft_weight]} if job.settings.sft_weight else {}
        config = DPOConfig(**shared, beta=job.settings.beta, precompute_ref_log_probs=True, **losses)
        trainer = (SharedPrefixDPOTrainer if job.settings.shared_prefix else DPOTrainer)(model=model, args=config, **data)
        facts["step0_loss"] = _dpo_loss(trainer)
        return trainer

    trainer = fit(job, build, report)
    if len(trainer.train_dataset) != len(train_rows):
        raise ValueError(f"{job.name}: the trainer kept {len(trainer.train_dataset)} of {len(train_rows)} pairs; none may be lost silently")
    if validation_rows:
        facts["validation"] = {name.removeprefix("eval_"): float(value) for name, value in trainer.evaluate().items()}
    return finish(job, trainer, tokenizer, started, **facts)


def _dpo_loss(trainer: Any) -> float:
    """The DPO loss alone on the first batch before any step: ln 2 if policy and reference agree."""
    import torch

    kept = trainer.loss_types, trainer.loss_weights
    trainer.loss_types, trainer.loss_weights = ["sigmoid"], [1.0]
    trainer.model.eval()
    with torch.no_grad():
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        loss = float(trainer.compute_loss(trainer.model, batch))
    trainer.loss_types, trainer.loss_weights = kept
    trainer._metrics["train"].clear()
    trainer._metrics["eval"].clear()
    return loss


def main() -> None:
    """Run the jobs that Pipes hands over."""
    with open_dagster_pipes():
        pipes = PipesContext.get()
        from rlhi_dagster.workers.training_run import TrainingJob, is_finished

        for entry in pipes.extras["jobs"]:
            job = TrainingJob.from_dict(entry)
            reused = is_finished(job)
            manifest = json.loads((job.out / MANIFEST).read_text()) if reused else train(job, pipes.log.info)
            pipes.report_custom_message({"name": job.name, "reused": reused, "seconds": manifest["seconds"]})


if __name__ == "__main__":
    main()
