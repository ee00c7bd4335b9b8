"""Replies to items with a known answer, graded: letters by rule, formulas by math-verify in a worker.

What belongs here: which grader grades which item, and the table of grades. What does not: the graders (``math_answers``,
``choice_answers``), running them in a worker (``Workers.verify``), and what grades add up to (``evaluation.accuracy``).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.evaluation.accuracy import GRADES
from rlhi_dagster.reasoning.choice_answers import grade_choice
from rlhi_dagster.reasoning.math_answers import Grade, Solution

BY_LETTER = frozenset({Benchmark.MMLU_PRO, Benchmark.GPQA})


def to_verify(prompts: pl.DataFrame, replies: pl.DataFrame) -> list[Solution]:
    """What math-verify has to compare.

    Args:
        prompts: ``EVAL_PROMPTS`` of benchmarks with known answers.
        replies: ``prompt_id``, ``sample`` (from 0) and ``reply``, null where there is none.

    Raises:
        ValueError: A reply is to no item, or an item has no known answer.
    """
    return [_solution(row) for row in _joined(prompts, replies) if row["reply"] is not None and row["benchmark"] not in BY_LETTER]


def graded(prompts: pl.DataFrame, replies: pl.DataFrame, verified: Mapping[Solution, Grade]) -> pl.DataFrame:
    """``accuracy.GRADES``: a grade for each reply; one that is missing gives no answer.

    Args:
        prompts: As of `to_verify`.
        replies: As of `to_verify`.
        verified: A grade of everything in `to_verify`.

    Raises:
        ValueError: As of `to_verify`.
    """
    rows = [
        {**{name: row[name] for name in ("benchmark", "prompt_id", "sample")}, "grade": _grade(row, verified)}
        for row in _joined(prompts, replies)
    ]
    return pl.DataFrame(rows, schema=GRADES)


def _grade(row: Mapping[str, object], verified: Mapping[Solution, Grade]) -> str:
    if row["reply"] is None:
        return Grade.NO_ANSWER.value
    if row["benchmark"] in BY_LETTER:
        return grade_choice(str(row["reference"]), str(row["reply"])).value
    return verified[_solution(row)].value


def _solution(row: Mapping[str, object]) -> Solution:
    tolerance = row["tolerance"]
    return Solution(str(row["reference"]), str(row["reply"]), tolerance=float(str(tolerance)) if tolerance is not None else None)


def _joined(prompts: pl.DataFrame, replies: pl.DataFrame) -> list[dict[str, object]]:
    asked = prompts.select("prompt_id", "benchmark", "reference", "tolerance")
    joined = (
        replies.select("prompt_id", "sample", "reply").join(asked, on="prompt_id", how="left", validate="m:1").sort("prompt_id", "sample")
    )
    unknown = joined.filter(pl.col("reference").is_null())["prompt_id"]
    if len(unknown):
        raise ValueError(f"{unknown[0]} is no item with a known answer, but there is a reply to it")
    return joined.to_dicts()
