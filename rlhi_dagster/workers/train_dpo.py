"""Worker: persona-conditioned DPO on preference pairs, with TRL.

Job (Pipes extras): ``jobs``, a list of ``TrainingJob``; rows are ``pair_sets.TRAINING_ROWS``. Finished artefacts of the same inputs are
left alone. Reports one custom message per job.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from rlhi_dagster.training.gates import TERM, is_ln2
from rlhi_dagster.training.settings import DPOSettings
from rlhi_dagster.workers import mask_check
from rlhi_dagster.workers.batching import Extent, LengthSorted
from rlhi_dagster.workers.dpo_shared_prefix import SharedPrefixDPOTrainer, packed_extent
from rlhi_dagster.workers.dpo_term import PreferenceTerm
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.reference_logps import References, StoredReferences, longest_first
from rlhi_dagster.workers.train_loop import arguments, serve
from rlhi_dagster.workers.train_pairs import PairData, said, train_on_pairs

_PAIRS_BEFORE_TRAINING = 32
"""On which the loss before the first step is taken."""


class PlainTrainer(LengthSorted, PreferenceTerm, StoredReferences):  # type: ignore[misc]
    """TRL's, with rows of similar length together, the reference from the store, and the DPO term recorded."""


class SharedPrefixTrainer(LengthSorted, SharedPrefixDPOTrainer, PreferenceTerm, StoredReferences):  # type: ignore[misc]
    """The same with the prompt of a pair read once."""

    def extent(self, rows: Dataset) -> Extent:
        """What rows take of a batch."""
        return packed_extent(rows)


def build(job: TrainingJob, data: PairData) -> DPOTrainer:
    """The trainer of a job, with the reference's log-probabilities at hand and its loss before the first step measured."""
    settings = job.settings
    assert isinstance(settings, DPOSettings)
    train, validation = data.datasets(
        lambda row: {"prompt": row["prompt"], "chosen": said(row["chosen"]), "rejected": said(row["rejected"])}
    )
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, settings.sft_weight]} if settings.sft_weight else {}
    trainer = (SharedPrefixTrainer if settings.shared_prefix else PlainTrainer)(
        model=data.causal_model(),
        args=DPOConfig(
            **arguments(job, len(data.train), has_held_out=bool(data.validation)),
            max_length=None,
            beta=settings.beta,
            precompute_ref_log_probs=True,
            **losses,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        peft_config=data.adapters("CAUSAL_LM"),
        references=References.of(job, settings, data.report),
    )
    data.facts["masks"] = mask_check.check(job.name, trainer, data.tokenizer, train=data.train, validation=data.validation)
    data.facts["padded_fraction"] = round(trainer.padded_fraction(), 4)
    data.facts["step0_loss"] = before = _loss_before_training(trainer)
    if not is_ln2(before):
        raise ValueError(
            f"{job.name}: before the first step DPO's loss is {before:.4f}, not ln 2 (0.6931), so the reference is not what training "
            f"starts from: name a commit in models.policy, and delete the log-probabilities in {trainer.references.store.folder}"
        )
    return trainer


def _loss_before_training(trainer: Any) -> float:
    """The DPO term before any step, averaged over the longest pairs: ln 2 if policy and reference agree.

    Longest first is the order in which the reference is computed: in batches of the same pairs, arithmetic in bfloat16 rounds alike.
    """
    rows = trainer.train_dataset
    longest = rows.select(longest_first(rows, range(len(rows)))[:_PAIRS_BEFORE_TRAINING])
    trainer.model.eval()
    with torch.no_grad(), trainer.accelerator.autocast():
        for batch in trainer.batches(longest, trainer.args.per_device_train_batch_size):
            trainer.compute_loss(trainer.model, batch)
    terms = list(trainer._metrics["eval"][TERM])
    trainer._metrics["eval"].clear()
    return fmean(terms)


train = train_on_pairs(build)

if __name__ == "__main__":
    serve(train)
