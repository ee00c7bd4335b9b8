"""Worker: self-distillation on logged replies, with the starting policy that is told the follow-up as the teacher (SDPO).

Job (Pipes extras): ``jobs``, a list of ``TrainingJob``; rows are ``pair_sets.TRAINING_ROWS`` with the logged reply as ``chosen``, and
``told``, the messages that the teacher is asked with. Finished artefacts of the same inputs are left alone. Reports one custom message per
job.

At each token of a logged reply the trained model's next-token distribution is drawn to the one that the start has there, told what the user
said next: KL(model || teacher), averaged over the reply's tokens and then over replies. It departs from the paper (Kleine Buening et al.,
2026, arXiv:2603.12273) and its authors' code for logged conversations in two things:

- All words count at each token, weighted as the model would write them, where their code looks at the logged word alone. Both have the same
  gradient in expectation if the model wrote the reply itself; a logged reply may be another model's, and then theirs teaches to write or
  to avoid that model's words.
- The teacher is the start, where theirs is the policy as it is at that step. So the loss on held-out users is of one thing all along, and
  snapshots can be chosen by it.

TRL's ``SDPOTrainer`` (1.16, experimental) samples replies and rewards them, so it is not used; its loss `full_logits` is this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import Trainer
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import disable_dropout_in_model

from rlhi_dagster.workers import mask_check
from rlhi_dagster.workers.batching import LengthSorted
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.tokens import Conversation
from rlhi_dagster.workers.train_loop import arguments, serve
from rlhi_dagster.workers.train_pairs import PairData, said, train_on_pairs

_IGNORED = -100
_TOLD = "told_"


class Sequences:
    """Collates rows: what the model reads by TRL's names, and what the teacher reads by the same with ``told_`` before them.

    Args:
        collate: TRL's, of rows with ``input_ids`` and ``labels``.
    """

    def __init__(self, collate: Callable[[list[Any]], Mapping[str, Tensor]]) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of some rows."""
        return {**self.collate(list(rows)), **{_TOLD + name: values for name, values in self.told(rows).items()}}

    def told(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
        """What the teacher reads of them: what it is asked with, and the same reply."""
        replies = [[token for token in row["labels"] if token != _IGNORED] for row in rows]
        return self.collate(
            [
                {"input_ids": [*row["told_ids"], *reply], "labels": [_IGNORED] * len(row["told_ids"]) + reply}
                for row, reply in zip(rows, replies, strict=True)
            ]
        )


class FollowUpTrainer(LengthSorted, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer of replies with the loss of SDPO.

    Args:
        start: Gives the model that training starts from, frozen; it is not called where adapters are trained, which are taken off instead.
    """

    data_collator: Any
    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, start: Callable[[Trainer], Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_collator = Sequences(self.data_collator)
        self._start = start
        disable_dropout_in_model(self.model)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The mean over rows of the divergence from the teacher, in nats a token of the reply."""
        told = {name.removeprefix(_TOLD): values for name, values in inputs.items() if name.startswith(_TOLD)}
        with torch.no_grad(), self._teacher() as teacher:
            wanted, _ = reply_logits(teacher, told)
        found, rows = reply_logits(model, inputs)
        each = kl_div(wanted.log_softmax(-1), found.log_softmax(-1), log_target=True, reduction="none").sum(-1)
        sums = torch.zeros(len(inputs["labels"]), device=each.device).index_add(0, rows, each)
        loss = (sums / torch.bincount(rows, minlength=len(sums))).mean()
        return (loss, {}) if return_outputs else loss

    @contextmanager
    def _teacher(self) -> Iterator[Any]:
        """The start, beside the model or under its adapters."""
        policy = self.accelerator.unwrap_model(self.model)
        if isinstance(policy, PeftModel):
            with policy.disable_adapter():
                yield self.model
        else:
            yield self._start(self)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "told_ids" not in self._signature_columns:
            self._signature_columns.append("told_ids")


def reply_logits(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What a model gives for each token of the replies of a batch.

    Args:
        model: A causal language model.
        batch: ``input_ids`` and ``attention_mask``, ``[rows, length]``, padded on the right; ``labels`` are -100 where there is no reply.

    Returns:
        Logits ``[tokens, vocabulary]`` in float32, row by row, and the row of each token.
    """
    is_reply = batch["labels"][:, 1:] != _IGNORED
    places = is_reply.any(0).nonzero()[:, 0]
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, logits_to_keep=places)
    wanted = is_reply[:, places]
    return out.logits[wanted].float(), wanted.nonzero()[:, 0]


def build(job: TrainingJob, data: PairData) -> FollowUpTrainer:
    """The trainer of a job, with what carries loss checked in every row, as the model reads it and as the teacher does."""
    train, validation = data.datasets(
        lambda row: {"prompt": row["prompt"], "completion": said(row["chosen"]), "told_ids": _ids(data, row["told"])}
    )
    trainer = FollowUpTrainer(
        model=data.causal_model(),
        args=SFTConfig(**arguments(job, len(data.train), has_held_out=bool(data.validation)), max_length=None),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        peft_config=data.adapters("CAUSAL_LM"),
        start=data.start_beside,
    )
    data.facts["padded_fraction"] = round(trainer.padded_fraction(), 4)
    data.facts["masks"] = mask_check.check(job.name, trainer, data.tokenizer, train=data.train, validation=data.validation)
    told = {
        split: [{**row, "prompt": row["told"]} for row in rows] for split, rows in (("train", data.train), ("validation", data.validation))
    }
    teacher = SimpleNamespace(
        train_dataset=trainer.train_dataset, eval_dataset=trainer.eval_dataset, data_collator=trainer.data_collator.told
    )
    mask_check.check(f"{job.name} as the teacher reads it", teacher, data.tokenizer, **told)
    return trainer


def _ids(data: PairData, asked: Conversation) -> list[int]:
    """What a model is asked with for a reply."""
    return list(data.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"])


train = train_on_pairs(build)

if __name__ == "__main__":
    serve(train)
