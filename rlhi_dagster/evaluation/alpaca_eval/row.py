"""The row of one model: both win rates, what they rest on, and whether they compare with the published ones."""

from __future__ import annotations

from dataclasses import dataclass

from rlhi_dagster.evaluation.alpaca_eval import BASELINE, INSTRUCTIONS, JUDGE
from rlhi_dagster.evaluation.alpaca_eval.annotations import Annotations
from rlhi_dagster.evaluation.alpaca_eval.length_control import Gamed, LengthControlled, length_controlled, predictions
from rlhi_dagster.evaluation.alpaca_eval.published import Published
from rlhi_dagster.evaluation.alpaca_eval.win_rate import WinRate, win_rate

MOST_MISSING = 8
"""One in a hundred instructions. Of the published rows that we know none misses more than three."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one model. Win rates are in percent, lengths in characters.

    Attributes:
        annotations: What it is made of.
        raw: The raw win rate.
        controlled: The length-controlled one; ``None`` for the baseline against itself, whose is 50 by definition, and without the
            instructions' difficulties: published models would be off by 5 points on average.
        own_difficulties: The length-controlled win rate if every row gets its own instruction's difficulty; ``None`` where that is the
            same.
        published: Raw and length-controlled win rate on the leaderboard; ``None`` if the model is not there.
        by_weights: The length-controlled win rate that published weights give; ``None`` without them.
        missing: Instructions without a preference.
        length: Mean length of the model's outputs.
        baseline_length: Mean length of the baseline's.
        differs: Why neither win rate compares with published ones; empty if they do.
        controlled_differs: Why the length-controlled one does not, besides.
        held_by: What holds the regression to the baseline.
    """

    annotations: Annotations
    raw: WinRate
    controlled: LengthControlled | None
    own_difficulties: float | None
    published: tuple[float, float] | None
    by_weights: float | None
    missing: int
    length: float
    baseline_length: float
    differs: tuple[str, ...]
    controlled_differs: tuple[str, ...]
    held_by: str


def row(annotations: Annotations, published: Published) -> Row:
    """Everything about one model.

    Raises:
        ValueError: There are too few preferences, or more rows than instructions.
    """
    model, rows = annotations.model, annotations.rows.drop_nulls(["baseline_length", "model_length"])
    raw, difficulties = win_rate(rows["preference"]), published.difficulties_of(len(rows))
    is_baseline = model == annotations.baseline
    controlled = None if is_baseline or difficulties is None else length_controlled(rows, difficulties, published.gamed)
    weights, listed = published.weights.get(model), published.leaderboard.get(model)
    missing = max(INSTRUCTIONS, len(annotations.rows)) - raw.n
    return Row(
        annotations,
        raw,
        controlled,
        None if is_baseline else _with_own_difficulties(annotations, published),
        (listed["win_rate"], listed["length_controlled_winrate"]) if listed else None,
        100 * float(predictions(weights, difficulties).mean()) if weights and difficulties is not None else None,
        missing,
        float(rows["model_length"].to_numpy().mean()),
        float(rows["baseline_length"].to_numpy().mean()),
        _differences(annotations, missing),
        () if is_baseline else _controlled_differences(published),
        _held_by(published.gamed),
    )


def _with_own_difficulties(annotations: Annotations, published: Published) -> float | None:
    rows = annotations.rows.drop_nulls(["baseline_length", "model_length"])
    places = rows["place"]
    if published.difficulties is None or places.has_nulls() or places.to_list() == list(range(len(places))):
        return None
    return length_controlled(rows, published.difficulties[places.to_numpy()], published.gamed).win_rate


def _differences(annotations: Annotations, missing: int) -> tuple[str, ...]:
    told = []
    if annotations.judge != JUDGE:
        who = annotations.judge or "a judge that the file does not name"
        told.append(f"judged by {who}; the published judge is {JUDGE} (gpt-4-1106-preview), which is switched off")
    if annotations.baseline != BASELINE:
        told.append(f"compared with {annotations.baseline}; the published baseline is {BASELINE}")
    if annotations.foreign:
        told.append(f"{annotations.foreign} rows are about instructions that are not AlpacaEval's")
    if missing > MOST_MISSING:
        told.append(f"{missing} of {INSTRUCTIONS} instructions have no preference")
    return tuple(told)


def _controlled_differences(published: Published) -> tuple[str, ...]:
    told = []
    if published.difficulties is None:
        told.append("the instructions' difficulties are not at hand (instruction_difficulty.csv)")
    if published.gamed is None:
        told.append("the regression is not held to the baseline (df_gamed.csv, or glm_weights.csv with annotations.parquet)")
    return tuple(told)


def _held_by(gamed: Gamed | None) -> str:
    if gamed is None:
        return "nothing, for its table is not at hand"
    if gamed.is_published:
        return "the published table"
    return "a stand-in for the published table, good for about 0.1 (docs/concepts/alpaca_eval.md)"
