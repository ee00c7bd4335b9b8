"""What DPO is judged by, pair by pair: the DPO term of the loss by itself, beside whatever else is in it.

What belongs here: hearing what TRL's loss was computed from, and averages over held-out pairs. What does not: the loss (TRL's) and what is
made of the term (``training/gates.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOTrainer

from rlhi_dagster.training.gates import TERM


class PreferenceTerm(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer that records the DPO term also where the likelihood of the chosen reply is part of the loss (`sft`).

    On held-out pairs it averages over pairs. TRL (1.16) averages over batches, so that a last batch of one pair counts as much as a full
    one, and a pair that fills up a process's last batch counts twice: the choice of a snapshot would depend on the number of processes.
    """

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        heard = Heard(model)
        loss = super()._compute_loss(heard, inputs, return_outputs)
        sides = (*heard.log_probs.float().sum(dim=1).chunk(2), inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
        if self.model.training:
            found = self._by_pair(*self.accelerator.gather(sides))
            self._metrics["train"][TERM].append(found[TERM].mean().item())
        else:
            metrics = self._metrics["eval"]
            for name, values in self._by_pair(*self.accelerator.gather_for_metrics(sides)).items():
                if name != TERM:
                    metrics[name].pop()  # the batch's average
                metrics[name].extend(values.tolist())
        return loss

    def _by_pair(self, chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Mapping[str, Tensor]:
        """TRL's metrics of each pair, under TRL's names, and the DPO term; from log-probabilities of replies, ``[pairs]`` each."""
        rewards = {"chosen": self.beta * (chosen - ref_chosen), "rejected": self.beta * (rejected - ref_rejected)}
        margins = rewards["chosen"] - rewards["rejected"]
        return {
            TERM: -logsigmoid(margins),
            "rewards/chosen": rewards["chosen"],
            "rewards/rejected": rewards["rejected"],
            "rewards/margins": margins,
            "rewards/accuracies": (margins > 0).to(torch.float32),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }


class Heard:
    """A model that remembers the log-probabilities of its last call, ``[2 x pairs, length - 1]``."""

    log_probs: Tensor

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, **given: Any) -> Any:
        """Call the model."""
        found = self.model(**given)
        self.log_probs = found.log_probs.detach()
        return found
