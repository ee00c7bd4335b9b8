"""What must hold of ``preference_pairs``: no pair lost on the way, none that an evaluation set contains.

What belongs here: the properties of that table as functions of frames, and the blocking asset checks made of them. What does not:
properties that other tables share (``rlhi_dagster.checks``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import dagster as dg
import polars as pl

from rlhi_dagster.checks import Finding
from rlhi_dagster.metadata import markdown_table
from rlhi_dagster.preferences.decontamination import LEAST_RUN_WORDS, by_message, last_request, user_messages
from rlhi_dagster.preferences.union import contamination, eval_items
from rlhi_dagster.profiles import DecontaminationSettings
from rlhi_dagster.shingles import words

EXAMPLES = 10
"""Of each kind of hit so many are shown."""
_SLICE_ROWS = 16_384


def offered_pairs_are_conserved(pairs: pl.LazyFrame, *sources: pl.LazyFrame) -> Finding:
    """Every kept pair of every source is in the table once, kept or dropped with a reason, and no other pair is.

    Args:
        pairs: ``PREFERENCE_PAIRS``.
        *sources: The sources' tables; columns ``pair_id`` and ``is_kept``.
    """
    offered = pl.concat([source.filter("is_kept").select("pair_id") for source in sources])
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
        "dropped_examples": markdown_table(dropped.group_by("kind", maintain_order=True).head(EXAMPLES)),
    }
    return Finding(not repeating, numbers)


def conserved_check(asset: dg.AssetsDefinition | str) -> dg.AssetChecksDefinition:
    """Block unless the kept pairs of all sources are the rows of ``asset``."""

    @dg.asset_check(
        asset=asset,
        name="offered_pairs_are_conserved",
        blocking=True,
        description=_first_line(offered_pairs_are_conserved),
        additional_ins={name: dg.AssetIn(f"{name}_pairs") for name in ("rewrite", "reward", "reasoning")},
    )
    def check(frame: pl.LazyFrame, rewrite: pl.LazyFrame, reward: pl.LazyFrame, reasoning: pl.LazyFrame) -> dg.AssetCheckResult:
        return offered_pairs_are_conserved(frame, rewrite, reward, reasoning).as_result()

    return check


def decontaminated_check(asset: dg.AssetsDefinition | str, settings: DecontaminationSettings) -> dg.AssetChecksDefinition:
    """Block unless no kept pair of ``asset`` repeats an item of ``eval_prompts``; shows what was dropped."""

    @dg.asset_check(
        asset=asset,
        name="pairs_are_decontaminated",
        blocking=True,
        description=_first_line(pairs_are_decontaminated),
        additional_ins={"eval_prompts": dg.AssetIn("eval_prompts")},
    )
    def check(frame: pl.LazyFrame, eval_prompts: pl.LazyFrame) -> dg.AssetCheckResult:
        return pairs_are_decontaminated(frame, eval_prompts, settings).as_result()

    return check


def _runs(said: list[str], length: int) -> Iterable[str]:
    return (" ".join(said[start : start + length]) for start in range(len(said) - length + 1))


def _first_line(function: Callable[..., Finding]) -> str:
    return (function.__doc__ or "").strip().split("\n", 1)[0]
