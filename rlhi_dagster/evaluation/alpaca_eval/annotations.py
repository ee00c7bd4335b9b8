"""Annotations of AlpacaEval, from files of every layout that they come in.

What belongs here: which rows there are, whose they are, and what counts as a preference. What does not: numbers made of them.

A row compares the output of a baseline (1) with that of a model (2). ``preference`` goes from 1, the baseline is better, to 2, the model
is. Nothing, NaN and what lies outside of that is no preference: such a row is missing. A 0 is a draw where ``alpaca_eval`` wrote the row
(1.5 in its later versions), and missing in tables with lengths in place of texts (``len_output_1``).
"""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.evaluation.alpaca_eval import INSTRUCTIONS

ROW_SCHEMA = {
    "place": pl.Int64(),
    "instruction": pl.String(),
    "preference": pl.Float64(),
    "baseline_length": pl.Int64(),
    "model_length": pl.Int64(),
}
_NOTHING = frozenset({"", "nan", "none", "null", "na", "n/a"})
_NONE, _NO_OUTPUT, _OUTSIDE = "rows without a preference", "rows without an output, missing", "preferences outside of 1 to 2, missing"
_DRAW, _REPEATED = "rows with preference 0, draws as in alpaca_eval", "rows that repeat an earlier one, left out"
"""What notes say."""
_MOST_OUTSIDE = 0.05
"""Of the preferences, so many may lie outside of 1 to 2; with more of them the file is on another scale."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """How a judge compared one model with a baseline.

    Attributes:
        model: Name of the model.
        baseline: Name of the baseline.
        judge: Name of the annotator; ``None`` if the file does not say.
        rows: `ROW_SCHEMA`, in the order of AlpacaEval where the place of every row is known, else in that of the file; ``preference`` is
            null where there is none. Lengths are in characters.
        foreign: Rows about instructions that are not AlpacaEval's, as far as these are known.
        notes: What was left out or read in one of several ways, one sentence each.
    """

    model: str
    baseline: str
    judge: str | None
    rows: pl.DataFrame
    foreign: int = 0
    notes: tuple[str, ...] = ()


def read(path: Path, instructions: Sequence[str] | None = None) -> list[Annotations]:
    """The annotations in a file, one for each model, by name.

    Args:
        path: JSON (a list, or one object a line), CSV or Parquet; JSON also with ``.gz``.
        instructions: The instructions of AlpacaEval in order, if known: they say the place of rows that do not.

    Raises:
        ValueError: The file has another layout, no rows, or a preference that is no number; the message names the row.
    """
    rows = _rows(path)
    if not rows:
        raise ValueError(f"{path}: no annotations in it")
    return of_rows(rows, str(path), instructions)


def of_rows(rows: Sequence[Mapping[str, Any]], where: str, instructions: Sequence[str] | None = None) -> list[Annotations]:
    """`read` for rows that are in memory; ``where`` is named in errors."""
    _check_columns({name for row in rows for name in row}, where)
    by_model: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, row in enumerate(rows, 1):
        by_model.setdefault(str(row.get("generator_2") or row.get("model") or Path(where).parent.name), []).append((number, row))
    places = {text: place for place, text in enumerate(instructions or ())}
    return [_of_model(model, mine, where, places) for model, mine in sorted(by_model.items())]


def _check_columns(names: set[str], where: str) -> None:
    if "preference" not in names:
        raise ValueError(
            f"{where}: rows have no `preference` but {', '.join(sorted(names))}; wanted are annotations as alpaca_eval writes them"
        )
    for side in "12":
        if not names & {f"output_{side}", f"len_output_{side}"}:
            raise ValueError(f"{where}: rows have neither `output_{side}` nor `len_output_{side}`, so lengths cannot be controlled for")


def _of_model(model: str, rows: Sequence[tuple[int, Mapping[str, Any]]], where: str, places: Mapping[str, int]) -> Annotations:
    found: list[dict[str, Any]] = []
    seen: dict[Any, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for number, row in rows:
        at = f"{where}: row {number} ({model})"
        preference, why = _preference(row, at)
        lengths = [_length(row, side, at) for side in "12"]
        if None in lengths:
            preference, why = None, _NO_OUTPUT
        place = _place(row, places, at)
        made = dict(zip(ROW_SCHEMA, (place, row.get("instruction"), preference, *lengths), strict=True))
        key = place if place is not None else row.get("instruction")
        if key is not None and key in seen:
            if seen[key] != made:
                raise ValueError(f"{at} is about the same instruction as an earlier row and says something else; keep one of the two")
            counts[_REPEATED] += 1
            continue
        if key is not None:
            seen[key] = made
        counts.update([why] if why else [])
        found.append(made)
    if counts[_OUTSIDE] > _MOST_OUTSIDE * len(found):
        raise ValueError(
            f"{where}: {counts[_OUTSIDE]} of {len(found)} preferences of {model} lie outside of 1 (the baseline is better) to 2 "
            "(the model is); add 1 to probabilities that the model is better"
        )
    frame = pl.DataFrame(found, schema=ROW_SCHEMA)
    return Annotations(
        model,
        _one(rows, "generator_1", where, model) or "unknown",
        _one(rows, "annotator", where, model) or _judge_of_path(rows[0][1].get("file") or where),
        frame if frame["place"].has_nulls() else frame.sort("place"),
        sum(row["place"] is None for row in found) if places else 0,
        tuple(f"{what}: {count}" for what, count in sorted(counts.items())),
    )


def _preference(row: Mapping[str, Any], at: str) -> tuple[float | None, str | None]:
    """The preference, or none, and what there is to tell about it."""
    given = row.get("preference")
    if given is None or (isinstance(given, str) and given.strip().lower() in _NOTHING):
        return None, _NONE
    try:
        if isinstance(given, bool):
            raise TypeError
        value = float(given)
    except (TypeError, ValueError):
        raise ValueError(f"{at}: preference {given!r} is no number from 1 (the baseline is better) to 2 (the model is)") from None
    if math.isnan(value):
        return None, _NONE
    if value == 0.0:
        return (1.5, _DRAW) if "output_2" in row else (None, _NONE)
    return (value, None) if 1 <= value <= 2 else (None, _OUTSIDE)


def _length(row: Mapping[str, Any], side: str, at: str) -> int | None:
    text = row.get(f"output_{side}")
    if isinstance(text, str):
        return len(text)
    length = row.get(f"len_output_{side}")
    try:
        return None if length is None or math.isnan(float(length)) else int(float(length))
    except (TypeError, ValueError):
        raise ValueError(f"{at}: len_output_{side} {length!r} is no number of characters") from None


def _place(row: Mapping[str, Any], places: Mapping[str, int], at: str) -> int | None:
    given = row.get("index")
    if given is not None:
        try:
            return range(INSTRUCTIONS)[int(given)] if int(given) >= 0 else None
        except (TypeError, ValueError, IndexError):
            raise ValueError(f"{at}: index {given!r} is none of the {INSTRUCTIONS} places from 0 on") from None
    return places.get(row.get("instruction") or "")


def _one(rows: Sequence[tuple[int, Mapping[str, Any]]], column: str, where: str, model: str) -> str | None:
    names = sorted({str(row[column]) for _, row in rows if row.get(column)})
    if len(names) > 1:
        raise ValueError(f"{where}: the rows of {model} have {len(names)} values of {column}, {', '.join(names)}; give one file for each")
    return names[0] if names else None


def _judge_of_path(path: str) -> str | None:
    """``alpaca_eval`` writes ``results/<model>/<judge>/annotations.json``."""
    parts = Path(path).parts
    return parts[-2] if len(parts) >= 4 and parts[-4] == "results" else None


def _rows(path: Path) -> list[dict[str, Any]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return pl.read_parquet(path).to_dicts()
    if name.endswith(".csv"):
        return pl.read_csv(path, infer_schema=False).to_dicts()
    if not name.endswith((".json", ".jsonl")):
        raise ValueError(f"{path}: annotations are read from .json, .jsonl, .csv or .parquet")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        text = file.read()
    try:
        found = [json.loads(line) for line in text.split("\n") if line.strip()] if name.endswith(".jsonl") else json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON, {error.msg} at line {error.lineno}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ValueError(f"{path}: wanted is a list of objects, one for each annotation")
    return found
