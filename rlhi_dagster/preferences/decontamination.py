"""Pairs whose prompt repeats an evaluation item: what they teach must not be what checkpoints are tried on.

What belongs here: which pairs repeat which item, and how that was seen. What does not: which benchmarks there are (``evaluation/``) and
what becomes of the pairs (``merge.py``).

An item is known by its request, its last user message. A pair repeats it

- ``ngram``: if some user message of the pair's prompt has ``ngram_words`` words in a row that the request has too;
- ``whole_item``: if the request is shorter than that, and stands as a whole in some user message; one of fewer than four words ("Hi")
  stands in many, and must be the last of them: what the replies answer;
- ``embedding``: if the last user messages are similar (cosine of MiniLM) and name the same numbers equally often: the same problem with
  other numbers is another problem. MiniLM reads English: texts most of whose letters are not Latin are not embedded, for it takes
  unrelated ones for alike.

Words are compared in lower case, without punctuation. Matching goes by 64-bit hashes of words in a row: linear in the words of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

import numpy as np
import polars as pl

from rlhi_dagster.base.shingles import coded, runs, words

LEAST_RUN_WORDS = 4
"""Shorter requests are not looked for within messages."""
HITS = pl.Schema({"pair_id": pl.String(), "prompt_id": pl.String(), "kind": pl.String(), "similarity": pl.Float64()})

Embed = Callable[[Sequence[str]], np.ndarray]
"""Unit vectors of texts, (texts, dimensions)."""

_SLICE_ROWS = 16_384
_BLOCK_TEXTS = 65_536
_BLOCK_SCORES = 1 << 24


class Kind(StrEnum):
    """How a pair was seen to repeat an item."""

    NGRAM = "ngram"
    WHOLE_ITEM = "whole_item"
    EMBEDDING = "embedding"


def hits(pairs: pl.DataFrame, items: pl.DataFrame, ngram_words: int, min_similarity: float | None, embed: Embed) -> pl.DataFrame:
    """Find the pairs that repeat an evaluation item.

    Args:
        pairs: Columns ``pair_id`` and ``prompt``.
        items: Columns ``prompt_id`` and ``prompt``.
        ngram_words: Words in a row that make a hit.
        min_similarity: Cosine similarity that makes a hit; ``None`` embeds nothing.
        embed: Called for the texts that have a counterpart with the same numbers.

    Returns:
        ``HITS``, one row for each pair that repeats some item: the first kind that applies, of the items it applies to the smallest id
        (``embedding``: the most similar item); ``similarity`` is null where no embedding was needed. Sorted by ``pair_id``.
    """
    requests = items.select("prompt_id", text=last_request(pl.col("prompt"))).drop_nulls().sort("prompt_id")
    verbatim = _verbatim(pairs.select("pair_id", text=user_messages(pl.col("prompt"))), requests, ngram_words)
    found = [HITS.to_frame(), verbatim]
    if min_similarity is not None:
        left = pairs.join(verbatim, on="pair_id", how="anti").select("pair_id", text=last_request(pl.col("prompt"))).drop_nulls()
        found.append(_similar(left, requests, min_similarity, embed))
    return pl.concat(found).sort("pair_id")


def user_messages(prompt: pl.Expr) -> pl.Expr:
    """The texts of all user messages of each prompt: lists of strings."""
    return prompt.list.eval(pl.element().struct["content"].filter(pl.element().struct["role"] == "user"))


def last_request(prompt: pl.Expr) -> pl.Expr:
    """The text of the last user message of each prompt; null if it has none."""
    return user_messages(prompt).list.last()


def by_message(pairs: pl.DataFrame) -> pl.DataFrame:
    """A row for each user message.

    Args:
        pairs: Column ``text``, the list of user messages, and others.

    Returns:
        The others, ``text``, and ``is_last``: whether the replies answer this message.
    """
    counted = pairs.with_columns(place=pl.int_ranges(pl.col("text").list.len()), last=pl.col("text").list.len().cast(pl.Int64()) - 1)
    rows = counted.explode("text", "place", empty_as_null=False).drop_nulls("text")
    return rows.with_columns(is_last=pl.col("place") == pl.col("last")).drop("place", "last")


def _verbatim(pairs: pl.DataFrame, requests: pl.DataFrame, ngram_words: int) -> pl.DataFrame:
    """``HITS`` by words alone. ``pairs`` has the column ``text``, the list of user messages."""
    codes, counts = coded(requests.select(words(pl.col("text"))).to_series())
    indexes = {}
    for length in sorted(set(np.minimum(counts, ngram_words).tolist()) - {0}):
        of_length = counts >= ngram_words if length == ngram_words else counts == length
        hashes, found = runs(codes[np.repeat(of_length, counts)], counts[of_length], length)
        owners = np.repeat(np.flatnonzero(of_length), found)
        # The smallest id of each run: requests are in the order of their ids.
        distinct, first = np.unique(hashes, return_index=True)
        indexes[length] = distinct, owners[first]
    met = [pl.DataFrame(schema={"pair_id": pl.String(), "item": pl.Int64(), "is_long": pl.Boolean()})]
    for part in by_message(pairs).iter_slices(_SLICE_ROWS):
        codes, counts = coded(part.select(words(pl.col("text"))).to_series())
        for length, (known, owners) in indexes.items():
            is_whole = length < min(LEAST_RUN_WORDS, ngram_words)
            usable = (counts == length) & part["is_last"].to_numpy() if is_whole else counts >= length
            hashes, found = runs(codes[np.repeat(usable, counts)], counts[usable], length)
            place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            is_hit = known[place] == hashes
            rows = np.repeat(np.flatnonzero(usable), found)[is_hit]
            hit = {"pair_id": part["pair_id"].gather(rows), "item": owners[place[is_hit]], "is_long": [length == ngram_words] * len(rows)}
            met.append(pl.DataFrame(hit, schema=met[0].schema))
    best = pl.concat(met).sort("pair_id", "is_long", "item", descending=[False, True, False]).unique("pair_id", keep="first")
    kind = pl.when("is_long").then(pl.lit(Kind.NGRAM.value)).otherwise(pl.lit(Kind.WHOLE_ITEM.value))
    named = best.with_columns(prompt_id=requests["prompt_id"].gather(best["item"]), kind=kind, similarity=pl.lit(None, pl.Float64()))
    return named.select(HITS.names())


def _similar(pairs: pl.DataFrame, requests: pl.DataFrame, min_similarity: float, embed: Embed) -> pl.DataFrame:
    """``HITS`` by embedding. ``pairs`` has the column ``text``, the last user message."""
    numbers = pl.col("text").str.extract_all(r"\d+(?:[.,]\d+)*").list.sort().list.join(" ").alias("numbers")
    is_legible = 2 * pl.col("text").str.count_matches(r"\p{Latin}") >= pl.col("text").str.count_matches(r"\p{L}")
    known = requests.filter(is_legible).with_columns(numbers).unique("text", keep="first", maintain_order=True)
    asked = (
        pairs.filter(is_legible)
        .select("text")
        .unique()
        .sort("text")
        .with_columns(numbers)
        .join(known, on="numbers", how="semi", maintain_order="left")
    )
    known = known.join(asked, on="numbers", how="semi", maintain_order="left")
    found = [pl.DataFrame(schema={"text": pl.String(), "prompt_id": pl.String(), "similarity": pl.Float64()})]
    of_items: np.ndarray | None = None
    for part in asked.iter_slices(_BLOCK_TEXTS):
        if of_items is None:  # Together with the first block: every call may start a worker.
            both = embed([*known["text"], *part["text"]])
            of_items, vectors = both[: len(known)], both[len(known) :]
        else:
            vectors = embed(part["text"].to_list())
        for rows, columns in _with_equal_numbers(part["numbers"], known["numbers"]):
            score = vectors[rows] @ of_items[columns].T
            best, most = columns[score.argmax(axis=1)], score.max(axis=1)
            is_hit = most >= min_similarity
            hit = {
                "text": part["text"].gather(rows[is_hit]),
                "prompt_id": known["prompt_id"].gather(best[is_hit]),
                "similarity": most[is_hit],
            }
            found.append(pl.DataFrame(hit, schema=found[0].schema, strict=False))
    named = pairs.join(pl.concat(found), on="text", how="inner").with_columns(kind=pl.lit(Kind.EMBEDDING.value))
    return named.select(HITS.names())


def _with_equal_numbers(left: pl.Series, right: pl.Series) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of (rows of ``left``, all rows of ``right`` with the same value) of at most `_BLOCK_SCORES` cells, or one row of them."""
    others = pl.DataFrame({"key": right}).with_row_index("other").group_by("key", maintain_order=True).agg("other")
    grouped = pl.DataFrame({"key": left}).with_row_index("row").group_by("key", maintain_order=True).agg("row").join(others, on="key")
    for rows, columns in grouped.select("row", "other").iter_rows():
        height = max(_BLOCK_SCORES // len(columns), 1)
        for start in range(0, len(rows), height):
            yield np.array(rows[start : start + height]), np.array(columns)
