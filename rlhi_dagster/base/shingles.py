"""Runs of codes in a row, as hashes: what near-identical and copied texts have in common.

What belongs here: words of a text, and hashes of all runs of so many codes (words or characters). What does not: which texts are compared
and what is made of the hashes (``conversations/templates.py``, ``preferences/duplicates.py``, ``preferences/decontamination.py``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Hashes = npt.NDArray[np.uint64]

_PRIME = 0x9E3779B97F4A7C15
_NO_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}"
"""Scripts that write words without spaces: each of their characters counts as a word."""
_WORD = rf"[{_NO_SPACES}]|[\p{{L}}\p{{M}}\p{{N}}--[{_NO_SPACES}]]+"


def words(texts: pl.Expr) -> pl.Expr:
    """The words of each text in lower case, without punctuation, symbols and white space: lists of strings."""
    return texts.str.to_lowercase().str.extract_all(_WORD)


def tokens(texts: pl.Expr) -> pl.Expr:
    """As `words`, and beside them every punctuation mark, symbol and line break: the layout counts, the width of white space does not."""
    return texts.str.to_lowercase().str.extract_all(rf"{_WORD}|[^\s]|\n")


def coded(lists: pl.Series) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """A hash of every string of every list in order, (strings,), and how many strings each list has, (lists,).

    Hashes are the same within one version of Polars only: compare, do not store.
    """
    hashes = lists.explode(empty_as_null=False).hash(seed=0).to_numpy().astype(np.uint64)
    return hashes, lists.list.len().to_numpy().astype(np.int64)


def runs(codes: Hashes, counts: npt.NDArray[np.int64], length: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hash every run of ``length`` codes within each text.

    Args:
        codes: The codes of all texts, one text after the other, (codes,).
        counts: Codes of each text, (texts,).
        length: Codes in a run; at least 1.

    Returns:
        The hashes in order, one text after the other, and how many each text has: none where it is shorter than a run.
    """
    of_texts = np.maximum(counts - length + 1, 0)
    if len(codes) < length:
        return np.zeros(0, np.uint64), of_texts
    hashes = np.zeros(len(codes) - length + 1, dtype=np.uint64)
    for place in range(length):
        hashes *= np.uint64(_PRIME)  # wraps around: a polynomial modulo 2**64
        hashes += codes[place : place + len(hashes)]
    # A run that starts within the last ``length - 1`` codes before any end of a text spans two of them.
    spans_two = (np.cumsum(counts)[:, None] - np.arange(1, length)).ravel()
    return mixed(np.delete(hashes, spans_two[(spans_two >= 0) & (spans_two < len(hashes))])), of_texts


def mixed(hashes: Hashes) -> Hashes:
    """Spread what differs over all 64 bits; changes ``hashes`` in place."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(_PRIME)
    hashes ^= hashes >> np.uint64(29)
    return hashes
