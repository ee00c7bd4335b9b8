r"""MATH-500, Minerva, OlympiadBench, GSM8K, AMC 23 and AIME 24: problems whose answer is a number or a formula.

What belongs here: from the published files to items with a known answer, one function a layout. What does not: grading (``reasoning``).

Every problem is asked in one message, without examples, with the instruction that models are usually evaluated with: reason step by step,
answer in ``\boxed{}``. A location is a file, or a folder with the file as it was published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base.boxes import boxes
from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.evaluation.benchmarks.items import file_at, item, items, numbered

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
MANY = "The problem has several answers: put all of them, separated by commas, within one \\boxed{}."
MINERVA_RELATIVE = 1e-4
"""A number counts as equal to Minerva's within this share of it, as in the evaluation code of Qwen2.5-Math; its answers are rounded."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem as its file has it.

    Attributes:
        name: Its name in the file.
        question: What is asked, with what belongs to it.
        answer: The known answer, as LaTeX; several that are all asked for stand between commas.
        tolerance: Largest absolute difference from a known number; ``None`` if it must be exact.
    """

    name: str
    question: str
    answer: str
    tolerance: float | None = None


def math_500(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of MATH-500 (Lightman et al. 2023): fields `problem`, `answer`, `unique_id`; level and subject are not used."""
    return _load(Benchmark.MATH_500, location, "math500.test.jsonl", lambda row: Problem(row["unique_id"], row["problem"], row["answer"]))


def minerva(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of Minerva's OCWCourses (Lewkowycz et al. 2022): the answer is what the `solution` boxes, without its unit."""
    return _load(Benchmark.MINERVA, location, "minerva_math.test.jsonl", _of_minerva)


def olympiad_bench(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of OlympiadBench (He et al. 2024), English, text only, open-ended: `final_answer`, `unit`, `error` (tolerance)."""
    return _load(Benchmark.OLYMPIAD_BENCH, location, "olympiadbench.test.jsonl", _of_olympiad_bench)


def gsm8k(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of GSM8K (Cobbe et al. 2021): the answer is what follows ``####``."""
    return _load(Benchmark.GSM8K, location, "gsm8k.test.jsonl", _of_gsm8k)


def amc_23(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of AMC 12 2023, the 40 problems with a whole number as answer."""
    return _load(Benchmark.AMC_23, location, "amc23.test.jsonl", lambda row: Problem(row["id"], row["question"], _whole(row["answer"])))


def aime_24(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of AIME 2024, I and II: 30 problems with a whole number from 0 to 999 as answer."""
    return _load(Benchmark.AIME_24, location, "aime24.test.jsonl", lambda row: Problem(row["id"], row["question"], _whole(row["answer"])))


def _load(benchmark: Benchmark, location: str, name: str, read: Callable[[Mapping[str, Any]], Problem]) -> pl.DataFrame:
    """Items of the file; a line that has another layout is told with file, line and what it lacks."""
    path, rows = file_at(Path(location), name), []
    for number, row in numbered(path):
        try:
            found = read(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            lacks = f"has no `{error.args[0]}`" if isinstance(error, KeyError) else f"cannot be read: {error}"
            raise ValueError(f"{path}: line {number} {lacks}; {benchmark} needs the layout that {name} was published in") from error
        if not str(found.question).strip() or not found.answer.strip():
            raise ValueError(f"{path}: line {number} has no problem or no answer")
        asked = f"{found.question.strip()}\n\n{INSTRUCTION}"
        rows.append(item(benchmark, str(found.name), [asked], found.answer, found.tolerance))
    if not rows:
        raise ValueError(f"{path}: no problem is there")
    return items(rows)


def _of_minerva(row: Mapping[str, Any]) -> Problem:
    answer = next((inside.strip() for _, _, inside in boxes(row["solution"]) if inside.strip()), None)
    if answer is None:
        raise ValueError("the solution has no \\boxed{} answer")
    return Problem(row["idx"], row["problem"], answer, _share_of(answer))


def _share_of(answer: str) -> float | None:
    try:
        return MINERVA_RELATIVE * abs(float(answer))
    except ValueError:
        return None


def _of_olympiad_bench(row: Mapping[str, Any]) -> Problem:
    question = "\n\n".join(text.strip() for text in (row["context"], row["question"]) if text)
    if row["is_multiple_answer"]:
        question += f"\n\n{MANY}"
    if row["unit"]:
        question += f"\n\nThe unit of the answer is {row['unit']}."
    answer = ", ".join(row["final_answer"]).replace("$", "").strip().rstrip(".")
    return Problem(row["id"], question, answer, float(row["error"]) if row["error"] else None)


def _of_gsm8k(row: Mapping[str, Any]) -> Problem:
    reasoning, mark, answer = row["answer"].rpartition("####")
    if not mark or not reasoning:
        raise ValueError("the answer has no line `#### NUMBER`")
    return Problem(row["idx"], row["question"], answer.strip().replace(",", ""))


def _whole(answer: str | float) -> str:
    if not float(answer).is_integer():
        raise ValueError(f"the answer {answer} is no whole number")
    return str(int(float(answer)))
