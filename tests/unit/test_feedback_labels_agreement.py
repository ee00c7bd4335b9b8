"""Scores against given labels: the join, the figures, who is told apart from training data, and bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.feedback.labels.agreement import agreement, is_training_file, read_gold, text
from rlhi_dagster.feedback.labels.classifier import LABELS

RWF, RWO, CONTINUATION, NEW, POSITIVE, OTHER = (label.value for label in LABELS)
HEADER = "conversation_hash,message_index,label,confidence,second_label\n"


def labels(*rows: tuple[str, int, str, float]) -> pl.DataFrame:
    schema = ["conversation_hash", "message_index", "label", "reattempt_probability"]
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(probability=pl.lit(0.5))


def given(*rows: tuple[str, int, str, str | None]) -> pl.DataFrame:
    schema = {"conversation_hash": pl.String, "message_index": pl.Int64, "label": pl.String, "second_label": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


OURS = labels(("a", 2, RWF, 0.9), ("a", 4, CONTINUATION, 0.6), ("b", 2, RWF, 0.7), ("b", 4, NEW, 0.1), ("x", 2, OTHER, 0.0))
GIVEN = given(("b", 2, CONTINUATION, None), ("a", 2, RWF, None), ("a", 4, RWF, None), ("b", 4, NEW, None), ("y", 2, OTHER, None))


def test_figures_are_right_on_an_example_done_by_hand() -> None:
    found = agreement(OURS, GIVEN, {})
    assert (found.matched, found.gold_only, found.labelled_only) == (4, 1, 1)
    assert found.scores["accuracy"]["value"] == 0.5
    # F1: re-attempt 1/2, continuation 0, new request 1; labels that nobody gave do not count.
    assert found.scores["macro_f1"]["value"] == 0.5
    # By probability: hit, miss, hit. Average precision = (1 + 2/3) / 2.
    assert found.scores["reattempt_average_precision"]["value"] == pytest.approx(5 / 6, abs=1e-4)
    by_label = {row["label"]: row for row in found.by_label.to_dicts()}
    assert by_label[RWF] == {"label": RWF, "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert by_label[POSITIVE] == {"label": POSITIVE, "precision": None, "recall": None, "f1": None, "support": 0}
    assert found.second is None


def test_intervals_resample_whole_conversations() -> None:
    # Conversation a is all right, b all wrong: resampling rows would give a narrower interval than [0, 1].
    ours = labels(*((conversation, i, OTHER, 0.1) for conversation in "ab" for i in range(2, 42)))
    gold = given(*((conversation, i, OTHER if conversation == "a" else NEW, None) for conversation in "ab" for i in range(2, 42)))
    accuracy = agreement(ours, gold, {}).scores["accuracy"]
    assert accuracy == {"value": 0.5, "ci_low": 0.0, "ci_high": 1.0}


def test_one_conversation_has_no_interval() -> None:
    shown = text(agreement(OURS.filter(pl.col("conversation_hash") == "a"), GIVEN, {}))
    assert "no interval: one conversation" in shown


def test_kappa_is_over_all_rows_with_a_second_label() -> None:
    from sklearn.metrics import cohen_kappa_score

    generator = np.random.default_rng(0)
    first, second = (generator.choice([RWF, NEW, OTHER], 60).tolist() for _ in range(2))
    gold = given(*((f"c{i // 3}", i, a, b) for i, (a, b) in enumerate(zip(first, second, strict=True))), ("a", 2, RWF, None))
    found = agreement(OURS, gold, {}).second
    assert found is not None
    assert (found["n"], found["conversations"]) == (60, 20)
    kappa = found["Cohen's kappa"]
    assert kappa["value"] == pytest.approx(cohen_kappa_score(first, second), abs=1e-4)
    assert kappa["ci_low"] < kappa["value"] < kappa["ci_high"]


def test_kappa_of_one_label_throughout_is_left_open() -> None:
    found = agreement(OURS, given(("a", 2, RWF, RWF), ("b", 2, RWF, RWF)), {})
    assert found.second is not None
    assert found.second["Cohen's kappa"]["value"] is None
    assert "–" in text(found)


def test_the_training_file_is_told_by_its_counts() -> None:
    counts = {label.value: 0 for label in LABELS} | {RWF: 2, CONTINUATION: 1}
    card = {"training": {"conversations": 2}, "cross_validation": {"labels": counts}}
    gold = given(("a", 2, RWF, None), ("a", 4, RWF, None), ("b", 2, CONTINUATION, None), ("b", 4, NEW, NEW))
    assert is_training_file(gold, card)
    assert not is_training_file(gold.head(2), card)
    assert not is_training_file(gold, {})
    found = agreement(OURS, gold, card)
    assert "CAUTION" in text(found)
    assert found.twice_labelled is not None
    assert found.twice_labelled["n"] == 1
    assert "CAUTION" not in text(agreement(OURS, gold.head(2), card))


def test_no_row_in_both_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of the 1 given labels is about one of the 5 follow-ups"):
        agreement(OURS, GIVEN.filter(pl.col("conversation_hash") == "y"), {})


def test_ids_of_digits_stay_text_and_extra_columns_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text(HEADER + "007,2,positive,3,\n008,4,other,1,other\n")
    assert read_gold(path).rows() == [("007", 2, POSITIVE, None), ("008", 4, OTHER, OTHER)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "a,2,positive,3,\na,two,positive,3,\n", "no whole number as message_index, first: row 2"),
        (HEADER + "a,2,praise,3,\n", "no known label, first: row 1"),
        (HEADER + "a,2,,3,\n", "no known label, first: row 1"),
        (HEADER + "a,2,positive,3,praise\n", "unknown second_label, first: row 1"),
        (HEADER + ",2,positive,3,\n", "no conversation_hash, first: row 1"),
        (HEADER + "a,2,positive,3,\na,2,other,3,\n", "of an earlier row, first: row 2"),
        ("conversation_hash,label\n", "lacks the column.*message_index"),
        ("", "cannot be read as CSV"),
    ],
)
def test_bad_files_are_refused_by_name_and_row(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"gold.csv.*{message}"):
        read_gold(path)
