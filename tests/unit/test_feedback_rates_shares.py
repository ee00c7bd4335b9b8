"""Re-attempt rates against plain loops and a plain bootstrap."""

import itertools

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.base.tables import REATTEMPT_RATES
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.rates.paper_figures import readings, sentences
from rlhi_dagster.feedback.rates.shares import TURNS, Denominator, reattempt_rates

WANTED = Feedback.REATTEMPT_WITH_FEEDBACK
CONVERSATIONS = ["conversation_id", "user_id", "month", "language", "assistant", "template_id", "user_turns", "has_last_word"]
LABELS = ["conversation_id", "turn", "label"]
KEYS = ["dimension", "level", "denominator", "templates"]


def town(seed: int, conversations: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    generator = np.random.default_rng(seed)
    rows, labels = [], []
    for c in range(conversations):
        user, template = f"u{generator.integers(0, 15)}", "t" if generator.random() < 0.3 else None
        month, model = f"2023-0{generator.integers(4, 7)}", f"m{generator.integers(0, 2)}"
        language = [None, "English", "French"][generator.integers(0, 3)]
        length, has_last_word = int(generator.integers(1, 9)), bool(generator.random() < 0.4)
        rows.append((f"c{c}", user, month, language, model, template, length, has_last_word))
        labels += [(f"c{c}", turn, str(generator.choice([*Feedback]))) for turn in range(2, length + has_last_word + 1)]
    return frames(rows, labels)


def frames(rows: list[tuple], labels: list[tuple]) -> tuple[pl.DataFrame, pl.DataFrame]:
    types = {name: {"user_turns": pl.Int32, "has_last_word": pl.Boolean}.get(name, pl.String) for name in CONVERSATIONS}
    return pl.DataFrame(rows, schema=types, orient="row"), pl.DataFrame(
        labels, schema={"conversation_id": pl.String, "turn": pl.Int32, "label": pl.String}, orient="row"
    )


def brute_force(conversations: pl.DataFrame, labels: pl.DataFrame, cell: dict[str, object]) -> tuple[int, int, int, int]:
    """Hits, items, unanswered items and users of a cell, by the definitions."""
    label = {(conversation, turn): name for conversation, turn, name in labels.iter_rows()}
    items: list[tuple[bool, bool, str]] = []
    for row in conversations.iter_rows(named=True):
        if cell["templates"] == "excluded" and row["template_id"] is not None:
            continue
        column = {"language": "language", "month": "month", "model": "assistant"}.get(cell["dimension"])
        if column and (row[column] or "unknown") != cell["level"]:
            continue
        turn, longest = cell["level"] if cell["dimension"] == "turn" else None, row["user_turns"] + row["has_last_word"]
        hits = [t for t in range(2, longest + 1) if label[row["conversation_id"], t] == WANTED]
        last_word = longest if row["has_last_word"] else 99
        if cell["denominator"] in ("conversations", "users"):
            if turn is None or (longest > 5 if turn == ">5" else longest >= int(turn)):
                so_far = 98 if turn in (None, ">5") else int(turn)
                items.append((any(h <= so_far for h in hits), last_word <= so_far, row["user_id"]))
            continue
        for t in range(1, longest + 1):
            if turn is not None and not (t > 5 if turn == ">5" else t == int(turn)):
                continue
            if cell["denominator"] == "user_messages" or t > 1:
                items.append((t in hits, t == last_word, row["user_id"]))
    users = {user for *_, user in items}
    if cell["denominator"] == "users":
        items = [(*(any(item[i] for item in items if item[2] == each) for i in (0, 1)), each) for each in users]
    return sum(hit for hit, *_ in items), len(items), sum(is_last for _, is_last, _ in items), len(users)


def test_every_cell_agrees_with_counting_by_hand() -> None:
    conversations, labels = town(seed=1)
    rates = reattempt_rates(conversations.lazy(), labels.lazy())
    assert rates.schema == REATTEMPT_RATES.schema
    levels = [("all", "all"), *(("turn", turn) for turn in TURNS), *(("month", f"2023-0{m}") for m in (4, 5, 6))]
    levels += [("language", name) for name in ("English", "French", "unknown")] + [("model", "m0"), ("model", "m1")]
    cells = {(*level, *rest) for level, *rest in itertools.product(levels, Denominator, ("included", "excluded"))}
    assert set(rates.select(KEYS).iter_rows()) == cells
    for row in rates.iter_rows(named=True):
        hits, n, unanswered, users = brute_force(conversations, labels, row)
        assert (row["n"], row["unanswered"], row["users"]) == (n, unanswered, users), row
        assert row["value"] == (pytest.approx(hits / n) if n else None)
        assert users < 2 or row["ci_low"] <= row["value"] <= row["ci_high"]


def test_last_words_are_follow_ups_that_are_counted_apart() -> None:
    """Ann has a complaint answered and another not; Bob's only complaint is his last word at turn 6; Cem asked once."""
    conversations, _ = frames(
        [
            ("a", "ann", "2023-04", None, "m", None, 2, True),
            ("b", "bob", "2023-04", None, "m", None, 5, True),
            ("c", "cem", "2023-04", None, "m", None, 1, False),
        ],
        [],
    )
    hits = {("a", 2), ("a", 3), ("b", 6)}
    said = [("a", turn) for turn in (2, 3)] + [("b", turn) for turn in range(2, 7)]
    labels = pl.DataFrame([(*each, WANTED.value if each in hits else "other") for each in said], schema=LABELS, orient="row")
    rates = reattempt_rates(conversations.lazy(), labels.lazy()).filter(templates="included")
    cells = {(row["level"], row["denominator"]): row for row in rates.to_dicts()}

    def counts(level: str, denominator: str) -> tuple[int, int, int]:
        cell = cells[level, denominator]
        return round(cell["value"] * cell["n"]), cell["n"], cell["unanswered"]

    assert counts("all", "user_messages") == (3, 10, 2)
    assert counts("all", "follow_ups") == (3, 7, 2)
    assert counts("all", "conversations") == counts("all", "users") == (2, 3, 2)
    assert counts("2", "follow_ups") == (1, 2, 0)
    assert counts("3", "follow_ups") == (1, 2, 1)
    assert counts("3", "conversations") == (1, 2, 1)
    assert counts(">5", "follow_ups") == counts(">5", "conversations") == counts(">5", "users") == (1, 1, 1)
    with pytest.raises(ValueError, match=r"1 follow-up\(s\) have no label"):
        reattempt_rates(conversations.lazy(), labels.head(6).lazy())


def test_rates_do_not_depend_on_row_order() -> None:
    conversations, labels = town(seed=2)
    shuffled = conversations.sample(fraction=1.0, shuffle=True, seed=5)
    assert reattempt_rates(conversations.lazy(), labels.lazy()).equals(reattempt_rates(shuffled.lazy(), labels.reverse().lazy()))


@pytest.mark.parametrize("denominator", ["follow_ups", "conversations", "users"])
def test_intervals_agree_with_resampling_users(denominator: str) -> None:
    conversations, labels = town(seed=3, conversations=1500)
    conversations = conversations.with_columns(user_id=pl.format("u{}", pl.col("conversation_id").str.slice(1).cast(pl.Int32) % 400))
    row = reattempt_rates(conversations.lazy(), labels.lazy()).row(
        by_predicate=(pl.col("level") == "all") & (pl.col("denominator") == denominator) & (pl.col("templates") == "included"), named=True
    )
    hits = labels.filter(label=WANTED.value).group_by("conversation_id").len("hits")
    both = conversations.join(hits, on="conversation_id", how="left").with_columns(pl.col("hits").fill_null(0))
    n, k = {
        "follow_ups": (pl.col("user_turns").sum() + pl.col("has_last_word").sum() - pl.len(), pl.col("hits").sum()),
        "conversations": (pl.len(), (pl.col("hits") > 0).sum()),
        "users": (pl.lit(1), (pl.col("hits") > 0).any().cast(pl.Int64)),
    }[denominator]
    # In order, so that the same users are drawn each time.
    users = both.group_by("user_id").agg(n=n, k=k).sort("user_id").select("n", "k").to_numpy().astype(float)
    generator = np.random.default_rng(0)
    drawn = users[generator.integers(0, len(users), (4_000, len(users)))].sum(axis=1)
    expected = np.percentile(drawn[:, 1] / drawn[:, 0], (2.5, 97.5))
    # Of 80 users, a fifth as many, the resampled shares would be a whole user, 0.0125, apart.
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(expected), abs=0.006)


def test_an_interval_over_users_is_wider_than_one_over_messages_would_be() -> None:
    rows = [(f"c{i}", f"u{i}", "2023-04", None, "m", None, 40, False) for i in range(20)]
    labels = [(f"c{i}", turn, WANTED.value if i < 10 else "other") for i in range(20) for turn in range(2, 41)]
    conversations, labelled = frames(rows, labels)
    is_wanted = (pl.col("level") == "all") & (pl.col("denominator") == "follow_ups") & (pl.col("templates") == "included")
    row = reattempt_rates(conversations.lazy(), labelled.lazy()).row(by_predicate=is_wanted, named=True)
    assert row["value"] == pytest.approx(0.5)
    assert row["ci_high"] - row["ci_low"] > 0.3  # over 780 independent messages it would be 0.07


def test_empty_cells_and_single_users_have_no_interval_and_a_missing_label_is_an_error() -> None:
    conversations, labels = town(seed=3)
    empty = reattempt_rates(conversations.clear().lazy(), labels.clear().lazy())
    assert empty["n"].sum() == 0
    assert empty["value"].null_count() == empty["ci_low"].null_count() == len(empty) == 48
    alone = reattempt_rates(conversations.with_columns(user_id=pl.lit("one")).lazy(), labels.lazy())
    assert alone["ci_high"].null_count() == len(alone)
    with pytest.raises(ValueError, match="1 follow-up"):
        reattempt_rates(conversations.lazy(), labels.head(len(labels) - 1).lazy())


def test_a_rate_without_variation_has_an_interval_over_users() -> None:
    conversations, _ = frames([(f"c{i}", f"u{i}", "2023-04", None, "m", None, 3, False) for i in range(40)], [])
    none = pl.DataFrame([(f"c{i}", turn, "other") for i in range(40) for turn in (2, 3)], schema=LABELS, orient="row")
    row = reattempt_rates(conversations.lazy(), none.lazy()).filter(level="all", denominator="follow_ups").row(0, named=True)
    assert (row["value"], row["ci_low"]) == (0.0, 0.0)
    assert row["ci_high"] == pytest.approx(0.0876, abs=1e-3)  # Wilson's interval of 0 in 40


def test_the_nearest_reading_of_each_figure_is_named() -> None:
    def cell(dimension: str, level: str, denominator: str, value: float | None, half: float = 0.01) -> dict[str, object]:
        ends = {} if value is None else {"ci_low": value - half, "ci_high": value + half}
        return dict(zip(KEYS, (dimension, level, denominator, "included"), strict=True)) | {"value": value, "n": 10, "users": 5} | ends

    rows = [
        cell("all", "all", "user_messages", 0.18),
        cell("all", "all", "follow_ups", 0.26, half=0.02),
        cell("turn", ">5", "follow_ups", 0.22),
        cell("turn", ">5", "conversations", 0.62),
        cell("turn", ">5", "users", None),
        cell("turn", "2", "follow_ups", 0.83),
    ]
    found = readings(pl.DataFrame(rows, schema=REATTEMPT_RATES.schema))
    assert found.select("paper", "value", "is_nearest").rows() == [
        ("26.51% of user messages", 0.26, True),
        ("26.51% of user messages", 0.18, False),
        ("83.15% after turn 5", 0.62, True),
        ("83.15% after turn 5", 0.22, False),
    ]
    first, second = sentences(found)
    assert "26.0% of the follow-ups" in first
    assert first.endswith("[24.0%, 28.0%] holds the paper's figure.")
    assert "-21.2 points" in second or "-21.1 points" in second
    assert "does not hold" in second
