"""Worker: train a Bradley-Terry reward model on pairs, with TRL.

Job (Pipes extras): ``jobs``, a list of ``TrainingJob``; rows are ``pair_sets.TRAINING_ROWS``. Finished artefacts of the same inputs are
left alone. Reports one custom message per job.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardConfig, RewardTrainer

from rlhi_dagster.engines.unavailable import loading
from rlhi_dagster.training.settings import PairSettings
from rlhi_dagster.workers.batching import Extent, LengthSorted, extent
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.shared_prefix import PackedPairs, check_attention
from rlhi_dagster.workers.train_loop import arguments, serve
from rlhi_dagster.workers.train_pairs import PairData, said, train_on_pairs


class PlainTrainer(LengthSorted, RewardTrainer):  # type: ignore[misc]
    """TRL's, with rows of similar length together."""


class SharedPrefixTrainer(PlainTrainer):
    """The same with persona, history and request of a pair read once; the loss and everything that is logged stay TRL's own."""

    def extent(self, rows: Dataset) -> Extent:
        """What rows take of a batch."""
        return packed_extent(rows)


def packed_extent(rows: Dataset) -> Extent:
    """What rows of pairs take of a batch of packed rows."""
    shared = [shared_tokens(row["chosen_ids"], row["rejected_ids"]) for row in rows]
    packed = extent(rows).tokens - np.array(shared, dtype=np.int64)
    return Extent(1, packed, packed)


def shared_tokens(chosen: list[int], rejected: list[int]) -> int:
    """Tokens at the start of both sides that are read once: all that are the same, but the last of either side, where its reward is."""
    most = min(len(chosen), len(rejected)) - 1
    return next((at for at in range(most) if chosen[at] != rejected[at]), most)


def read_pairs_once(scorer: Any) -> Any:
    """Let a sequence classifier with one output read batches of 2 x pairs sequences as packed rows; it gives the same rewards.

    Raises:
        ValueError: Its attention takes no mask of its own.
    """
    check_attention(scorer.config)
    scorer.forward = MethodType(_forward, scorer)
    return scorer


def _forward(self: Any, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SequenceClassifierOutput:
    """Rewards ``[2 x pairs, 1]`` of sequences padded at the end, the preferred ones first."""
    # Where transformers reads the reward: at the last token that is not the padding's.
    position = torch.arange(input_ids.shape[1], device=input_ids.device)
    read = (position * (input_ids != self.config.pad_token_id)).argmax(1, keepdim=True)
    same = torch.eq(*input_ids.chunk(2)).int().cumprod(1).sum(1, keepdim=True)
    shared = torch.cat([same, *read.chunk(2)], 1).amin(1)
    layout = PackedPairs(attention_mask.sum(1), shared, input_ids.shape[1])
    hidden = getattr(self, self.base_model_prefix)(
        input_ids=layout.packed(input_ids, 0), position_ids=layout.columns, attention_mask=layout.mask, use_cache=False
    ).last_hidden_state
    pair = torch.arange(layout.pairs, device=input_ids.device).repeat(2)
    return SequenceClassifierOutput(logits=self.score(hidden[pair, layout.places(read).squeeze(1)]))


def build(job: TrainingJob, data: PairData) -> RewardTrainer:
    """The trainer of a job."""
    settings = job.settings
    assert isinstance(settings, PairSettings)
    with loading(job.start, "models.policy"):
        scorer = AutoModelForSequenceClassification.from_pretrained(job.start.source, num_labels=1, **data.load_kwargs())
    scorer.config.pad_token_id = data.tokenizer.pad_token_id
    train, validation = data.datasets(
        lambda row: {"prompt": row["prompt"], "chosen": said(row["chosen"]), "rejected": said(row["rejected"])}
    )
    trainer = (SharedPrefixTrainer if settings.shared_prefix else PlainTrainer)(
        model=read_pairs_once(scorer) if settings.shared_prefix else scorer,
        args=RewardConfig(**arguments(job, len(data.train), has_held_out=bool(data.validation)), max_length=None),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        peft_config=data.adapters("SEQ_CLS"),
    )
    data.facts["padded_fraction"] = round(trainer.padded_fraction(), 4)
    return trainer


train = train_on_pairs(build)

if __name__ == "__main__":
    serve(train)
