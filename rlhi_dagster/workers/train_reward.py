"""Worker: train a Bradley-Terry reward model on pairs, with TRL.

Job (Pipes extras): ``jobs``, a list of ``TrainingJob``; rows are ``pair_sets.TRAINING_ROWS``. Finished artefacts of the same inputs are
left alone. Reports one custom message per job.
"""

from __future__ import annotations

from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from rlhi_dagster.engines.unavailable import loading
from rlhi_dagster.workers.batching import LengthSorted
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_loop import arguments, serve
from rlhi_dagster.workers.train_pairs import PairData, said, train_on_pairs


class _Trainer(LengthSorted, RewardTrainer):  # type: ignore[misc]
    """TRL's, with rows of similar length together."""


def build(job: TrainingJob, data: PairData) -> RewardTrainer:
    """The trainer of a job."""
    with loading(job.start, "models.policy"):
        scorer = AutoModelForSequenceClassification.from_pretrained(job.start.source, num_labels=1, **data.load_kwargs())
    scorer.config.pad_token_id = data.tokenizer.pad_token_id
    train, validation = data.datasets(
        lambda row: {"prompt": row["prompt"], "chosen": said(row["chosen"]), "rejected": said(row["rejected"])}
    )
    trainer = _Trainer(
        model=scorer,
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
