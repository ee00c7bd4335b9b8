"""Forward pass of a BERT sentence encoder on the CPU, without padding.

What belongs here: from token ids to unit vectors. What does not: tokens, batches and weights (``embedding``).

All tokens of a batch are the rows of one matrix. Only attention and pooling look at them text by text: texts of equal
length stand together and form one block, which needs no mask. ``benchmarks/embed.py`` compares this with
``SentenceTransformer.encode``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, groupby

import torch
from torch import Tensor
from torch.nn import functional

HEADS = 12
EPSILON = 1e-12
"""Of layer normalisation, as the checkpoint was trained."""

Affine = tuple[Tensor, Tensor]
"""Weight and bias."""
Shape = tuple[int, int]
"""Texts and their length in tokens."""


class Bert:
    """all-MiniLM-L6-v2 or another post-norm BERT of 12 heads that pools by the mean over tokens."""

    def __init__(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Take the weights by their names in the checkpoint; ``dtype`` is that of the layers and their activations."""

        def affine(*names: str, dtype: torch.dtype = dtype) -> Affine:
            weight, bias = (torch.cat([weights[f"{name}.{part}"] for name in names]).to(dtype) for part in ("weight", "bias"))
            return weight, bias

        def layer(name: str) -> tuple[Affine, ...]:
            attention = f"{name}.attention"
            return (
                affine(*(f"{attention}.self.{part}" for part in ("query", "key", "value"))),
                affine(f"{attention}.output.dense"),
                affine(f"{attention}.output.LayerNorm"),
                affine(f"{name}.intermediate.dense"),
                affine(f"{name}.output.dense"),
                affine(f"{name}.output.LayerNorm"),
            )

        self._words = weights["embeddings.word_embeddings.weight"]
        # Every token is of the first type: a text is one segment.
        self._positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        self._norm = affine("embeddings.LayerNorm", dtype=torch.float32)
        layers = sorted({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}, key=int)
        self._layers = [layer(f"encoder.layer.{number}") for number in layers]
        self._dtype = dtype

    @torch.inference_mode()
    def encode(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return one float32 unit row per text.

        Args:
            texts: Token ids of each text with its special tokens; texts of equal length stand together.
        """
        shapes = [(len(list(group)), length) for length, group in groupby(map(len, texts))]
        words = functional.embedding(torch.tensor(list(chain.from_iterable(texts))), self._words)
        positions = torch.cat([self._positions[:length].repeat(count, 1) for count, length in shapes])
        hidden = _norm(words + positions, self._norm).to(self._dtype)
        for qkv, out, attention_norm, up, down, norm in self._layers:
            attended = _attention(functional.linear(hidden, *qkv), shapes)
            hidden = _norm(hidden + functional.linear(attended, *out), attention_norm)
            inner = functional.gelu(functional.linear(hidden, *up))
            hidden = _norm(hidden + functional.linear(inner, *down), norm)
        means = [block.float().mean(1) for block in _blocks(hidden, shapes)]
        return functional.normalize(torch.cat(means), dim=1)


def _attention(qkv: Tensor, shapes: Sequence[Shape]) -> Tensor:
    """``[tokens, 3 x width]`` queries, keys and values to ``[tokens, width]``; a token attends to its own text."""
    attended = []
    for block in _blocks(qkv, shapes):
        query, key, value = block.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(query, key, value)
        attended.append(heads.transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(attended)


def _blocks(rows: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """``[tokens, width]`` as a ``[texts, length, width]`` block per shape."""
    pieces = rows.split([count * length for count, length in shapes])
    return [piece.unflatten(0, shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _norm(rows: Tensor, affine: Affine) -> Tensor:
    return functional.layer_norm(rows, rows.shape[-1:], *affine, EPSILON)
