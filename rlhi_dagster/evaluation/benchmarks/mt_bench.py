"""MT-Bench: 80 dialogues of two turns, each reply rated from 1 to 10.

An item is a turn: ``mt_bench:CATEGORY/QUESTION#1`` and ``#2``; the second is asked with the model's own first reply before it
(``items.with_earlier_replies``) and rated with the whole dialogue in view. Scores are the mean over both turns and, as ``mt_bench/turn_1``
and ``mt_bench/turn_2``, of each.

Deviation: the judge is asked in our words and gives a letter, where the published one explains itself and writes a number.
Source: Zheng et al. 2023, *Judging LLM-as-a-judge* (arXiv 2306.05685).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.benchmarks.items import Loaded, file_in, item, items, json_lines, responses
from rlhi_dagster.evaluation.benchmarks.rating import Scale
from rlhi_dagster.evaluation.benchmarks.score import in_scores, mean_score

BENCHMARK = Benchmark.MT_BENCH
SCALE = Scale("mt_bench", {letter: float(rating) for rating, letter in enumerate("ABCDEFGHIJ", 1)}, is_pairwise=False)


def load(folder: Path) -> Loaded:
    """The turns of all dialogues, with the reference answers where ``question.jsonl`` has them.

    Raises:
        ValueError: The questions are not there, or a row has no `question_id`, `category` or `turns`.
    """
    path = file_in(folder, "question.jsonl")
    found = []
    for number, row in enumerate(json_lines(path), 1):
        turns, references = row.get("turns"), row.get("reference") or []
        if not isinstance(turns, list) or not turns or "category" not in row or "question_id" not in row:
            raise ValueError(f"{path}: row {number} lacks question_id, category or turns")
        name = f"{row['category']}/{row['question_id']}"
        for turn in range(1, len(turns) + 1):
            reference = references[turn - 1] if turn <= len(references) else None
            found.append(item(BENCHMARK, f"{name}#{turn}", turns[:turn], reference))
    return Loaded(items(found), responses(BENCHMARK, "", {}))


def scores(folder: Path, ratings: pl.DataFrame, replies: pl.DataFrame) -> pl.DataFrame:
    """Mean ratings of each recipe by each judge, over both turns and of each; intervals are over dialogues.

    Args:
        folder: Not needed.
        ratings: ``BENCHMARK_RATINGS`` of this benchmark.
        replies: Not needed.
    """
    name = pl.col("prompt_id").str.split("#")
    known = ratings.filter(pl.col("rating").is_not_null()).with_columns(dialogue=name.list.first(), turn=name.list.last())
    rows = []
    for (recipe, judge), group in known.group_by("recipe", "judge", maintain_order=True):
        turns = group.partition_by("turn", as_dict=True)
        parts = {BENCHMARK.value: group} | {f"{BENCHMARK}/turn_{turn}": part for (turn,), part in turns.items()}
        for part, of in parts.items():
            key = {"recipe": recipe, "benchmark": part, "judge": judge}
            rows.append(key | mean_score(Metric.RATING, of["rating"], of["dialogue"]))
    return in_scores(rows)
