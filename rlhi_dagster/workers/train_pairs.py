"""What the workers that train on preference pairs share: reading and measuring the rows, loading the start, and keeping the best snapshot.

What belongs here: what is the same for ``train_sft``, ``train_dpo``, ``train_kto``, ``train_sdpo`` and ``train_reward``. What does not:
what every training run shares, pairs or not (``train_loop.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from accelerate.state import PartialState
from datasets import Dataset, disable_caching
from peft import LoraConfig
from transformers import AutoModelForCausalLM, Trainer, set_seed

from rlhi_dagster.engines.chat_templates import load_tokenizer
from rlhi_dagster.engines.control_tokens import control_tokens_of
from rlhi_dagster.engines.unavailable import loading
from rlhi_dagster.training import memory_forecast
from rlhi_dagster.workers.artefact import finish
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.memory_gauge import Gauge, shape_of
from rlhi_dagster.workers.probe import Probe, prompts_for
from rlhi_dagster.workers.sharding import frozen_beside
from rlhi_dagster.workers.tokens import conversations
from rlhi_dagster.workers.train_loop import Report, fit, preflight


def said(text: str) -> list[dict[str, str]]:
    """A reply as TRL takes it."""
    return [{"role": "assistant", "content": text}]


class PairData:
    """The rows of a job that are short enough, its tokenizer, and how its start is loaded.

    Attributes:
        train: Rows to train on.
        validation: Rows of users who are not trained on.
        longest: Tokens of the longest conversation among both.
        tokenizer: The start's.
        facts: What the manifest will say beside what every training run says.
        report: Where progress lines go.
    """

    def __init__(self, job: TrainingJob, report: Report) -> None:
        """Read and measure the rows of ``job``.

        Raises:
            ValueError: No row is left to train on; the message says how many were too long.
        """
        self.job, self.report = job, report
        self._start: Any = None
        self.tokenizer = load_tokenizer(job.start)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.train, too_long, longest = self._rows(job.train)
        self.validation, _, longest_held_out = self._rows(job.validation)
        self.longest = max(longest, longest_held_out)
        if not self.train:
            limit = job.settings.max_length
            raise ValueError(f"{job.name}: no pair to train on ({too_long} are longer than max_length {limit} tokens)")
        self.facts: dict[str, Any] = {
            "pairs": len(self.train),
            "validation_pairs": len(self.validation),
            "pairs_too_long": too_long,
        }

    def datasets(self, row: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[Dataset, Dataset | None]:
        """Training and validation rows as a trainer takes them."""
        train, validation = (Dataset.from_list(list(map(row, rows))) if rows else None for rows in (self.train, self.validation))
        return train, validation

    def load_kwargs(self) -> dict[str, Any]:
        """How weights are loaded: in float32, unless only adapters are trained on weights in bfloat16; never from pickles."""
        settings = self.job.settings
        dtype = torch.bfloat16 if settings.lora and settings.bf16 else torch.float32
        return {"dtype": dtype, "use_safetensors": True, **self.job.start.load_kwargs()}

    def causal_model(self) -> Any:
        """The start as a language model, in main memory."""
        with loading(self.job.start, "models.policy"):
            return AutoModelForCausalLM.from_pretrained(self.job.start.source, **self.load_kwargs())

    def start_beside(self, trainer: Trainer) -> Any:
        """The start, frozen, beside a trainer's model; loaded when it is first asked for, and once."""
        if self._start is None:
            self._start = frozen_beside(trainer, self.causal_model())
        return self._start

    def adapters(self, task: str) -> LoraConfig | None:
        """The adapters to train, if the settings ask for some."""
        lora = self.job.settings.lora
        return lora and LoraConfig(task_type=task, r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear")

    def probe(self, trainer: Trainer) -> Probe | None:
        """What samples replies to held-out users while the policy trains; ``None`` if nothing is to."""
        if not self._is_sampled:
            return None
        settings, limit = self.job.settings, int(self.job.extra["reply_tokens"])
        most_tokens = min(limit, settings.probe_tokens)
        room = int(trainer.model.config.get_text_config().max_position_embeddings) - most_tokens
        prompts = prompts_for([row["prompt"] for row in self.validation], self.tokenizer, room, settings.probe_samples)
        is_cut = most_tokens < limit
        return Probe(trainer, self.tokenizer, prompts, most_tokens, lambda: self.start_beside(trainer), is_cut=is_cut) if prompts else None

    @property
    def _is_sampled(self) -> bool:
        """Whether the model writes replies, and there are users to sample some for."""
        return "reply_tokens" in self.job.extra and bool(self.validation) and self.job.settings.probe_samples > 0

    def forecast(self, available: float) -> memory_forecast.Forecast:
        """What training will take of each device, of which each has ``available`` GiB.

        Raises:
            memory.MemoryForecastError: It is more than that.
        """
        job, is_reward = self.job, self.job.method == "reward"
        on_cpu = not torch.cuda.is_available()
        is_distilled = job.method == "sdpo"
        load = memory_forecast.Load(
            1 if job.method in ("sft", "kto", "sdpo") else 2,
            self.longest,
            keeps_start=self._is_sampled or is_distilled,
            is_on_cpu=on_cpu,
            reply_logits=self._longest_reply() if is_distilled else 0,
        )
        shape = shape_of(job.start, has_head=not is_reward)
        if not on_cpu:
            whole = memory_forecast.loading(shape, job.settings)
            self.report(f"training {job.name}: each process loads weights into main memory first, up to {whole:.2f} GiB")
        return memory_forecast.check(job.name, shape, job.settings, load, PartialState().num_processes, available)

    def _longest_reply(self) -> int:
        """Tokens of the longest reply; chat templates may end it by one or two more."""
        return max(map(len, self.tokenizer([row["chosen"] for row in (*self.train, *self.validation)])["input_ids"]))

    def _rows(self, path: Path | None) -> tuple[list[dict[str, Any]], int, int]:
        rows = pl.read_parquet(path).to_dicts() if path else []
        said = [control_tokens_of(self.tokenizer).pair(row) for row in rows]
        return preflight(said, conversations, self.tokenizer, self.job.settings.max_length)


def train_on_pairs(build: Callable[[TrainingJob, PairData], Trainer]) -> Callable[[TrainingJob, Report], dict[str, Any]]:
    """A worker's work: train what ``build`` makes of a job, and return its manifest."""

    def train(job: TrainingJob, report: Report) -> dict[str, Any]:
        started = time.monotonic()
        disable_caching()
        set_seed(job.settings.seed)
        data, gauge = PairData(job, report), Gauge()
        forecast = data.forecast(gauge.available)
        report(f"training {job.name}: memory forecast {forecast}, {gauge.available:.2f} GiB a device are free")
        trainer = fit(job, lambda: build(job, data), report, data.probe)
        if len(trainer.train_dataset) != len(data.train):
            raise ValueError(
                f"{job.name}: the trainer kept {len(trainer.train_dataset)} of {len(data.train)} pairs; none may be lost silently"
            )
        held = {"forecast_gib": asdict(forecast), "available_gib": gauge.available, "measured_gib": gauge.peak()}
        return finish(job, trainer, data.tokenizer, started, memory=held, **data.facts)

    return train
