"""DPO that reads persona, history and request once for both sides of a pair.

What belongs here: packing TRL's batch of 2 x pairs sequences into one sequence a pair, the attention mask that keeps the sides apart, and
putting the outputs back where TRL expects them; the loss and everything that is logged stay TRL's own. What does not: training
(``train_dpo``).

A packed row is the preferred sequence as it is, then the dispreferred one from the prompt's last token on: that token is there twice,
because it predicts the first token of either side. A side sees the prompt before its copy of that token, and itself. Positions are those
of the sequences apart, so every log-probability is the same up to rounding.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOTrainer

from rlhi_dagster.workers.batching import Extent, extent, lengths

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


def check_attention(config: Any) -> None:
    """Raise ValueError unless a model takes an attention mask of any shape, and attends as far back as the mask says."""
    kind = config._attn_implementation
    if kind not in ("sdpa", "eager"):
        raise ValueError(f"shared_prefix needs attention that takes a mask (sdpa or eager), not {kind}: set shared_prefix to false")
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ValueError("shared_prefix: this model attends within a sliding window, which the mask would undo; set shared_prefix to false")


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
        layout = _Layout(attention_mask, labels)
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


class _Layout:
    """Where each token of a batch stands in the packed rows.

    Attributes:
        columns: Of each packed token, its position in the sequence apart: ``[pairs, width]``.
        mask: Which packed tokens see which: ``[pairs, 1, width, width]``.
    """

    def __init__(self, attention_mask: Tensor, labels: Tensor) -> None:
        self.pairs, self.length = len(labels) // 2, labels.shape[1]
        lengths = attention_mask.sum(1)
        starts = torch.where((labels != _IGNORED).any(1), (labels != _IGNORED).int().argmax(1), lengths)
        self.chosen, self.rejected = lengths[: self.pairs, None], lengths[self.pairs :, None]
        # Without a token to learn a side has no start of its own; the prompt is the same for both.
        self.last = torch.minimum(starts[: self.pairs], starts[self.pairs :])[:, None] - 1
        width = int((self.chosen + self.rejected - self.last).max())
        place = torch.arange(width, device=labels.device)[None]
        self.is_rejected = place >= self.chosen
        columns = torch.where(self.is_rejected, place - self.chosen + self.last, place)
        self.is_token = ~self.is_rejected | (columns < self.rejected)
        self.columns = torch.where(self.is_token, columns, 0)
        side = torch.where(self.is_rejected, 2, (place >= self.last).long())
        self.mask = self._mask(side)

    def _mask(self, side: Tensor) -> Tensor:
        width = side.shape[1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=side.device).tril()
        sees = ((side[:, None, :] == 0) | (side[:, None, :] == side[:, :, None])) & self.is_token[:, None, :]
        # Padding sees itself, so that no row of the mask is empty.
        return ((earlier & sees) | torch.eye(width, dtype=torch.bool, device=side.device))[:, None]

    def packed(self, values: Tensor, padding: int) -> Tensor:
        """``[2 x pairs, length]`` as packed rows."""
        chosen, rejected = (half.gather(1, self.columns) for half in values.chunk(2))
        return torch.where(self.is_token, torch.where(self.is_rejected, rejected, chosen), padding)

    def unpacked(self, values: Tensor) -> Tensor:
        """Outputs of packed rows, each about the next token, as ``[2 x pairs, length - 1]``; 0 where the batch has nothing to learn."""
        column = torch.arange(self.length - 1, device=values.device)[None]
        of_rejected = self.chosen + column - self.last
        places = torch.cat([column.expand(self.pairs, -1), of_rejected])
        is_learnt = torch.cat([column < self.chosen - 1, column < self.rejected - 1]) & (column >= self.last.repeat(2, 1))
        return torch.where(is_learnt, torch.cat([values, values]).gather(1, places.clamp(0, values.shape[1] - 1)), 0)
