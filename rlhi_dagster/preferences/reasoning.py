"""PRM800K: erroneous solutions, a simulated user's remark on the first wrong step, and the corrected solution as the preferred one.

Records in PRM800K's original layout. Erroneous = ``finish_reason`` is ``found_error`` and the last labelled step is rated -1; records of
quality control and screening are not used.
"""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.evaluation.judges import arithmetic_answer
from rlhi_dagster.tables import REASONING_ERRORS, REASONING_PAIRS


def read_records(location: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Records of the JSON-lines files at ``location`` with where they stand; ``None`` for a line that is not a JSON object.

    Raises:
        ValueError: No file matches.
    """
    files = sorted(glob.glob(location))  # noqa: PTH207 - the location may be absolute, which Path.glob refuses
    if not files:
        raise ValueError(f"no PRM800K file at {location}: set `prm800k` in the profile to the JSON-lines files of openai/prm800k")
    for file in files:
        with Path(file).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    record = None
                yield f"{Path(file).name}:{number}", record if isinstance(record, dict) else None


def reasoning_errors(records: Iterator[tuple[str, dict[str, Any] | None]], most: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Select erroneous solutions and let the simulated user point at the first wrong step.

    Args:
        records: As ``read_records`` gives them.
        most: At most this many, those with the smallest digests.

    Returns:
        ``REASONING_ERRORS``, and how many records met which fate; the fates add up to the records read.
    """
    fates: Counter[str] = Counter()
    rows: dict[str, dict[str, Any]] = {}
    for _, record in records:
        try:
            fate, row = _read(record)
        except (KeyError, TypeError, IndexError):
            fate, row = "malformed_record", None
        if row and row["error_id"] in rows:
            fate, row = "duplicate", None
        fates[fate] += 1
        if row:
            rows[row["error_id"]] = row
    kept = [rows[key] for key in sorted(rows)[:most]]
    fates["selected"] -= len(rows) - len(kept)
    fates["beyond_limit"] += len(rows) - len(kept)
    return REASONING_ERRORS.conform(pl.DataFrame(kept, schema=REASONING_ERRORS.schema)), dict(sorted((+fates).items()))


def _read(record: Mapping[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    if record is None:
        return "unreadable_line", None
    if record.get("is_quality_control_question") or record.get("is_initial_screening_question"):
        return "quality_control_or_screening", None
    if record["label"]["finish_reason"] != "found_error":
        return "no_error_found", None
    shown = [_shown(step) for step in record["label"]["steps"]]
    if not shown or shown[-1][1] != -1:
        return "last_step_not_wrong", None
    problem, solution = record["question"]["problem"], "\n".join(text for text, _ in shown)
    answer = record["question"].get("ground_truth_answer")
    return "selected", {
        "error_id": digest_of("reasoning", problem, solution),
        "problem": problem,
        "solution": solution,
        "first_error_step": len(shown),
        "feedback": f"Step {len(shown)} is wrong.",
        "answer": None if answer is None else str(answer),
    }


def _shown(step: Mapping[str, Any]) -> tuple[str, int | None]:
    """Text and rating of the completion that the labeller saw as this step: the one chosen, else the human's, else the first rated -1."""
    completions = step["completions"] or []
    if step["chosen_completion"] is not None:
        chosen = completions[step["chosen_completion"]]
        return chosen["text"], chosen["rating"]
    if step.get("human_completion"):
        return step["human_completion"]["text"], 1
    wrong = next((completion for completion in completions if completion["rating"] == -1), completions[0])
    return wrong["text"], wrong["rating"]


def correction_requests(errors: pl.DataFrame) -> list[ChatRequest]:
    """What the policy is asked: the problem, the wrong solution, the remark."""
    return [
        ChatRequest(
            [
                {"role": "user", "content": row["problem"]},
                {"role": "assistant", "content": row["solution"]},
                {"role": "user", "content": row["feedback"]},
            ]
        )
        for row in errors.to_dicts()
    ]


def reasoning_pairs(errors: pl.DataFrame, answers: Sequence[ChatAnswer], model: str) -> pl.DataFrame:
    """Corrected against erroneous solutions; kept only where the correction ends in the known answer.

    Drop reasons, the first that applies: ``correction_failed``, ``answer_unknown``, ``correction_is_wrong``.

    Returns:
        ``REASONING_PAIRS``, one row an error.
    """
    rows = []
    for row, answer in zip(errors.to_dicts(), answers, strict=True):
        text = None if answer.finish_reason == "length" else answer.text
        known = row["answer"] is not None and arithmetic_answer(row["answer"]) is not None
        correct = arithmetic_answer(text) == arithmetic_answer(row["answer"]) if text and known else None
        reason = "correction_failed" if not text else "answer_unknown" if not known else None if correct else "correction_is_wrong"
        rows.append(
            {
                "pair_id": digest_of("reasoning_pair", row["error_id"], model),
                "error_id": row["error_id"],
                "prompt": [{"role": "user", "content": row["problem"]}],
                "chosen": text,
                "rejected": row["solution"],
                "is_chosen_correct": correct,
                "is_kept": reason is None,
                "drop_reason": reason,
                "model": model,
            }
        )
    return REASONING_PAIRS.conform(pl.DataFrame(rows, schema=REASONING_PAIRS.schema))
