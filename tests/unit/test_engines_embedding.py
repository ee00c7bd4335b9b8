"""The sentence encoder against the library's own fp32 call, and its batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from rlhi_dagster.engines import embedding
from rlhi_dagster.engines.embedding import DIMENSIONS, MAX_TOKENS, MiniLM, batches

WORDS = ["rice", "please", "shorter", "rewrite", "Thanks!", "tulips", "int main()", "unbelievably", "7.5", "no,"]
TEXTS = [
    "no, shorter",
    "",
    "   \n\t ",
    *(" ".join(WORDS[(7 * n + place) % len(WORDS)] for place in range(n)) for n in (1, 2, 3, 5, 8, 13, 21, 40, 80, 120, 160)),
    "water the tulips " * 200,
    "x" * 20_000,
    "long " * 5_000,
    "Où est la bibliothèque? 図書館はどこですか。 Где библиотека? 🙂👍🏽",
    "NO,   SHORTER",
    "a\u0000b\u200d\ufffd",
    "no, shorter",
]


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """Vectors of ``TEXTS`` from the library with its defaults."""
    model = SentenceTransformer(str(embedding.encoder_path()), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_TOKENS
    return model.encode(TEXTS)


@pytest.fixture(params=["bf16 where the CPU has it", "fp32"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MiniLM:
    if request.param == "fp32":
        monkeypatch.setattr(embedding, "_has_bf16", lambda: False)
    return MiniLM()


def test_vectors_agree_with_the_library_in_order(encoder: MiniLM, expected: np.ndarray) -> None:
    vectors = encoder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = (vectors * expected).sum(axis=1)
    assert cosines.min() >= 0.999
    # The same comparison fails when rows change places: different texts are far apart.
    assert (vectors[:-1] * expected[1:]).sum(axis=1).min() < 0.9


def test_fp32_vectors_are_the_librarys(monkeypatch: pytest.MonkeyPatch, expected: np.ndarray) -> None:
    monkeypatch.setattr(embedding, "_has_bf16", lambda: False)
    np.testing.assert_allclose(MiniLM().embed(TEXTS), expected, atol=1e-5)


def test_equal_texts_have_equal_vectors_and_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MiniLM()
    encode, seen = encoder._encode, list[str]()

    def spy(texts: list[str], rows: list[int], vectors: np.ndarray) -> None:
        seen.extend(texts)
        encode(texts, rows, vectors)

    monkeypatch.setattr(encoder, "_encode", spy)
    vectors = encoder.embed(["b", "a", "b", "", "a", "b"])
    assert sorted(seen) == ["", "a", "b"]
    assert (vectors[[0, 1, 0, 3, 1, 0]] == vectors).all()
    assert len(np.unique(vectors, axis=0)) == 3


def test_texts_tokenized_in_parts_keep_their_places(monkeypatch: pytest.MonkeyPatch, expected: np.ndarray) -> None:
    monkeypatch.setattr(embedding, "TEXTS_AT_ONCE", 3)
    monkeypatch.setattr(embedding, "TOKENS_PER_BATCH", 64)
    assert (MiniLM().embed(TEXTS) * expected).sum(axis=1).min() >= 0.999


def test_no_text_gives_no_row_and_loads_nothing() -> None:
    encoder = MiniLM()
    assert encoder.embed([]).shape == (0, DIMENSIONS)
    assert encoder._loaded is None


def test_encoding_leaves_the_callers_threads_alone() -> None:
    import torch

    before = torch.get_num_threads()
    MiniLM().embed(["a", "b"])
    assert torch.get_num_threads() == before


@given(lengths=st.lists(st.integers(1, 300)), budget=st.integers(1, 600))
def test_batches_hold_every_text_once_within_the_budget_shortest_first(lengths: list[int], budget: int) -> None:
    packed = list(batches(lengths, budget))
    order = [position for batch in packed for position in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[position] for position in order] == sorted(lengths)
    sizes = [sum(lengths[position] for position in batch) for batch in packed]
    assert all(size <= budget or len(batch) == 1 for size, batch in zip(sizes, packed, strict=True))
    # No batch ends before it has to: the next text would not fit.
    assert all(size + lengths[after[0]] > budget for size, after in zip(sizes, packed[1:], strict=False))
