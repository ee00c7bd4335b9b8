"""Where user messages go on their way to rewrite pairs: the account, its picture, and the shares of the reasons.

What belongs here: counting and drawing. What does not: the reasons themselves (``filters``), and whether the account must balance
(``checks.rows_of_rewrites_are_conserved``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.preferences import Strategy
from rlhi_dagster.preferences.filters import DropReason

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = {"strategy": pl.String(), "step": pl.String(), "is_drop": pl.Boolean(), "dropped": pl.Int64(), "left": pl.Int64()}
_MESSAGES, _FOLLOW_UPS = "user messages", "follow-ups"
_REATTEMPTS, _TRAINING, _ANSWERED = "re-attempts with feedback", "of training users", "that got a reply"
_TAKEN, _KEPT = "replies to rewrite", "kept"


def account(user_messages: int, labels: pl.DataFrame, users: pl.DataFrame, pairs: pl.DataFrame, min_probability: float) -> pl.DataFrame:
    """Count what is left after each step, by strategy; `logged` loses the re-attempts that no logged reply follows.

    Args:
        user_messages: All user messages, opening requests among them.
        labels: ``FEEDBACK_LABELS`` of the same months.
        users: ``USERS``.
        pairs: ``REWRITE_PAIRS`` of the same months: one row a rewrite.
        min_probability: Least ``reattempt_probability`` of a follow-up that counts.

    Returns:
        strategy, step, is_drop (a reason against pairs, counted where it is the first one), dropped, left; in the order of the steps, the
        last of which is ``kept``.
    """
    asked = labels.filter(
        (pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value) & (pl.col("reattempt_probability") >= min_probability)
    )
    training = asked.join(users.filter(pl.col("split") == "train"), on="user_id", how="semi")
    before = {_MESSAGES: user_messages, _FOLLOW_UPS: len(labels), _REATTEMPTS: len(asked), _TRAINING: len(training)}
    answered = {_ANSWERED: int((~training["is_unanswered"]).sum())}
    rows = [
        row
        for (strategy,), made in pairs.sort("strategy").group_by("strategy", maintain_order=True)
        for row in _steps(strategy, before | answered if strategy == Strategy.LOGGED else before, made)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _steps(strategy: object, before: dict[str, int], made: pl.DataFrame) -> Iterator[tuple[object, str, bool, int, int]]:
    first = dict(made["drop_reasons"].list.first().drop_nulls().value_counts().iter_rows())
    left = before[_MESSAGES]
    for step, count in {**before, _TAKEN: len(made)}.items():
        yield strategy, step, False, left - count, count
        left = count
    for reason in DropReason:
        if dropped := first.get(reason.value, 0):
            left -= dropped
            yield strategy, reason.value, True, dropped, left
    kept = int(made["is_kept"].sum())
    yield strategy, _KEPT, False, left - kept, kept


def shares(pairs: pl.DataFrame) -> pl.DataFrame:
    """How many pairs each reason drops: as the first one, and at all.

    Returns:
        strategy, reason, pairs, first, first_fraction, any, any_fraction (of the strategy's pairs); reasons in their order.
    """
    order = {reason.value: position for position, reason in enumerate(DropReason)}
    listed = pairs.select("strategy", "drop_reasons", pairs=pl.len().over("strategy"))
    first = listed.with_columns(reason=pl.col("drop_reasons").list.first()).group_by("strategy", "reason").agg(first=pl.len())
    each = listed.filter(pl.col("drop_reasons").list.len() > 0).explode("drop_reasons").rename({"drop_reasons": "reason"})
    counted = each.group_by("strategy", "reason").agg(pl.col("pairs").first(), pl.len().alias("any"))
    joined = counted.join(first, on=["strategy", "reason"], how="left").with_columns(pl.col("first").fill_null(0))
    return joined.select(
        "strategy",
        "reason",
        pl.col("pairs").cast(pl.Int64),
        pl.col("first").cast(pl.Int64),
        first_fraction=pl.col("first") / pl.col("pairs"),
        any=pl.col("any").cast(pl.Int64),
        any_fraction=pl.col("any") / pl.col("pairs"),
    ).sort("strategy", pl.col("reason").replace_strict(order, return_dtype=pl.Int64()))


@plots.style(6)
def drawing(accounted: pl.DataFrame) -> Figure:
    """One panel a strategy: a bar for what is left after each step, with what a reason drops at its end; counts on a logarithmic axis."""
    panels = accounted.partition_by("strategy", maintain_order=True)
    height = 0.5 + 0.17 * max([1, *map(len, panels)])
    figure, every = plots.canvas(3.9 * max(len(panels), 1), height, columns=len(panels))
    for axes, panel in zip(every, panels, strict=True):
        for place, row in enumerate(panel.iter_rows(named=True)):
            axes.barh(place, max(row["left"], 0.5), color=plots.MAIN, height=0.7)
            if row["is_drop"]:
                axes.barh(place, row["dropped"], left=max(row["left"], 0.5), color=plots.BAD, height=0.7)
            shown = f"{row['left']:,}" + (f" (−{row['dropped']:,})" if row["is_drop"] else "")
            axes.text(max(row["left"] + row["dropped"] * row["is_drop"], 0.5) * 1.1, place, shown, va="center")
        axes.set_xscale("log")
        axes.set_xlim(0.5, 4 * max(1, *panel["left"].to_list()))
        axes.set_yticks(range(len(panel)), [step.replace("_", " ") for step in panel["step"]])
        axes.invert_yaxis()
        axes.set_title(f"{panel['strategy'][0]}")
    return figure
