"""Pairs of one source that say the same thing twice, exactly or nearly.

What belongs here: which pairs are duplicates of which. What does not: what else a pair may be dropped for (``merge.py``).

Our choices:

- Exact: persona, prompt and both replies are equal but for case and white space.
- Near: persona and prompt together, the preferred reply and the dispreferred one each share so many of their runs of five words
  (Jaccard). All three must: turns of one long conversation share most of their prompt, and are not duplicates; a pair the other way round
  is a contradiction, not a duplicate. Punctuation marks and line breaks count as words, for the layout is what some users ask for; a part
  of fewer than five words must be equal.
- In order of ``pair_id`` a pair is compared with the earlier ones that stay, and falls to the first that it resembles itself: a chain of
  similar pairs merges nothing, and the order of rows makes no difference.
- MinHash finds whom to compare (rensa's R-MinHash, as in ``conversations/templates.py``), true Jaccard decides. Time is linear: of the
  pairs in a bucket only the first ``MOST_COMPARED`` that stay are compared with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import rensa

from rlhi_dagster.base.shingles import Hashes, coded, mixed, runs, tokens
from rlhi_dagster.engines.models import digest_of

SHINGLE_WORDS = 5
BANDS = 16
BAND_VALUES = (4, 2, 2)
"""Signature values of prompt, preferred and dispreferred reply in a bucket's key. At 0.9 in all three a pair of pairs shares a bucket with
probability 0.9998 at least, at 0.7 with 0.61 at most."""
MOST_COMPARED = 64

_Parts = tuple[Hashes, ...]
"""The distinct runs of words of each part of a pair, sorted."""
_SEED = 20240501
_SLICE_ROWS = 4096
_FIELDS = ("text", "chosen", "rejected")


def duplicates(pairs: pl.DataFrame, least_jaccard: float) -> pl.DataFrame:
    """Find the pairs that repeat another one of their source.

    Args:
        pairs: Columns ``pair_id`` (unique), ``source``, ``persona``, ``prompt``, ``chosen`` and ``rejected``, without nulls.
        least_jaccard: Similarity of each part from which on pairs are near duplicates, in (0, 1]; 1 takes the same runs of five words.

    Returns:
        ``pair_id``, ``reason`` (``exact_duplicate`` or ``near_duplicate``) and ``duplicate_of``, the pair that stays, of those that do not.
    """
    said = pl.col("prompt").list.eval(pl.format("{}: {}", pl.element().struct["role"], pl.element().struct["content"])).list.join("\n")
    rows = pairs.sort("pair_id").select("pair_id", "source", pl.format("{}\n{}", "persona", said).alias("text"), "chosen", "rejected")
    folded = rows.select("source", *(pl.col(name).str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars() for name in _FIELDS))
    content = pl.Series([digest_of(*row) for row in folded.iter_rows()], dtype=pl.String())
    first = rows.select("pair_id", pl.col("pair_id").first().over(content).alias("first"))
    distinct = rows.filter(first["pair_id"] == first["first"])
    nearest = leaders(distinct, least_jaccard)
    stays = pl.DataFrame({"first": distinct["pair_id"], "duplicate_of": distinct["pair_id"].gather(nearest)})
    reason = pl.when(pl.col("pair_id") != pl.col("first")).then(pl.lit("exact_duplicate")).otherwise(pl.lit("near_duplicate"))
    named = first.join(stays, on="first", how="left", maintain_order="left")
    return named.filter(pl.col("pair_id") != pl.col("duplicate_of")).select("pair_id", reason.alias("reason"), "duplicate_of")


def leaders(rows: pl.DataFrame, least_jaccard: float) -> npt.NDArray[np.int64]:
    """The earliest row that each row resembles and that itself resembles no earlier one; a row without such is its own.

    Args:
        rows: Columns ``source``, ``text``, ``chosen`` and ``rejected``, in the order in which they take precedence.
        least_jaccard: As in `duplicates`.

    Returns:
        Row numbers, (rows,).
    """
    keys = _bucket_keys(rows)
    values, counts = np.unique(keys, return_counts=True)
    crowded = np.flatnonzero(np.isin(keys, values[counts > 1]).any(axis=1))
    shingles = dict(zip(crowded.tolist(), _shingle_sets(rows[crowded]), strict=True))
    leader = np.arange(len(rows))
    leading: dict[int, list[int]] = {}
    for row in crowded.tolist():
        buckets = [leading.setdefault(key, []) for key in keys[row].tolist()]
        met = sorted({early for bucket in buckets for early in bucket})
        found = next((early for early in met if _is_similar(shingles[row], shingles[early], least_jaccard)), row)
        leader[row] = found
        if found == row:
            for bucket in buckets:
                if len(bucket) < MOST_COMPARED:
                    bucket.append(row)
    return leader


def _is_similar(left: _Parts, right: _Parts, least_jaccard: float) -> bool:
    for one, other in zip(left, right, strict=True):
        if min(len(one), len(other)) < least_jaccard * max(len(one), len(other)):
            return False
        shared = len(np.intersect1d(one, other, assume_unique=True))
        if shared < least_jaccard * (len(one) + len(other) - shared):
            return False
    return True


def _bucket_keys(rows: pl.DataFrame) -> Hashes:
    """Keys of the buckets of each row, (rows, `BANDS`); rows of different sources share none, nor do different bands."""
    source = rows["source"].hash(seed=1).to_numpy().astype(np.uint64)[:, None]
    keys: Hashes = np.add(np.repeat(source, BANDS, axis=1), np.arange(BANDS, dtype=np.uint64), dtype=np.uint64)
    for field, values in zip(_FIELDS, BAND_VALUES, strict=True):
        signed = _signatures(rows[field], BANDS * values).reshape(len(rows), BANDS, values)
        for place in range(values):
            keys = mixed(keys ^ signed[:, :, place])
    return keys


def _signatures(texts: pl.Series, size: int) -> Hashes:
    parts = [np.zeros((0, size), np.uint64)]
    for start in range(0, len(texts), _SLICE_ROWS):
        hashes, counts = _shingles(texts[start : start + _SLICE_ROWS])
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, size, _SEED)
        parts.append(np.array(matrix.to_rows(), dtype=np.uint64))
    return np.concatenate(parts)


def _shingle_sets(rows: pl.DataFrame) -> list[_Parts]:
    """The distinct runs of each part of each row."""
    sets = []
    for field in _FIELDS:
        hashes, counts = _shingles(rows[field])
        sets.append([np.unique(part) for part in np.split(hashes, np.cumsum(counts)[:-1])] if len(rows) else [])
    return list(zip(*sets, strict=True))


def _shingles(texts: pl.Series) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hashes of the runs of words of each text, at least one: a text of fewer words than a run is filled up to one."""
    codes, counts = coded(pl.select(tokens(pl.lit(texts))).to_series())
    filled = np.maximum(counts, SHINGLE_WORDS)
    padded = np.zeros(int(filled.sum()), np.uint64)
    starts = np.cumsum(filled) - filled
    padded[np.arange(len(codes)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)] = codes
    return runs(padded, filled, SHINGLE_WORDS)
