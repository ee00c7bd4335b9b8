"""How a judge rates replies on a benchmark's scale: one constrained choice a reply, or one in each order a pair.

What belongs here: the scale, the requests, and ``BENCHMARK_RATINGS``, one row a judgement. What does not: what a benchmark makes of them.

A choice is a letter, for choices must begin with different tokens (``A>>B`` and ``A>B`` do not, nor 1 and 10). A judge is blind: it never
learns who wrote a reply. As everywhere, a missing reply loses by most to one that is there, and two missing or identical replies are a tie,
without asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import BENCHMARK_RATINGS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.questions import Chat, question, template, transcript
from rlhi_dagster.evaluation.judges import Order

ALONE = "alone"
_KEYS = ("recipe", "prompt_id", "benchmark", "opponent", "order")


@dataclass(frozen=True, slots=True)
class Scale:
    """How a judge is asked, and what its answers mean.

    Attributes:
        prompt: Name of the question in ``prompts/``.
        values: The rating that each letter means: of the reply, or of the first reply against the second one.
        is_pairwise: Whether two replies are compared, each pair in both orders; ratings are then symmetric about ``tie``.
    """

    prompt: str
    values: Mapping[str, float]
    is_pairwise: bool

    @property
    def tie(self) -> float:
        """The middle of the scale."""
        return (max(self.values.values()) + min(self.values.values())) / 2

    def mirrored(self, rating: float) -> float:
        """What a rating of the first reply says about the second one."""
        return 2 * self.tie - rating


def rate(items: pl.DataFrame, responses: pl.DataFrame, opponents: pl.DataFrame, scale: Scale, judge: str, chat: Chat) -> pl.DataFrame:
    """Rate the replies of recipes.

    Args:
        items: ``EVAL_PROMPTS`` as they were asked; for replies that are rated alone `prompt` may have the model's own earlier replies.
        responses: ``RESPONSES`` of one or more recipes; error rows count as missing replies.
        opponents: ``RESPONSES`` of the opponents, at most one to an item; ignored where replies are rated alone.
        scale: The benchmark's.
        judge: Name of the judge.
        chat: The judging model.

    Returns:
        ``BENCHMARK_RATINGS``: two rows a reply of a pairwise scale, else one.

    Raises:
        ValueError: An item has no opponent, or several, or the judge lost answers.
    """
    mine = items.join(responses.select("recipe", "prompt_id", "reply"), on="prompt_id", how="inner")
    shown = _pairs(mine, opponents) if scale.is_pairwise else [row | {"opponent": "", "order": ALONE} for row in mine.iter_rows(named=True)]
    known = [_without_reading(row, scale) for row in shown]
    text = template(scale.prompt)
    requests = [request(row, scale, text) for row, rating in zip(shown, known, strict=True) if rating is None]
    answers = chat(requests) if requests else []
    if len(answers) != len(requests):
        raise ValueError(f"judge {judge}: {len(answers)} answers to {len(requests)} requests")
    given = iter(answers)
    rows = [_row(row, scale, judge, next(given) if rating is None else rating) for row, rating in zip(shown, known, strict=True)]
    return BENCHMARK_RATINGS.conform(pl.DataFrame(rows, schema=BENCHMARK_RATINGS.schema))


def request(row: Mapping[str, Any], scale: Scale, text: str) -> ChatRequest:
    """What is asked about a reply or a pair; nothing is cut."""
    replies = {"reply_a": row["first_reply"], "reply_b": row["second_reply"]} if scale.is_pairwise else {"reply": row["reply"]}
    shown = {"conversation": transcript(row["prompt"]), "reference": row["reference"] or "(there is none)", **replies}
    return ChatRequest(question(text, shown), choices=tuple(scale.values))


def position_bias(ratings: pl.DataFrame, tie: float) -> pl.DataFrame:
    """How much a judge goes by the order, per pair that it rated in both.

    Returns:
        `recipe`, `prompt_id`, `opponent`, `judge`, `rating` (mean over both orders, which takes the bias out), `follows_order` (1 where the
        same position wins both ways round, else 0) and `lead_of_first` (mean rating of the first position above a tie).
    """
    first = pl.col("order") == Order.RECIPE_FIRST.value
    lead = pl.when(first).then(pl.col("rating") - tie).otherwise(tie - pl.col("rating"))
    by_pair = ratings.with_columns(lead=lead).group_by("recipe", "prompt_id", "opponent", "judge")
    return (
        by_pair.agg(
            pl.col("rating").mean(),
            (pl.col("lead").sign().sum().abs() == 2).cast(pl.Float64).alias("follows_order"),
            pl.col("lead").mean().alias("lead_of_first"),
            pl.col("rating").count().alias("rated"),
        )
        .filter(pl.col("rated") == 2)
        .drop("rated")
        .sort("recipe", "prompt_id", "opponent", "judge")
    )


def _pairs(mine: pl.DataFrame, opponents: pl.DataFrame) -> list[dict[str, Any]]:
    """Each reply against its opponent's, in both orders."""
    theirs = opponents.select("prompt_id", pl.col("recipe").alias("opponent"), pl.col("reply").alias("other"))
    if several := theirs.filter(pl.col("prompt_id").is_duplicated())["prompt_id"].sort().to_list():
        raise ValueError(f"{several[0]} has more than one opponent")
    if lacking := mine.join(theirs, on="prompt_id", how="anti")["prompt_id"].sort().to_list():
        raise ValueError(f"{len(set(lacking))} items have no opponent (first: {lacking[0]})")
    rows = []
    for row in mine.join(theirs, on="prompt_id", how="inner").sort("recipe", "prompt_id").iter_rows(named=True):
        rows.append(row | {"order": Order.RECIPE_FIRST.value, "first_reply": row["reply"], "second_reply": row["other"]})
        rows.append(row | {"order": Order.OPPONENT_FIRST.value, "first_reply": row["other"], "second_reply": row["reply"]})
    return rows


def _without_reading(row: Mapping[str, Any], scale: Scale) -> float | None:
    """The rating of the first reply, where it is clear without a model."""
    if not scale.is_pairwise:
        return min(scale.values.values()) if _is_missing(row["reply"]) else None
    first, second = row["first_reply"], row["second_reply"]
    if (_is_missing(first) and _is_missing(second)) or first == second:
        return scale.tie
    if _is_missing(first):
        return min(scale.values.values())
    return max(scale.values.values()) if _is_missing(second) else None


def _is_missing(reply: str | None) -> bool:
    return reply is None or not reply.strip()


def _row(row: Mapping[str, Any], scale: Scale, judge: str, answer: ChatAnswer | float) -> dict[str, Any]:
    error = call = None
    if isinstance(answer, float):
        rating: float | None = answer
        expected: float | None = answer
    else:
        rating, call = scale.values.get(answer.text or ""), answer.call_id or None
        expected = rating
        if rating is None:
            error = answer.error or f"not_a_choice: the answer is none of {', '.join(scale.values)}"
        elif answer.probabilities is not None:
            expected = sum(share * value for share, value in zip(answer.probabilities, scale.values.values(), strict=True))
    if row["order"] == Order.OPPONENT_FIRST.value and rating is not None and expected is not None:
        rating, expected = scale.mirrored(rating), scale.mirrored(expected)
    keys = {name: row[name] for name in _KEYS}
    return keys | {"judge": judge, "rating": rating, "expected_rating": expected, "error": error, "call_id": call}
