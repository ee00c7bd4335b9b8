"""Whether training jobs can begin, by configuration and tokenizer of their starts, before any weights are loaded.

What belongs here: what has to be read from a model for the checks. What does not: the bounds and the sentences
(``training/preflight.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from jinja2.exceptions import TemplateError
from transformers import AutoConfig

from rlhi_dagster.engines.chat_templates import load_tokenizer
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.unavailable import loading
from rlhi_dagster.training.policy import TownPolicy
from rlhi_dagster.training.preflight import NotReadyError, Writing, context_problem, disk_needed, disk_problem, lengths_problem
from rlhi_dagster.workers.memory_gauge import shape_of
from rlhi_dagster.workers.tokens import conversations, token_counts

if TYPE_CHECKING:
    from rlhi_dagster.workers.job import TrainingJob

_FLOAT32_BYTES, _BFLOAT16_BYTES = 4, 2


def check(jobs: Sequence[TrainingJob]) -> None:
    """Look for whatever would stop one of ``jobs``, which are trained one after the other, so that nothing is trained in vain.

    Raises:
        UnavailableModelError: A start cannot be loaded.
        NotReadyError: A job cannot be trained; the message tells of all that cannot.
    """
    models = {job.model for job in jobs if job.model}
    starts = {model: Start(model) for model in models}
    problems = [problem for job in jobs if job.model for problem in starts[job.model].problems(job)]
    if jobs:
        needed = disk_needed([_writing(job, starts[job.model] if job.model else None) for job in jobs])
        problems += filter(None, [disk_problem(jobs[0].out.parent, needed)])
    if problems:
        raise NotReadyError("; ".join(problems))


class Start:
    """Configuration and tokenizer of the model that a job starts from.

    Attributes:
        tokenizer: Its tokenizer.
        context: Longest sequence in tokens; ``None`` where the configuration does not say.
        shape: The model without weights.
    """

    def __init__(self, model: ModelRef) -> None:
        """Read them.

        Raises:
            UnavailableModelError: There is no such model, or it has none.
        """
        self.model = model
        with loading(model, "models.policy"):
            if model.path and not list(Path(model.path).glob("*.safetensors")):
                raise FileNotFoundError("there is no .safetensors file")
            config = AutoConfig.from_pretrained(model.source, **model.load_kwargs())
            self.tokenizer = load_tokenizer(model)
            self.shape = shape_of(model)
        self.context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)

    def problems(self, job: TrainingJob) -> Iterator[str]:
        """What would stop ``job``."""
        limit = job.settings.max_length
        if not self.tokenizer.chat_template:
            yield (
                f"{job.name}: the tokenizer of {self.model.name} has no chat template, so there is no telling how it reads a conversation: "
                "set models.policy to a chat model, or put a chat_template.jinja into its folder"
            )
            return
        if self.context and (problem := context_problem(job.name, job.method, limit, self.model.name, self.context)):
            yield problem
        try:
            lengths = self._lengths(job)
        except TemplateError as error:
            yield f"{job.name}: the chat template of {self.model.name} refuses a pair ({error}): set models.policy to another model"
            return
        if problem := lengths_problem(job.name, job.method, lengths, limit):
            yield problem

    def _lengths(self, job: TrainingJob) -> list[int]:
        """Tokens of the longer side of each pair, up to the first one that is short enough."""
        lengths: list[int] = []
        for row in pl.read_parquet(job.train).iter_rows(named=True):
            lengths.append(max(token_counts(conversations(row), self.tokenizer)))
            if lengths[-1] <= job.settings.max_length:
                break
        return lengths


def _writing(job: TrainingJob, start: Start | None) -> Writing:
    parameters = start.shape.parameters if start else TownPolicy(**job.extra).parameters
    lora = job.settings.lora
    trained = lora.rank * start.shape.adapted if start and lora else parameters
    return Writing.of(parameters, trained, _BFLOAT16_BYTES if lora and job.settings.bf16 else _FLOAT32_BYTES, job.out, job.work)
