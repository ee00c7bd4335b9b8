"""Batches of rows of similar length: less padding, the same steps whatever the number of processes.

What belongs here: the order of an epoch's rows, what a row takes of a batch, and the share of padding. What does not: collating (TRL's).

An epoch is a random permutation, cut into windows of some optimiser steps. A window is sorted by length and cut into cells of a few rows;
the cells are shuffled, and as many as fill a step make one. So a forward pass reads rows of similar length, a step has rows of several
lengths, and no length has its time in an epoch. (``group_by_length`` of transformers sorts each megabatch from long to short.) Steps hang
on the rows of a step alone: how many processes share one, and how many rows each takes at once, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import Trainer

_WINDOW_STEPS = 50
"""Steps whose rows are sorted together, as many as in a megabatch of transformers."""
_CELL_ROWS = 8
"""Most rows that stay side by side."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What the rows of a data set take of a batch.

    Attributes:
        sequences: Sequences that one row becomes.
        tokens: Tokens of each row, in all its sequences: ``[rows]``.
        widths: Columns that each row needs: its longest sequence, ``[rows]``.
    """

    sequences: int
    tokens: np.ndarray
    widths: np.ndarray


def extent(rows: Dataset) -> Extent:
    """Extent of rows that TRL has tokenized for SFT (``input_ids``), DPO (``prompt_ids`` and the sides) or a reward model (the sides)."""
    if "input_ids" in rows.column_names:
        tokens = lengths(rows, "input_ids")
        return Extent(1, tokens, tokens)
    chosen, rejected = lengths(rows, "chosen_ids"), lengths(rows, "rejected_ids")
    prompt = lengths(rows, "prompt_ids") if "prompt_ids" in rows.column_names else 0
    return Extent(2, 2 * prompt + chosen + rejected, prompt + np.maximum(chosen, rejected))


def epoch_order(widths: np.ndarray, step_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Rows of an epoch in order, each once.

    Args:
        widths: Of each row, what to sort by.
        step_rows: Rows of an optimiser step, over all processes. The last step has what is left.
        seed: Together with ``epoch``, the only source of randomness.
        epoch: From 0.
    """
    draw = np.random.default_rng((seed, epoch))
    drawn = draw.permutation(len(widths))
    cell = max(rows for rows in range(1, min(step_rows, _CELL_ROWS) + 1) if step_rows % rows == 0)

    def by_width(rows: np.ndarray) -> np.ndarray:
        return rows[np.argsort(widths[rows], kind="stable")]

    whole = len(drawn) // step_rows
    steps = drawn[: whole * step_rows].reshape(whole, step_rows)
    ordered = []
    for window in np.array_split(steps, -(-whole // _WINDOW_STEPS) or 1):
        cells = draw.permutation(by_width(window.ravel()).reshape(-1, cell))
        ordered += [by_width(rows) for rows in cells.reshape(-1, step_rows)]
    return np.concatenate([*ordered, by_width(drawn[whole * step_rows :])])


def padded_fraction(rows: Extent, order: np.ndarray, micro_batch_size: int) -> float:
    """Share of padding among the tokens that forward passes of ``micro_batch_size`` rows each read, in an order; the rest is useful."""
    batches = [order[start : start + micro_batch_size] for start in range(0, len(order), micro_batch_size)]
    read = sum(len(batch) * rows.sequences * int(rows.widths[batch].max()) for batch in batches)
    return 1 - int(rows.tokens[order].sum()) / read


class LengthSortedSampler(Sampler[int]):
    """``epoch_order`` as a data loader takes it."""

    def __init__(self, widths: np.ndarray, step_rows: int, seed: int) -> None:
        """See ``epoch_order``."""
        self.widths, self.step_rows, self.seed, self.epoch = widths, step_rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Rows."""
        return len(self.widths)

    def __iter__(self) -> Iterator[int]:
        """Rows in order."""
        return iter(epoch_order(self.widths, self.step_rows, self.seed, self.epoch).tolist())


class LengthSorted(Trainer):
    """A trainer, TRL's by what stands beside this class, that draws rows in ``epoch_order``."""

    order: LengthSortedSampler

    def extent(self, rows: Dataset) -> Extent:
        """What rows take of a batch as this trainer reads it. The order does not hang on it."""
        return extent(rows)

    def padded_fraction(self) -> float:
        """Share of padding among the tokens that the first epoch reads."""
        order = np.array(list(self._get_train_sampler()), dtype=np.int64)
        return padded_fraction(self.extent(self.train_dataset), order, self.args.train_batch_size)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthSortedSampler:
        rows, given = self.train_dataset if train_dataset is None else train_dataset, self.args
        step_rows = given.train_batch_size * given.gradient_accumulation_steps * given.world_size
        self.order = LengthSortedSampler(extent(rows).widths, step_rows, given.seed if given.data_seed is None else given.data_seed)
        return self.order

    def _run_epoch(self, *, epoch: int, **given: Any) -> None:
        # The loader tells its sampler, too, but not when several processes resume: then it stands behind two wrappers.
        self.order.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **given)


def lengths(rows: Dataset, column: str) -> np.ndarray:
    """Length of the list that each row has in a column: ``[rows]``."""
    return pc.list_value_length(rows.with_format("arrow")[column][:]).to_numpy()
