"""MMLU-Pro and GPQA: questions whose answer is a letter.

What belongs here: from the published files to items with a letter as known answer. What does not: which letter a reply chooses
(``reasoning.choice_answers``). A location is a file, or a folder with the file as it was published.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.evaluation.benchmarks.items import file_at, item, items

LETTERS = "ABCDEFGHIJ"
"""MMLU-Pro has up to ten options."""
_MMLU_PRO = ("question_id", "question", "options", "answer", "category")
_GPQA = ("Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def mmlu_pro(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of MMLU-Pro (Wang et al. 2024), zero-shot, with the published instruction and layout of options.

    The known answer is the letter in `answer`, as in the published evaluation; `answer_index` disagrees with it in one of 12,032 questions.

    Raises:
        ValueError: No file or no question is there, or a question has another layout; the message names file and row, from 1.
    """
    path = file_at(Path(location), "mmlu_pro_test.parquet")
    rows = []
    for number, row in enumerate(_columns(path, pl.read_parquet(path), _MMLU_PRO), 1):
        if not row["question"] or row["answer"] not in LETTERS[: len(row["options"] or ())]:
            raise ValueError(f"{path}: row {number} has no question, or its answer is none of its options")
        asked = _question(f"about {row['category']}", row["question"], row["options"])
        rows.append(item(Benchmark.MMLU_PRO, str(row["question_id"]), [asked], row["answer"]))
    return items(rows)


def gpqa(location: str) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of GPQA (Rein et al. 2023): `gpqa_diamond.csv` or `gpqa_main.csv` as its authors give it out.

    The file has the right answer first; the options are put in an order that depends on the question's `Record ID` alone.

    Raises:
        ValueError: As of `mmlu_pro`.
    """
    path = file_at(Path(location), "gpqa_diamond.csv", "gpqa_main.csv")
    rows = []
    for number, row in enumerate(_columns(path, pl.read_csv(path, infer_schema=False), _GPQA), 1):
        name, question, *answers = (str(row[column] or "").strip() for column in _GPQA)
        if not name or not question or not all(answers):
            raise ValueError(f"{path}: row {number} lacks its record id, its question or one of its four answers")
        order = list(range(len(answers)))
        random.Random(f"gpqa:{name}").shuffle(order)
        asked = _question("", question, [answers[place] for place in order])
        rows.append(item(Benchmark.GPQA, name, [asked], LETTERS[order.index(0)]))
    return items(rows)


def _columns(path: Path, frame: pl.DataFrame, needed: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    missing = [name for name in needed if name not in frame.columns]
    if missing or frame.is_empty():
        raise ValueError(f"{path}: lacks {', '.join(missing)}" if missing else f"{path}: no question is there")
    return frame.select(needed).to_dicts()


def _question(topic: str, question: str, options: Sequence[str]) -> str:
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return (
        f"The following is a multiple choice question{f' {topic}' if topic else ''}. Think step by step and then finish your answer with "
        f'"The answer is (X)" where X is the correct letter choice.\n\nQuestion:\n{question.strip()}\nOptions:\n{listed}'
    )
