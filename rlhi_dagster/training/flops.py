"""Floating-point operations of training steps, for model FLOP utilisation.

What belongs here: the count. What does not: measuring time or the rate of matrix products (``benchmarks/train_dpo.py``).

A multiply-add is two operations, the backward pass takes twice the forward pass. So a matrix of n weights costs 6 n a token, and attention
12 x heads x head width a layer for each query and key that it may see (scores, then values; the full square counts half of itself under a
causal mask). The head is counted for the tokens that carry loss only: the others' logits are not needed, and TRL does not make them.
Not counted: the embedding, which is a look-up; norms, softmax and activations; padding; and forward passes that gradient checkpointing does
again. So utilisation is of the work that the loss needs ("model FLOPs", Chowdhery et al., 2022, appendix B), whatever was computed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a decoder's shape counts.

    Attributes:
        body: Weights of all matrices between embedding and head.
        head: Weights of the head's matrix.
        attention: Layers x heads x head width.
    """

    body: int
    head: int
    attention: int

    @classmethod
    def llama(
        cls, *, vocabulary: int, width: int, feed_forward: int, layers: int, heads: int, key_value_heads: int, head_width: int
    ) -> ModelShape:
        """Of a Llama: queries and output, keys and values, three matrices of the gated feed-forward network."""
        of_layer = 2 * width * heads * head_width + 2 * width * key_value_heads * head_width + 3 * width * feed_forward
        return cls(layers * of_layer, vocabulary * width, layers * heads * head_width)


def training_flops(shape: ModelShape, tokens: int, loss_tokens: int, seen: int) -> int:
    """Operations of a forward and a backward pass.

    Args:
        shape: The model.
        tokens: Tokens that are read.
        loss_tokens: Those of them that carry loss.
        seen: Pairs of a query and a key that it sees, over all tokens: see ``apart`` and ``packed``.
    """
    return 6 * (shape.body * tokens + shape.head * loss_tokens) + 12 * shape.attention * seen


def apart(prompt: int, chosen: int, rejected: int) -> tuple[int, int]:
    """Tokens and pairs seen of a preference pair read as two sequences."""
    lengths = (prompt + chosen, prompt + rejected)
    return sum(lengths), sum(map(_triangle, lengths))


def packed(prompt: int, chosen: int, rejected: int) -> tuple[int, int]:
    """The same with the prompt read once, its last token twice: as DPO does with a shared prefix (``workers/dpo_shared_prefix.py``)."""
    sides = (chosen + 1, rejected + 1)
    before = prompt - 1
    return before + sum(sides), _triangle(before) + sum(before * side + _triangle(side) for side in sides)


def _triangle(length: int) -> int:
    return length * (length + 1) // 2
