"""Worker: KTO on replies with a thumb up or down, with TRL.

Job (Pipes extras): ``jobs``, a list of ``TrainingJob``; rows are ``pair_sets.TRAINING_ROWS`` with one side each. Finished artefacts of the
same inputs are left alone. Reports one custom message per job.

KTO (Ethayarajh et al., 2024) needs an estimate of the KL divergence to the reference: TRL takes it from the rows of a forward pass, each
prompt with the reply of the row before. So rows are read in the order in which they were drawn, in every epoch, and the loss depends a
little on which rows share a pass: on ``micro_batch_size`` and on the number of processes. A last pass of one row is its own counterpart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import KTOConfig, KTOTrainer

from rlhi_dagster.training.gates import is_half
from rlhi_dagster.training.settings import KTOSettings
from rlhi_dagster.workers import mask_check
from rlhi_dagster.workers.dpo_term import Heard
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.reference_logps import Weightless
from rlhi_dagster.workers.sharding import share_out
from rlhi_dagster.workers.train_loop import arguments, serve
from rlhi_dagster.workers.train_pairs import PairData, said, train_on_pairs

_ROWS_BEFORE_TRAINING = 32
"""On which the loss before the first step is taken."""
_OF_EXAMPLES = ("logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/margins")


class ThumbTrainer(KTOTrainer):  # type: ignore[misc]
    """TRL's, with the reference computed by the policy before it is trained, and held-out numbers averaged over examples.

    TRL (1.16) would load a second model where weights are sharded, and hand the reference to the other processes in a file whose name only
    the first one knows where nothing is cached. It averages held-out log-probabilities over batches, so that one thumb down in a batch of
    thumbs up counts as much as four.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See ``KTOTrainer``."""
        super().__init__(*args, ref_model=Weightless(kwargs["model"].config), **kwargs)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        self.ref_model = None
        share_out(self)
        found: dict[str, list[float]] = {"ref_logps": [], "ref_KL_logps": []}
        for batch in self.batches(dataset, batch_size):
            both = self.accelerator.gather_for_metrics(self.compute_ref_log_probs(self.model, batch))
            for column, values in zip(found, both, strict=True):
                found[column] += values.float().tolist()
        for column, values in found.items():
            dataset = dataset.add_column(column, values)
        return dataset

    def batches(self, dataset: Dataset, batch_size: int) -> Iterator[dict[str, Any]]:
        """Rows in order, collated, of each batch this process's part."""
        yield from self.accelerator.prepare(DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator, shuffle=False))

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        heard, metrics = Heard(model), self._metrics["eval"]
        before = {name: len(metrics.get(name, ())) for name in _OF_EXAMPLES}
        loss = super()._compute_loss(heard, inputs, return_outputs)
        if not self.model.training:
            for name, count in before.items():
                del metrics[name][count:]  # the batch's average
            logps = heard.log_probs.float().sum(dim=1)
            given = self.accelerator.gather_for_metrics((logps, inputs["ref_logps"], inputs["label"]))
            for logp, reference, is_up in zip(*(each.tolist() for each in given), strict=True):
                side = "chosen" if is_up else "rejected"
                metrics[f"logps/{side}"].append(logp)
                metrics[f"rewards/{side}"].append(self.beta * (logp - reference))
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """See ``KTOTrainer``; the held-out margin is that between the averages of the two kinds."""
        metrics = self._metrics["eval"]
        if metrics and not self.model.training:
            up, down = metrics["rewards/chosen"], metrics["rewards/rejected"]
            if up and down:
                metrics["rewards/margins"] = [fmean(up) - fmean(down)]
            for name in [name for name, values in metrics.items() if not values]:
                del metrics[name]
        super().log(logs, start_time)


def build(job: TrainingJob, data: PairData) -> ThumbTrainer:
    """The trainer of a job, with its loss before the first step measured."""
    settings = job.settings
    assert isinstance(settings, KTOSettings)
    train, validation = data.datasets(example)
    up = sum(train["label"])
    desirable, undesirable = settings.weights(up, len(train) - up)
    data.facts["thumbs"] = {"up": up, "down": len(train) - up, "weight_up": desirable, "weight_down": undesirable}
    trainer = ThumbTrainer(
        model=data.causal_model(),
        args=KTOConfig(
            **arguments(job, len(data.train), has_held_out=bool(data.validation)),
            max_length=settings.max_length,  # of a prompt with another's reply, which may be longer than every row
            beta=settings.beta,
            desirable_weight=desirable,
            undesirable_weight=undesirable,
            precompute_ref_log_probs=True,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        peft_config=data.adapters("CAUSAL_LM"),
    )
    data.facts["masks"] = mask_check.check(job.name, trainer, data.tokenizer, train=data.train, validation=data.validation)
    data.facts["step0_loss"] = before = loss_before_training(trainer)
    if not is_half(before):
        raise ValueError(
            f"{job.name}: before the first step KTO's loss is {before:.4f} of an example's weight, not 0.5, so the reference is not what "
            "training starts from: name a commit in models.policy"
        )
    return trainer


def example(row: Mapping[str, Any]) -> dict[str, Any]:
    """A training row as TRL takes it."""
    is_up = row["chosen"] is not None
    return {"prompt": row["prompt"], "completion": said(row["chosen"] if is_up else row["rejected"]), "label": is_up}


def loss_before_training(trainer: ThumbTrainer) -> float:
    """The loss before any step, in weights of an example, over the first rows: 0.5 if policy and reference agree."""
    rows = trainer.train_dataset.select(range(min(_ROWS_BEFORE_TRAINING, len(trainer.train_dataset))))
    weights = torch.tensor([trainer.undesirable_weight, trainer.desirable_weight])
    losses, weighed = list[float](), list[float]()
    trainer.model.eval()
    with torch.no_grad(), trainer.accelerator.autocast():
        for batch in trainer.batches(rows, trainer.args.per_device_train_batch_size):
            losses.append(len(batch["label"]) * trainer.compute_loss(trainer.model, batch).item())
            weighed += weights[batch["label"].long().cpu()].tolist()
    trainer._metrics["eval"].clear()
    return sum(losses) / sum(weighed)


train = train_on_pairs(build)

if __name__ == "__main__":
    serve(train)
