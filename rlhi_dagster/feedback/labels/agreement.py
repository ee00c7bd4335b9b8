"""How well labels agree with a file of labels that somebody else gave.

What belongs here: reading such a file, joining it, the figures and their plain text. What does not: the metrics and their bootstrap
(``scoring``), and making the labels (``offline``).

The intervals resample whole conversations. Macro-F1 is over the labels that occur in the given file. The packaged classifier was fitted
on follow-ups of real conversations: scores on its own training rows flatter it, and the text says so where the card gives it away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.base.sheets import from_sheet
from rlhi_dagster.feedback.labels.metrics import LABELS, bootstrapped, kappa, label_numbers, score_guesses

KEY = ("conversation_hash", "message_index")
SEED = 0

_HEADLINES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "reattempt_average_precision": "average precision of reattempt_with_feedback",
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Labels beside the given ones.

    Attributes:
        matched: Rows in both.
        gold_only: Given labels without a label of ours: the conversation was quarantined, or the message is no follow-up.
        labelled_only: Labels of ours that nobody gave one to compare with.
        scores: As ``scoring.score_guesses`` returns them, over the matched rows.
        by_label: label, precision, recall, f1, support; precision is null for a label never guessed, recall for one never given.
        twice_labelled: Scores over the matched rows with a second label; ``None`` without such rows.
        second: ``n``, ``agreement`` and ``kappa`` (with intervals) of the given label and the second one, over all given rows that
            have both; ``None`` without such rows.
        is_training_file: The given labels are those that the classifier was trained on, as far as its card tells.
        apart: Scores that the card has for heads that saw nothing of a scored row's conversation; ``None`` if it has none.
    """

    matched: int
    gold_only: int
    labelled_only: int
    scores: dict[str, Any]
    by_label: pl.DataFrame
    twice_labelled: dict[str, Any] | None
    second: dict[str, Any] | None
    is_training_file: bool
    apart: Mapping[str, Any] | None


def read_gold(path: Path) -> pl.DataFrame:
    """Read a CSV of labels: conversation_hash, message_index, label, and second_label (null if the file has none).

    Raises:
        ValueError: The file cannot be read, lacks a column, or has a bad row; the message names the first one.
    """
    try:
        gold = from_sheet(pl.read_csv(path, infer_schema=False))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    missing = [name for name in (*KEY, "label") if name not in gold.columns]
    if missing:
        raise ValueError(f"{path} lacks the column(s) {', '.join(missing)}")
    if "second_label" not in gold.columns:
        gold = gold.with_columns(second_label=pl.lit(None, pl.String))
    gold = gold.select(*KEY, "label", "second_label").with_columns(pl.col("message_index").cast(pl.Int64, strict=False))
    problems = {
        "no conversation_hash": pl.col("conversation_hash").is_null(),
        "no whole number as message_index": pl.col("message_index").is_null(),
        "no known label": ~pl.col("label").is_in(LABELS).fill_null(value=False),
        "an unknown second_label": ~pl.col("second_label").is_in(LABELS).fill_null(value=True),
        "the conversation and message of an earlier row": ~pl.struct(KEY).is_first_distinct(),
    }
    for problem, applies in problems.items():
        bad = gold.with_row_index("row", offset=1).filter(applies)
        if len(bad):
            raise ValueError(f"{path}: {len(bad)} row(s) with {problem}, first: row {bad['row'][0]}")
    return gold


def agreement(labels: pl.DataFrame, gold: pl.DataFrame, card: Mapping[str, Any]) -> Agreement:
    """Compare labels with given ones.

    Args:
        labels: As ``offline.label_follow_ups`` returns them.
        gold: As ``read_gold`` returns them.
        card: The classifier's card.

    Raises:
        ValueError: No row is in both.
    """
    joined = labels.join(gold, on=KEY, suffix="_gold").sort(KEY)
    if not len(joined):
        raise ValueError(f"none of the {len(gold)} given labels is about one of the {len(labels)} follow-ups of the source")
    scores = _scores(joined)
    twice = joined.filter(pl.col("second_label").is_not_null())
    return Agreement(
        matched=len(joined),
        gold_only=len(gold) - len(joined),
        labelled_only=len(labels) - len(joined),
        scores=scores,
        by_label=_by_label(np.array(scores["confusion_truth_by_guess"])),
        twice_labelled=_scores(twice) if len(twice) else None,
        second=_second(gold.filter(pl.col("second_label").is_not_null()).sort(KEY)),
        is_training_file=is_training_file(gold, card),
        apart=card.get("test", {}).get("conversations_apart"),
    )


def is_training_file(gold: pl.DataFrame, card: Mapping[str, Any]) -> bool:
    """Whether the rows labelled once are as many, of as many conversations and with as many of each label as the card's training rows.

    A part of the training file is not recognised: the card has counts, not ids.
    """
    once = gold.filter(pl.col("second_label").is_null())
    conversations = card.get("training", {}).get("conversations")
    counts = {str(name): int((once["label"] == name).sum()) for name in LABELS}
    trained_on = card.get("cross_validation", {}).get("labels")
    return len(once) > 0 and conversations == once["conversation_hash"].n_unique() and counts == trained_on


def text(found: Agreement) -> str:
    """The figures as plain text."""
    lines = [f"matched: {found.matched:,}; unmatched: {found.gold_only:,} given, {found.labelled_only:,} of ours", ""]
    lines += _headlines("all matched follow-ups", found.scores)
    lines += ["", *_caution(found)]
    lines += ["", f"{'label':<28}{'precision':>10}{'recall':>10}{'F1':>10}{'support':>10}"]
    lines += [
        f"{label:<28}{_number(precision):>10}{_number(recall):>10}{_number(f1):>10}{support:>10,}"
        for label, precision, recall, f1, support in found.by_label.iter_rows()
    ]
    if found.second:
        n, conversations = found.second["n"], found.second["conversations"]
        lines += ["", f"given label against second label: n = {n:,} of {conversations:,} conversations"]
        lines += [_line(name, found.second[name], conversations) for name in ("agreement", "Cohen's kappa")]
    return "\n".join(lines)


def _caution(found: Agreement) -> list[str]:
    if not found.is_training_file:
        return ["This is not the whole file that the packaged classifier was trained on; its card cannot tell whether it is a part of it."]
    lines = [
        "CAUTION: the packaged classifier was trained on the rows of this file that were labelled once (recognised by the counts in its",
        "card), so these figures and the table below flatter it. It was not trained on the rows labelled twice, but on others of the same",
        "conversations. The last block is from its card: heads trained without the conversations that they are scored on.",
    ]
    if found.twice_labelled:
        lines += ["", *_headlines("follow-ups labelled twice", found.twice_labelled)]
    if found.apart:
        lines += ["", *_headlines("the card: follow-ups labelled twice, conversations kept apart", found.apart)]
    return lines


def _scores(joined: pl.DataFrame) -> dict[str, Any]:
    truth, guess = (label_numbers(joined[name].to_list()) for name in ("label_gold", "label"))
    return score_guesses(truth, guess, joined["reattempt_probability"].to_numpy(), joined["conversation_hash"].to_numpy(), SEED)


def _by_label(confusion: np.ndarray) -> pl.DataFrame:
    """Precision, recall and F1 of each label from counts [truth, guess]."""
    hits, guessed, given = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    rows = [
        (label.value, _share(hits[i], guessed[i]), _share(hits[i], given[i]), _share(2 * hits[i], guessed[i] + given[i]), int(given[i]))
        for i, label in enumerate(LABELS)
    ]
    schema = {"label": pl.String, "precision": pl.Float64, "recall": pl.Float64, "f1": pl.Float64, "support": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _second(gold: pl.DataFrame) -> dict[str, Any] | None:
    if not len(gold):
        return None
    first, second = (label_numbers(gold[name].to_list()) for name in ("label", "second_label"))

    def metrics(rows: np.ndarray) -> dict[str, float]:
        a, b = first[rows], second[rows]
        return {"agreement": float((a == b).mean()), "Cohen's kappa": kappa(a, b)}

    groups = gold["conversation_hash"].to_numpy()
    return {"n": len(gold), "conversations": len(np.unique(groups)), **bootstrapped(metrics, groups, SEED)}


def _headlines(what: str, scores: Mapping[str, Any]) -> list[str]:
    n, conversations = scores["n"], scores["conversations"]
    baseline = scores["majority_baseline"]
    return [
        f"{what}: n = {n:,} of {conversations:,} conversations",
        *(f"{_line(shown, scores[name], conversations)}  majority label {_number(baseline[name])}" for name, shown in _HEADLINES.items()),
    ]


def _line(name: str, metric: Mapping[str, float | None], conversations: int) -> str:
    interval = f"[{_number(metric['ci_low'])}, {_number(metric['ci_high'])}]" if conversations > 1 else "no interval: one conversation"
    return f"  {name:<46}{_number(metric['value']):>7}  {interval}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
