"""DPO that reads persona, history and request once for both sides of a pair.

What belongs here: a model that stands in TRL's loss, runs packed rows (``shared_prefix``) and puts the outputs back where TRL expects
them; the loss and everything that is logged stay TRL's own. What does not: training (``train_dpo``).

The prompt's last token is there twice, because it predicts the first token of either side.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOTrainer

from rlhi_dagster.workers.batching import Extent, extent, lengths
from rlhi_dagster.workers.shared_prefix import PackedPairs, check_attention

_FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")
_IGNORED = -100


class SharedPrefixDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer with the prompt of a pair encoded once, in training, evaluation and for the reference."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See ``DPOTrainer``.

        Raises:
            ValueError: The model's attention takes no mask of its own.
        """
        check_attention(kwargs["model"].config)
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        return super()._compute_loss(SharedPrefix(model), inputs, return_outputs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """See ``DPOTrainer.compute_ref_log_probs``."""
        return super().compute_ref_log_probs(SharedPrefix(model), inputs)


def packed_extent(rows: Dataset) -> Extent:
    """What rows of pairs take of a batch of packed rows: the prompt once, its last token twice."""
    packed = extent(rows).tokens - lengths(rows, "prompt_ids") + 1
    return Extent(1, packed, packed)


class SharedPrefix:
    """Stands for a model in TRL's loss: takes its batch, runs the packed one, gives the outputs in the batch's layout."""

    def __init__(self, model: Any) -> None:
        """``model`` has TRL's fused head."""
        self.model = model

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **kwargs: Any) -> SimpleNamespace:
        """Per-token outputs.

        Args:
            input_ids: ``[2 x pairs, length]``, the preferred sequences first, padded at the end.
            attention_mask: 1 for tokens, 0 for padding.
            labels: ``input_ids``, or -100 where there is nothing to learn: in the prompt and in the padding.
            **kwargs: Handed on.
        """
        said = attention_mask.sum(1)
        # Without a token to learn a side has no start of its own; the prompt is the same for both.
        starts = torch.where((labels != _IGNORED).any(1), (labels != _IGNORED).int().argmax(1), said)
        layout = PackedPairs(said, torch.minimum(*starts.chunk(2)) - 1, labels.shape[1])
        out = self.model(
            input_ids=layout.packed(input_ids, 0),
            labels=layout.packed(labels, _IGNORED),
            position_ids=layout.columns,
            attention_mask=layout.mask,
            **kwargs,
        )
        found = {name: getattr(out, name, None) for name in _FIELDS}
        spread = {name: None if values is None else layout.unpacked(values) for name, values in found.items()}
        return SimpleNamespace(**spread, aux_loss=getattr(out, "aux_loss", None))
