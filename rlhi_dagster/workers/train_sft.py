"""Worker: fine-tune on the preferred replies of pairs, with TRL.

Job (Pipes extras): ``jobs``, a list of ``TrainingJob``; rows are ``pair_sets.TRAINING_ROWS``. Finished artefacts of the same inputs are
left alone. Reports one custom message per job.
"""

from __future__ import annotations

from trl import SFTConfig, SFTTrainer

from rlhi_dagster.workers import mask_check
from rlhi_dagster.workers.batching import LengthSorted
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_loop import arguments, serve
from rlhi_dagster.workers.train_pairs import PairData, said, train_on_pairs


class _Trainer(LengthSorted, SFTTrainer):  # type: ignore[misc]
    """TRL's, with rows of similar length together."""


def build(job: TrainingJob, data: PairData) -> SFTTrainer:
    """The trainer of a job, with what carries loss checked in every row."""
    train, validation = data.datasets(lambda row: {"prompt": row["prompt"], "completion": said(row["chosen"])})
    trainer = _Trainer(
        model=data.causal_model(),
        args=SFTConfig(**arguments(job, len(data.train), has_held_out=bool(data.validation)), max_length=None),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        peft_config=data.adapters("CAUSAL_LM"),
    )
    data.facts["padded_fraction"] = round(trainer.padded_fraction(), 4)
    data.facts["masks"] = mask_check.check(job.name, trainer, data.tokenizer, train=data.train, validation=data.validation)
    return trainer


train = train_on_pairs(build)

if __name__ == "__main__":
    serve(train)
