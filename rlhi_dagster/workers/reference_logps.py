"""The reference's log-probabilities of pairs, kept in the response store by content: each pair is computed once, whatever set it is in.

What belongs here: finding what the store lacks, computing it with TRL's own arithmetic, and handing TRL the columns it reads. What does
not: the keys (``training/reference_keys.py``) and the loss (TRL's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import DPOTrainer

from rlhi_dagster.base.progress import Progress
from rlhi_dagster.engines.base import ChatRequest, trace
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.reference_keys import KIND, reference_key, told
from rlhi_dagster.training.settings import DPOSettings
from rlhi_dagster.workers.batching import extent
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.sharding import share_out
from rlhi_dagster.workers.train_loop import Report

COLUMNS = {"ref_chosen_logps": "chosen_logp", "ref_rejected_logps": "rejected_logp"}
"""What TRL reads in a row, and the store's names of it."""
_CHUNK_PAIRS = 256
"""Pairs of a stored segment: what a kill can cost."""


@dataclass(frozen=True, slots=True)
class References:
    """Log-probabilities of pairs under the model that training starts from.

    Attributes:
        store: Where they are kept.
        start: The model.
        settings: Of the training run.
        report: Where progress lines go.
    """

    store: ResponseStore
    start: ModelRef
    settings: DPOSettings
    report: Report

    @classmethod
    def of(cls, job: TrainingJob, settings: DPOSettings, report: Report) -> References:
        """Those that a job needs."""
        return cls(ResponseStore(job.store, KIND, job.start.identity), job.start, settings, report)

    def key(self, row: Mapping[str, Any]) -> str:
        """Key of a training row."""
        return reference_key(self.start, row, self.settings)

    def keep(self, pairs: list[dict[str, Any]]) -> None:
        """Keep what was computed of some pairs: ``row``, ``chosen_logp`` and ``rejected_logp`` each."""
        kept = [
            {
                "key": self.key(row := pair.pop("row")),
                **pair,
                "settings": told(row, self.settings),
                **asdict(trace(ChatRequest(row["prompt"]))),
            }
            for pair in pairs
        ]
        self.store.append(pl.DataFrame(kept, schema=self.store.schema))


class StoredReferences(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer with the reference's log-probabilities from the response store; what is missing there is computed and kept.

    TRL keeps its own by the digest of the whole data set: one pair more, and all are computed again. Without a reference model it would
    hash the policy's weights for that, and load them a second time where they are to be sharded; it gets one without weights. Before
    training the policy, its adapters off, is the reference.
    """

    def __init__(self, *args: Any, references: References, **kwargs: Any) -> None:
        """See ``DPOTrainer``; conversations end with one assistant message a side."""
        self.references = references
        super().__init__(*args, ref_model=Weightless(kwargs["model"].config), **kwargs)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        self.ref_model = None
        share_out(self)
        rows = [_training_row(row) for row in dataset.select_columns(["prompt", "chosen", "rejected"])]
        keys = pl.Series("key", [self.references.key(row) for row in rows], dtype=pl.String())
        order = self._lacking(dataset, keys)
        self.references.report(f"reference log-probabilities, {name}: {len(rows) - len(order):,} of {len(rows):,} pairs are known")
        if order:
            self._compute(dataset, rows, order, name, batch_size)
        found = self.references.store.lookup(keys)
        place = dict(zip(found["key"], range(len(found)), strict=True))
        at = [place[key] for key in keys]
        for column, stored in COLUMNS.items():
            dataset = dataset.add_column(column, found[stored].to_numpy()[at])
        return dataset

    def _lacking(self, dataset: Dataset, keys: pl.Series) -> list[int]:
        """Rows to compute, a pair that is there twice once, the longest first; what the main process finds counts for all."""
        missing = self.references.store.missing(keys)
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        order = [longest_first(dataset, [first[key] for key in missing])]
        broadcast_object_list(order, from_process=0)
        return order[0]

    def _compute(self, dataset: Dataset, rows: list[dict[str, Any]], order: list[int], name: str, batch_size: int) -> None:
        tokens = extent(dataset).tokens
        total, done = int(tokens[order].sum()), 0
        progress = Progress(self.references.report, f"reference log-probabilities, {name}, tokens")
        chunk: list[dict[str, Any]] = []
        for row, (chosen, rejected) in zip(order, self._log_probabilities(dataset.select(order), batch_size), strict=True):
            chunk.append({"row": rows[row], "chosen_logp": chosen, "rejected_logp": rejected})
            done += int(tokens[row])
            if self.accelerator.is_main_process and (len(chunk) == _CHUNK_PAIRS or done == total):
                self.references.keep(chunk)
                chunk = []
                progress(done, total)
        self.accelerator.wait_for_everyone()

    def _log_probabilities(self, dataset: Dataset, batch_size: int) -> Iterator[tuple[float, float]]:
        """Of each pair in order, computed by all processes together, as TRL does it."""
        for batch in self.batches(dataset, batch_size):
            found = self.accelerator.gather_for_metrics(self.compute_ref_log_probs(self.model, batch))
            yield from zip(*(side.float().tolist() for side in found), strict=True)

    def batches(self, dataset: Dataset, batch_size: int) -> Iterator[dict[str, Any]]:
        """Rows in order, collated, of each batch this process's part."""
        yield from self.accelerator.prepare(DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator, shuffle=False))


def longest_first(dataset: Dataset, rows: Sequence[int]) -> list[int]:
    """``rows`` of a data set in the order in which the reference is computed."""
    given = np.array(rows, dtype=np.int64)
    return list(given[np.argsort(-extent(dataset).widths[given], kind="stable")].tolist())


class Weightless(torch.nn.Module):
    """Stands where TRL asks for a reference model."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


def _training_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``pair_sets.TRAINING_ROWS`` from the conversations that TRL takes."""
    ((chosen,), (rejected,)) = row["chosen"], row["rejected"]
    return {"prompt": row["prompt"], "chosen": chosen["content"], "rejected": rejected["content"]}
