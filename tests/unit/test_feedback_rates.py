"""Re-attempt rates against plain loops."""

import itertools

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.rates import TURNS, reattempt_rates
from rlhi_dagster.tables import REATTEMPT_RATES


def town(seed: int, conversations: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    generator = np.random.default_rng(seed)
    rows = []
    for c in range(conversations):
        user, template = f"u{generator.integers(0, 15)}", "t" if generator.random() < 0.3 else None
        for turn in range(1, int(generator.integers(1, 9)) + 1):
            label = str(generator.choice([*Feedback])) if turn > 1 else None
            rows.append((f"c{c}:{turn}", f"c{c}", user, "2023-04", turn, template, label))
    schema = ["turn_id", "conversation_id", "user_id", "month", "turn", "template_id", "label"]
    frame = pl.DataFrame(rows, schema=schema, orient="row", infer_schema_length=None)
    return frame.drop("label"), frame.filter(pl.col("turn") > 1).select("turn_id", "label")


def brute_force(turns: pl.DataFrame, labels: pl.DataFrame, turn: str, denominator: str, templates: str) -> tuple[int, int, int]:
    """Hits, items and users of a cell, by the definitions."""
    label = dict(labels.iter_rows())
    items: list[tuple[bool, str]] = []
    by_conversation: dict[str, list[dict]] = {}
    for row in turns.iter_rows(named=True):
        if templates == "included" or row["template_id"] is None:
            by_conversation.setdefault(row["conversation_id"], []).append(row)
    for rows in by_conversation.values():
        hits = [r["turn"] for r in rows if label.get(r["turn_id"]) == Feedback.REATTEMPT_WITH_FEEDBACK]
        longest = max(r["turn"] for r in rows)
        if denominator == "conversations":
            reached = {"all": True, ">5": longest > 5}.get(turn, turn.isdigit() and longest >= int(turn))
            if reached:
                items.append((any(not turn.isdigit() or h <= int(turn) for h in hits), rows[0]["user_id"]))
            continue
        for r in rows:
            is_in = {"all": True, ">5": r["turn"] > 5}.get(turn, str(r["turn"]) == turn)
            if is_in and (denominator == "user_messages" or r["turn"] > 1):
                items.append((r["turn"] in hits, r["user_id"]))
    return sum(hit for hit, _ in items), len(items), len({user for _, user in items})


def test_every_cell_agrees_with_counting_by_hand() -> None:
    turns, labels = town(seed=1)
    rates = reattempt_rates(turns.lazy(), labels.lazy(), resamples=50)
    assert rates.schema == REATTEMPT_RATES.schema
    cells = set(itertools.product(TURNS, ("user_messages", "follow_ups", "conversations"), ("included", "excluded")))
    assert set(rates.select("turn", "denominator", "templates").iter_rows()) == cells
    for row in rates.iter_rows(named=True):
        hits, n, users = brute_force(turns, labels, row["turn"], row["denominator"], row["templates"])
        assert (row["n"], row["users"]) == (n, users), row
        assert row["value"] == pytest.approx(hits / n)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_rates_do_not_depend_on_row_order_and_do_on_the_seed() -> None:
    turns, labels = town(seed=2)
    first = reattempt_rates(turns.lazy(), labels.lazy(), resamples=50)
    shuffled = reattempt_rates(turns.sample(fraction=1.0, shuffle=True, seed=5).lazy(), labels.reverse().lazy(), resamples=50)
    assert first.equals(shuffled)
    assert not first.equals(reattempt_rates(turns.lazy(), labels.lazy(), seed=1, resamples=50))


def test_an_interval_over_users_is_wider_than_one_over_messages_would_be() -> None:
    turns = pl.DataFrame(
        [(f"c{i}:{t}", f"c{i}", f"u{i}", "m", t, None) for i in range(20) for t in range(1, 41)],
        schema=["turn_id", "conversation_id", "user_id", "month", "turn", "template_id"],
        orient="row",
    )
    is_critic = pl.col("user_id").str.slice(1).cast(pl.Int32) < 10
    label = pl.when(is_critic).then(pl.lit(str(Feedback.REATTEMPT_WITH_FEEDBACK))).otherwise(pl.lit("other"))
    labels = turns.filter(pl.col("turn") > 1).select("turn_id", label=label)
    is_wanted = (pl.col("turn") == "all") & (pl.col("denominator") == "follow_ups") & (pl.col("templates") == "included")
    row = reattempt_rates(turns.lazy(), labels.lazy()).row(by_predicate=is_wanted, named=True)
    assert row["value"] == pytest.approx(0.5)
    assert row["ci_high"] - row["ci_low"] > 0.3  # over 780 independent messages it would be 0.07


def test_empty_cells_and_single_users_have_no_interval_and_a_missing_label_is_an_error() -> None:
    turns, labels = town(seed=3)
    empty = reattempt_rates(turns.clear().lazy(), labels.clear().lazy())
    assert empty["n"].sum() == 0
    assert empty["value"].null_count() == empty["ci_low"].null_count() == len(empty) == 36
    alone = reattempt_rates(turns.with_columns(user_id=pl.lit("one")).lazy(), labels.lazy(), resamples=20)
    assert alone["ci_high"].null_count() == len(alone)
    with pytest.raises(ValueError, match="1 follow-up"):
        reattempt_rates(turns.lazy(), labels.head(len(labels) - 1).lazy())
