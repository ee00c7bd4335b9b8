"""The DPO term of the loss by itself, beside whatever else is in it.

What belongs here: hearing what TRL's loss was computed from. What does not: the loss (TRL's) and what is made of the term
(``training/gates.py``).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOTrainer

from rlhi_dagster.training.gates import TERM


class PreferenceTerm(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer that records the DPO term also where the likelihood of the chosen reply is part of the loss (`sft`)."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        heard = _Heard(model)
        loss = super()._compute_loss(heard, inputs, return_outputs)
        chosen, rejected = heard.log_probs.sum(dim=1).chunk(2)
        margins = (chosen - inputs["ref_chosen_logps"]) - (rejected - inputs["ref_rejected_logps"])
        terms = self.accelerator.gather(-logsigmoid(self.beta * margins))
        self._metrics["train" if self.model.training else "eval"][TERM].append(terms.mean().item())
        return loss


class _Heard:
    """A model that remembers the log-probabilities of its last call, ``[2 x pairs, length - 1]``."""

    log_probs: Tensor

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, **given: Any) -> Any:
        found = self.model(**given)
        self.log_probs = found.log_probs.detach()
        return found
