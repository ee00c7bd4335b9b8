"""Length-sorted batches: every row once, less padding, the same steps for any number of processes, and after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler
from transformers import Trainer, TrainingArguments

from rlhi_dagster.workers.batching import Extent, LengthSorted, LengthSortedSampler, epoch_order, extent, padded_fraction
from rlhi_dagster.workers.dpo_shared_prefix import packed_extent


def spread(rows: int, seed: int = 0) -> np.ndarray:
    """Widths as of chat logs: many short, some long."""
    return np.random.default_rng(seed).lognormal(5, 0.8, rows).astype(np.int64) + 10


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 300), st.integers(1, 48), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_has_every_row_once(rows: int, step_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(spread(rows), step_rows, seed, epoch)
    assert sorted(order.tolist()) == list(range(rows))
    assert order.tolist() == epoch_order(spread(rows), step_rows, seed, epoch).tolist()


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order(spread(200), 8, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(("step_rows", "micro"), [(4, 4), (16, 2), (48, 4), (48, 8)])
def test_there_is_less_padding_than_in_random_order(step_rows: int, micro: int) -> None:
    widths = spread(960)
    rows = Extent(1, widths, widths)
    by_length = padded_fraction(rows, epoch_order(widths, step_rows, 0, 0), micro)
    by_chance = padded_fraction(rows, np.random.default_rng(0).permutation(960), micro)
    assert by_length < by_chance / 4


def test_no_length_has_its_time_and_a_step_has_several_lengths() -> None:
    widths = spread(4_800)
    steps = widths[epoch_order(widths, 48, 0, 0)].reshape(-1, 48)
    place = np.corrcoef(np.arange(len(steps)), steps.mean(1))[0, 1]
    assert abs(place) < 0.2
    assert np.median(steps.std(1)) > 0.4 * widths.std(), "a step of one length would pull one way"
    sorted_apart = np.sort(widths).reshape(-1, 48)
    assert np.median(sorted_apart.std(1)) < 0.1 * widths.std(), "the bound above tells the two apart"


def batches(sampler: LengthSortedSampler, micro: int, processes: int) -> list[list[list[int]]]:
    """What each process reads, as accelerate deals it out."""
    shards = [BatchSamplerShard(BatchSampler(sampler, micro, drop_last=False), processes, index) for index in range(processes)]
    return [list(shard) for shard in shards]


@pytest.mark.parametrize(("micro", "processes"), [(2, 2), (4, 2), (2, 4), (1, 8), (8, 1), (1, 1)])
def test_steps_are_the_same_whatever_the_number_of_processes(micro: int, processes: int) -> None:
    sampler = LengthSortedSampler(spread(64), 8, 3)

    def steps(micro: int, processes: int) -> list[list[int]]:
        dealt, many = batches(sampler, micro, processes), 8 // (micro * processes)
        return [sorted(row for own in dealt for batch in own[step * many : step * many + many] for row in batch) for step in range(8)]

    assert steps(micro, processes) == steps(4, 1)
    if micro * processes == 4:
        whole, parts = batches(sampler, 4, 1)[0], batches(sampler, micro, processes)
        assert whole == [one + other for one, other in zip(*parts, strict=True)]


def test_padding_is_counted() -> None:
    rows = Dataset.from_list(
        [
            {"prompt_ids": [1] * 5, "chosen_ids": [1] * 3, "rejected_ids": [1] * 2},
            {"prompt_ids": [1], "chosen_ids": [1], "rejected_ids": [1]},
        ]
    )
    plain, packed = extent(rows), packed_extent(rows)
    assert (plain.sequences, plain.tokens.tolist(), plain.widths.tolist()) == (2, [15, 4], [8, 2])
    assert (packed.sequences, packed.tokens.tolist(), packed.widths.tolist()) == (1, [11, 4], [11, 4])
    assert padded_fraction(plain, np.array([0, 1]), 2) == pytest.approx(1 - 19 / 32)
    assert padded_fraction(plain, np.array([0, 1]), 1) == pytest.approx(1 - 19 / 20)
    assert padded_fraction(packed, np.array([0, 1]), 2) == pytest.approx(1 - 15 / 22)
    sft, reward = Dataset.from_list([{"input_ids": [1, 2]}]), Dataset.from_list([{"chosen_ids": [1, 2], "rejected_ids": [1]}])
    assert (extent(sft).sequences, extent(sft).widths.tolist()) == (1, [2])
    assert (extent(reward).sequences, extent(reward).tokens.tolist(), extent(reward).widths.tolist()) == (2, [3], [2])


def test_rows_that_were_selected_keep_their_lengths() -> None:
    rows = Dataset.from_list([{"input_ids": [1] * number} for number in range(1, 9)])
    assert extent(rows.select([6, 0, 3])).widths.tolist() == [7, 1, 4]


class Tiny(torch.nn.Module):
    """One weight; the loss is there to be minimised."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * input_ids.float().mean()).square().mean()}


def run(out: Path, resume: str | None = None) -> list[list[int]]:
    """The rows of each batch of two epochs, the row told by its first token."""
    seen: list[list[int]] = []

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        seen.append([row["input_ids"][0] for row in rows])
        width = max(len(row["input_ids"]) for row in rows)
        return {"input_ids": torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])}

    class Sorted(LengthSorted, Trainer):
        pass

    lengths = spread(24)
    data = Dataset.from_list([{"input_ids": [row] * int(lengths[row])} for row in range(24)])
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        save_steps=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    Sorted(model=Tiny(), args=arguments, train_dataset=data, data_collator=collate).train(resume_from_checkpoint=resume)
    return seen


def test_a_resumed_run_reads_the_rows_that_an_undisturbed_one_does(tmp_path: Path) -> None:
    whole = run(tmp_path)
    assert sorted(row for batch in whole[:12] for row in batch) == list(range(24))
    assert sorted(row for batch in whole[12:] for row in batch) == list(range(24))
    assert whole[:12] != whole[12:], "a new order each epoch"
    # Snapshot 8 of 12 lies in the second epoch, after 4 of its 12 batches.
    assert run(tmp_path, str(tmp_path / "checkpoint-8")) == whole[16:]


def test_the_epoch_reaches_the_sampler_when_several_processes_resume() -> None:
    class Sorted(LengthSorted):
        def __init__(self) -> None:
            self.order = LengthSortedSampler(spread(24), 4, 3)

    trainer = Sorted()
    shard = BatchSamplerShard(BatchSampler(trainer.order, 2, drop_last=False), 2, 0)
    loader = skip_first_batches(DataLoaderShard(list(range(24)), batch_sampler=shard), 2)
    loader.set_epoch(1)
    assert trainer.order.epoch == 0, "accelerate tells it now: the override of _run_epoch can go"
    with pytest.raises(TypeError):  # a real epoch wants more
        trainer._run_epoch(epoch=1)
    assert trainer.order.epoch == 1
