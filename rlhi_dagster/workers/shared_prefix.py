"""Pairs that are read once as far as both sides are the same: where each token of a batch stands in the packed rows.

What belongs here: packing TRL's batch of 2 x pairs sequences into one sequence a pair, the attention mask that keeps the sides apart, and
which models take such a mask. What does not: what is computed on packed rows (``dpo_shared_prefix``, ``train_reward``).

A packed row is the preferred sequence as it is, then what is left of the dispreferred one. A side sees what is shared before it, and
itself. Positions are those of the sequences apart, so every output is the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_attention(config: Any) -> None:
    """Raise ValueError unless a model takes an attention mask of any shape, and attends as far back as the mask says."""
    kind = config._attn_implementation
    if kind not in ("sdpa", "eager"):
        raise ValueError(f"shared_prefix needs attention that takes a mask (sdpa or eager), not {kind}: set shared_prefix to false")
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ValueError("shared_prefix: this model attends within a sliding window, which the mask would undo; set shared_prefix to false")


class PackedPairs:
    """Where each token of a batch stands in the packed rows.

    Attributes:
        columns: Of each packed token, its position in the sequence apart: ``[pairs, width]``.
        mask: Which packed tokens see which: ``[pairs, 1, width, width]``.
    """

    def __init__(self, lengths: Tensor, shared: Tensor, length: int) -> None:
        """A layout.

        Args:
            lengths: Tokens of each sequence, the preferred ones first: ``[2 x pairs]``.
            shared: Tokens at the start of both sides of a pair that are read once, fewer than either side has: ``[pairs]``.
            length: Columns of the batch.
        """
        self.pairs, self.length = len(shared), length
        self.chosen, self.rejected, self.shared = lengths[: self.pairs, None], lengths[self.pairs :, None], shared[:, None]
        width = int((self.chosen + self.rejected - self.shared).max())
        place = torch.arange(width, device=shared.device)[None]
        self.is_rejected = place >= self.chosen
        columns = torch.where(self.is_rejected, place - self.chosen + self.shared, place)
        self.is_token = ~self.is_rejected | (columns < self.rejected)
        self.columns = torch.where(self.is_token, columns, 0)
        side = torch.where(self.is_rejected, 2, (place >= self.shared).long())
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

    def places(self, positions: Tensor) -> Tensor:
        """Packed columns of positions ``[2 x pairs, ...]`` in the sequences apart that are not shared."""
        chosen, rejected = positions.chunk(2)
        return torch.cat([chosen, self.chosen + rejected - self.shared])

    def unpacked(self, values: Tensor) -> Tensor:
        """Outputs of packed rows, each about the next token, as ``[2 x pairs, length - 1]``; 0 where the batch has nothing to learn."""
        column = torch.arange(self.length - 1, device=values.device)[None]
        places = self.places(column.expand(2 * self.pairs, -1))
        is_learnt = torch.cat([column < self.chosen - 1, column < self.rejected - 1]) & (column >= self.shared.repeat(2, 1))
        return torch.where(is_learnt, torch.cat([values, values]).gather(1, places.clamp(0, values.shape[1] - 1)), 0)
