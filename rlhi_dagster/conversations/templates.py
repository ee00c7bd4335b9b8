"""Opening requests that many conversations share: prompts copied from a collection rather than written by the user.

What belongs here: which opening requests count as near-identical. What does not: what is done about them (counts are shown with and
without template traffic in ``rlhi_dagster.feedback``).

Two openings are near-identical if the first `HEAD_CHARACTERS` characters are equal after folding case, numbers and white space. That
misses templates whose variable part comes first or is a word; MinHash over the whole request is the next step.
"""

from __future__ import annotations

import hashlib

import polars as pl

HEAD_CHARACTERS = 200
MIN_HEAD_CHARACTERS = 80
"""Shorter openings ("hello", "write a poem") are alike by chance."""
MIN_CONVERSATIONS = 5


def head(opening: pl.Expr) -> pl.Expr:
    """The folded beginning of an opening request; null if it is too short to tell a template by.

    Only the first four times `HEAD_CHARACTERS` characters are looked at, so that a long request costs no more than a short one.
    """
    folded = (
        opening.str.head(4 * HEAD_CHARACTERS)
        .str.to_lowercase()
        .str.replace_all(r"\d+", "0")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
        .str.head(HEAD_CHARACTERS)
    )
    return pl.when(folded.str.len_chars() >= MIN_HEAD_CHARACTERS).then(folded)


def digests(heads: pl.Series) -> pl.DataFrame:
    """The id of each distinct head (columns ``head``, ``template_id``): a digest of its text, so the same in every run."""
    distinct = heads.drop_nulls().unique().sort()
    ids = [hashlib.blake2b(text.encode(), digest_size=8, person=b"template").hexdigest() for text in distinct]
    return pl.DataFrame(
        {"head": distinct, "template_id": pl.Series(ids, dtype=pl.String)}, schema={"head": pl.String, "template_id": pl.String}
    )


def template_ids(conversations: pl.DataFrame) -> pl.DataFrame:
    """Cluster the conversations of a run by their opening request.

    Args:
        conversations: ``conversation_id`` and ``messages`` as in `tables.CONVERSATIONS`; the first message is the opening request.

    Returns:
        ``conversation_id`` and ``template_id``, in the order of ``conversations``; null where fewer than `MIN_CONVERSATIONS`
        conversations share the opening.
    """
    opening = pl.col("messages").list.first().struct.field("content")
    heads = conversations.select("conversation_id", head(opening).alias("head"))
    crowded = heads.group_by("head").len().filter(pl.col("head").is_not_null(), pl.col("len") >= MIN_CONVERSATIONS)
    joined = heads.join(digests(crowded["head"]), on="head", how="left", maintain_order="left")
    return joined.select("conversation_id", "template_id")
