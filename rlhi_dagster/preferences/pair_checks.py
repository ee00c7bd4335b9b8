"""What must hold of preference pairs: none lost on the way, none of a held-out user, none that an evaluation set contains.

What belongs here: the properties of that table and of the tables that its pairs come from, as functions of frames. What does not: which of
them block (``assets/``).
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.shingles import words
from rlhi_dagster.preferences.decontamination import LEAST_RUN_WORDS, by_message, last_request, user_messages
from rlhi_dagster.preferences.merge import contamination, eval_items
from rlhi_dagster.preferences.settings import DecontaminationSettings

EXAMPLES = 10
"""Of each kind of hit so many are shown."""
_SLICE_ROWS = 16_384


def offered_pairs_are_conserved(
    pairs: pl.LazyFrame, rewrite: pl.LazyFrame, reward: pl.LazyFrame, reasoning: pl.LazyFrame, explicit: pl.LazyFrame
) -> Finding:
    """Every kept pair of every source is in the table once, kept or dropped with a reason, and no other pair is.

    Args:
        pairs: ``PREFERENCE_PAIRS``.
        rewrite: ``REWRITE_PAIRS``; columns ``pair_id`` and ``is_kept``, as of the other sources.
        reward: ``REWARD_PAIRS``.
        reasoning: ``REASONING_PAIRS``.
        explicit: ``EXPLICIT_PAIRS``.
    """
    offered = pl.concat([source.filter("is_kept").select("pair_id") for source in (rewrite, reward, reasoning, explicit)])
    counted = offered.group_by("pair_id").agg(offered=pl.len())
    found = pairs.group_by("pair_id").agg(
        found=pl.len(), is_told=(pl.col("is_kept") == (pl.col("drop_reasons").list.len() == 0)).fill_null(False).all()
    )
    both = counted.join(found, on="pair_id", how="full", coalesce=True).with_columns(pl.col("offered", "found").fill_null(0))
    numbers = both.select(
        offered_pairs=pl.col("offered").sum(),
        pairs=pl.col("found").sum(),
        lost_pairs=(pl.col("found") < pl.col("offered")).sum(),
        made_up_pairs=(pl.col("found") > pl.col("offered")).sum(),
        pairs_without_a_word_why=(~pl.col("is_told").fill_null(True)).sum(),
    ).collect(engine="streaming")
    counts = {name: int(value) for name, value in numbers.row(0, named=True).items()}
    return Finding(not any(list(counts.values())[2:]), counts)


def pairs_are_decontaminated(pairs: pl.LazyFrame, eval_prompts: pl.LazyFrame, settings: DecontaminationSettings) -> Finding:
    """No kept pair has an evaluation item's words in a user message, or was seen to repeat one in another way.

    The words are compared once more, with plain sets of strings instead of the hashes that dropped the pairs.

    Args:
        pairs: ``PREFERENCE_PAIRS``.
        eval_prompts: ``EVAL_PROMPTS``.
        settings: What counts as an item's words.
    """
    items = eval_items(eval_prompts.collect(), settings.benchmarks)
    asked = items.select(words(last_request(pl.col("prompt"))).alias("words")).drop_nulls().to_series().to_list()
    size = settings.ngram_words
    entire = {" ".join(said) for said in asked if 0 < len(said) < min(LEAST_RUN_WORDS, size)}
    within: dict[int, set[str]] = {}
    for said in asked:
        length = min(len(said), size)
        if length >= min(LEAST_RUN_WORDS, size):
            within.setdefault(length, set()).update(_runs(said, length))
    kept = pairs.filter("is_kept").select("pair_id", "contaminated_by", text=user_messages(pl.col("prompt"))).collect()
    repeating = set(kept.filter(pl.col("contaminated_by").is_not_null())["pair_id"])
    for part in by_message(kept).iter_slices(_SLICE_ROWS):
        for pair_id, said, is_last in part.select("pair_id", words(pl.col("text")), "is_last").iter_rows():
            is_entire = is_last and " ".join(said) in entire
            if is_entire or any(run in known for length, known in within.items() for run in _runs(said, length)):
                repeating.add(pair_id)
    dropped = contamination(pairs.collect())
    kinds = {f"dropped/{kind}": n for kind, n in dropped.group_by("kind").len().sort("kind").iter_rows()}
    numbers = {
        "benchmarks": sorted(items["benchmark"].unique()),
        "items": len(items),
        "kept_pairs": len(kept),
        "kept_pairs_that_repeat_an_item": len(repeating),
        **({"kept_examples": sorted(repeating)[:EXAMPLES]} if repeating else {}),
        **kinds,
        "dropped_examples": dropped.group_by("kind", maintain_order=True).head(EXAMPLES),
    }
    return Finding(not repeating, numbers)


def no_held_out_user_in_training(pairs: pl.LazyFrame, users: pl.LazyFrame) -> Finding:
    """No pair comes from a tuning or test user, or from a user whose split is unknown; pairs without a user are not concerned.

    Args:
        pairs: Column ``user_id``.
        users: Columns ``user_id`` and ``split``.
    """
    joined = pairs.select("user_id").drop_nulls().join(users.select("user_id", "split"), on="user_id", how="left")
    counts = dict(joined.group_by("split").len().collect(engine="streaming").iter_rows())
    rows, unknown = sum(counts.values()), counts.get(None, 0)
    held_out = rows - unknown - counts.get("train", 0)
    return Finding(held_out + unknown == 0, {"pairs_of_users": rows, "held_out_pairs": held_out, "unknown_user_pairs": unknown})


def chosen_differs_from_rejected(pairs: pl.LazyFrame) -> Finding:
    """In every kept pair, both replies are there and differ in more than white space.

    Args:
        pairs: Columns ``chosen``, ``rejected`` and ``is_kept``; a pair of which that is unknown counts as kept.
    """
    kept = pairs.filter(pl.col("is_kept").fill_null(True))
    chosen, rejected = (pl.col(name).str.replace_all(r"\s+", " ").str.strip_chars() for name in ("chosen", "rejected"))
    missing = (chosen.fill_null("") == "") | (rejected.fill_null("") == "")
    rows, same, empty = (
        kept.select(pl.len(), (~missing & (chosen == rejected)).sum().alias("same"), missing.sum().alias("empty"))
        .collect(engine="streaming")
        .row(0)
    )
    return Finding(same + empty == 0, {"kept_pairs": rows, "identical_pairs": same, "pairs_with_an_empty_side": empty})


def requests_are_accounted_for(pairs: pl.LazyFrame, candidates: pl.LazyFrame) -> Finding:
    """Every request with candidates has a row for each persona condition, kept or dropped, and no other request has one.

    Args:
        pairs: Columns ``turn_id`` and ``condition``.
        candidates: Column ``turn_id``.
    """
    conditions = pl.LazyFrame({"condition": ["own", "shuffled", "none"]})
    requests = candidates.select("turn_id").unique()
    missing = requests.join(conditions, how="cross").join(pairs, on=["turn_id", "condition"], how="anti")
    unknown = pairs.select("turn_id").unique().join(requests, on="turn_id", how="anti")
    count, lost, extra = (frame.select(pl.len()).collect(engine="streaming").item() for frame in (requests, missing, unknown))
    return Finding(lost + extra == 0, {"requests": count, "missing_pairs": lost, "unknown_requests": extra})


def rewrites_are_conserved(rewrites: pl.LazyFrame, pairs: pl.LazyFrame) -> Finding:
    """Every rewrite is one pair with the same text, and every pair is either kept or dropped with a reason.

    Args:
        rewrites: Columns ``rewrite_id`` and ``rewrite``.
        pairs: Columns ``pair_id``, ``chosen``, ``is_kept`` and ``drop_reasons``.
    """
    made = rewrites.select("rewrite_id", pl.col("rewrite").fill_null(""), pl.lit(True).alias("is_rewrite"))
    joined = made.join(pairs.with_columns(is_pair=pl.lit(True)), left_on="rewrite_id", right_on="pair_id", how="full", coalesce=True)
    both = pl.col("is_rewrite") & pl.col("is_pair")
    has_reason = pl.col("drop_reasons").list.len().fill_null(0) > 0
    numbers = joined.select(
        kept_pairs=pl.col("is_kept").sum(),
        dropped_pairs=(~pl.col("is_kept")).sum(),
        lost_rewrites=pl.col("is_pair").is_null().sum(),
        pairs_of_no_rewrite=pl.col("is_rewrite").is_null().sum(),
        changed_rewrites=(both & pl.col("rewrite").ne_missing(pl.col("chosen"))).sum(),
        repeated_pairs=pl.len() - pl.col("rewrite_id").n_unique(),
        undecided_pairs=(pl.col("is_pair") & pl.col("is_kept").eq_missing(has_reason)).sum(),
    )
    found = numbers.select(pl.all().cast(pl.Int64)).collect(engine="streaming").row(0, named=True)
    faults = ("lost_rewrites", "pairs_of_no_rewrite", "changed_rewrites", "repeated_pairs", "undecided_pairs")
    return Finding(not any(found[name] for name in faults), found)


def _runs(said: list[str], length: int) -> Iterable[str]:
    return (" ".join(said[start : start + length]) for start in range(len(said) - length + 1))
