"""Opening requests that many conversations share: prompts copied from a collection rather than written by the user.

What belongs here: which opening requests count as near-identical (MinHash signatures and their clusters). What does not: what is done
about them (counts are shown with and without template traffic in ``rlhi_dagster.feedback``). ``docs/concepts/templates.md`` has the
measurements.

Our choices:

- Shingles are character n-grams, so that scripts without spaces need no word splitter.
- Of a long request the beginning and the end are signed: what is fixed is seen even if the variable part in front of it is long.
- A row is compared with the earliest row of each of its buckets only (linear time), and joins a cluster only if it is similar to the
  cluster's earliest member itself: a chain of similar pairs merges nothing. A row's cluster depends on earlier rows only.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl
import rensa

from rlhi_dagster.base.shingles import runs

MIN_CHARACTERS = 80
"""Shorter openings ("hello", "write a poem") are alike by chance."""
MIN_CONVERSATIONS = 5

END_CHARACTERS = 1024
"""Of an opening longer than twice this, the first and the last so many characters are signed."""
SHINGLE_CHARACTERS = 5
PERMUTATIONS = 64
SIGNATURE = pl.Array(pl.UInt16, PERMUTATIONS)
"""128 bytes; of each 32-bit minimum the low half is kept (two different ones are equal by chance once in 65,536)."""
BANDS, BAND_VALUES = 21, 3
MIN_SIMILARITY = 0.4
"""Estimated Jaccard similarity to the earliest member of a cluster, from which on a row belongs to it."""
ORDER = ("started_at", "source_file", "row_number")

_SEED = 20240501
_ROUNDS = 8
_SLICE_ROWS = 256
_PAIRS = 1 << 18


def folded(opening: pl.Expr) -> pl.Expr:
    """The signed part of an opening, folded in case, numbers and white space; null if it is too short to tell a template by."""
    is_long = opening.str.len_chars() > 2 * END_CHARACTERS
    ends = pl.when(is_long).then(opening.str.head(END_CHARACTERS) + " " + opening.str.tail(END_CHARACTERS)).otherwise(opening)
    text = ends.str.to_lowercase().str.replace_all(r"\d+", "0").str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(text.str.len_chars() >= MIN_CHARACTERS).then(text)


def signatures(opening: pl.Expr) -> pl.Expr:
    """The MinHash signature of an opening request (`SIGNATURE`); null if it is too short to tell a template by.

    Depends on the text alone: the same in every batch, process and run.
    """
    return folded(opening).map_batches(_signed, return_dtype=SIGNATURE, is_elementwise=True)


def clusters(rows: pl.DataFrame) -> pl.DataFrame:
    """Find the templates among the signatures of accepted rows.

    Args:
        rows: `ORDER` (unique together) and ``signature`` (`SIGNATURE`).

    Returns:
        ``source_file``, ``row_number`` and ``template_id`` of the rows in clusters of at least `MIN_CONVERSATIONS`. The id is a digest
        of the signature of the cluster's earliest row, so rows that start later change no id.
    """
    ordered = rows.drop_nulls("signature").sort(ORDER, nulls_last=True)
    values = ordered["signature"].to_numpy().reshape(len(ordered), PERMUTATIONS)
    found = ordered.select("source_file", "row_number").with_columns(pl.Series("leader", leaders(values), dtype=pl.Int64))
    crowded = found.filter(pl.len().over("leader") >= MIN_CONVERSATIONS)
    first = crowded["leader"].unique().sort()
    ids = [hashlib.blake2b(values[row].astype("<u2").tobytes(), digest_size=8, person=b"template").hexdigest() for row in first]
    named = pl.DataFrame({"leader": first, "template_id": pl.Series(ids, dtype=pl.String)})
    return crowded.join(named, on="leader", how="left", maintain_order="left").drop("leader")


def leaders(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """The earliest row of the cluster of each row.

    In a round, a row without a similar bucket representative leads, one similar to a row that leads joins it, and one similar only to
    rows that joined others waits for the next round. What waits after `_ROUNDS` rounds stays alone.

    Args:
        values: Signatures in order of time, (rows, `PERMUTATIONS`).

    Returns:
        Row numbers, (rows,); a row that is alone is its own leader.
    """
    leader = np.arange(len(values))
    waiting = leader
    for _ in range(_ROUNDS):
        if not len(waiting):
            break
        joined, is_free = _round(values[waiting])
        is_joined = joined >= 0
        leader[waiting[is_joined]] = waiting[joined[is_joined]]
        waiting = waiting[~is_joined & ~is_free]
    return leader


def similarity(values: npt.NDArray[np.uint16], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of pairs of rows: the share of equal values, (pairs,)."""
    parts = [(values[left[i : i + _PAIRS]] == values[right[i : i + _PAIRS]]).mean(axis=1) for i in range(0, len(left), _PAIRS)]
    return np.concatenate([np.empty(0), *parts])


def _round(values: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each row the earliest leading row that it is similar to (-1: none), and whether it leads itself."""
    rows = np.arange(len(values))
    similar: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    is_free = np.ones(len(values), dtype=np.bool_)
    for band in range(BANDS):
        first = _first_of_bucket(values[:, band * BAND_VALUES : (band + 1) * BAND_VALUES])
        late = rows[first != rows]
        late = late[similarity(values, late, first[late]) >= MIN_SIMILARITY]
        is_free[late] = False
        similar.append((late, first[late]))
    joined = np.full(len(values), len(values))
    for late, early in similar:
        leads = is_free[early]
        joined[late[leads]] = np.minimum(joined[late[leads]], early[leads])
    return np.where(joined < len(values), joined, -1), is_free


def _first_of_bucket(band: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    key = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        key = (key << np.uint64(16)) | column
    keyed = pl.DataFrame({"key": key}).with_row_index("row")
    return keyed.select(pl.col("row").min().over("key").cast(pl.Int64)).to_series().to_numpy()


def _signed(texts: pl.Series) -> pl.Series:
    if texts.null_count() == len(texts):
        return pl.Series(texts.name, [None] * len(texts), dtype=SIGNATURE)
    known = texts.drop_nulls().to_list()
    values = np.concatenate([_minima(known[i : i + _SLICE_ROWS]) for i in range(0, len(known), _SLICE_ROWS)])
    place = texts.is_not_null().cum_sum().cast(pl.Int64) - 1
    found = pl.Series(texts.name, values, dtype=SIGNATURE)
    return found.gather(pl.select(pl.when(texts.is_not_null()).then(place)).to_series()).alias(texts.name)


def _minima(texts: list[str]) -> npt.NDArray[np.uint16]:
    """Signatures of texts of at least `SHINGLE_CHARACTERS` characters, (texts, `PERMUTATIONS`)."""
    characters = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    hashes, counts = runs(characters, np.array([len(text) for text in texts]), SHINGLE_CHARACTERS)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).astype(np.uint16)
