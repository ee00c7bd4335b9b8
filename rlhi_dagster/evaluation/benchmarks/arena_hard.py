"""Arena-Hard, v0.1 and v2.0: hard requests, a baseline's answers, five-way verdicts in both orders, win rate with style control.

A verdict of *significantly better* counts as three battles, as published. With one opponent Bradley-Terry's probability of a win is the
mean over battles, so that is what is computed; the interval is over items, where the published one is over battles. In v2.0 the creative
requests have a baseline of their own and a score of their own, ``arena_hard_v2.0/creative_writing``.

Deviation: the judge is asked in our words and chooses at once, where the published one first writes an answer of its own.
Source: Li et al. 2024, *From Crowdsourced Data to High-Quality Benchmarks* (arXiv 2406.11939), and lmarena/arena-hard-auto.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.benchmarks import style_control
from rlhi_dagster.evaluation.benchmarks.items import Loaded, file_in, item, items, json_lines, responses
from rlhi_dagster.evaluation.benchmarks.rating import Scale, position_bias
from rlhi_dagster.evaluation.benchmarks.score import in_scores, mean_score, score

SCALE = Scale("arena_hard", {"A": 2.0, "B": 1.0, "C": 0.0, "D": -1.0, "E": -2.0}, is_pairwise=True)
"""``A>>B``, ``A>B``, ``A=B``, ``B>A``, ``B>>A``."""
STRONG = 3
"""Battles that a verdict of *significantly better* counts as."""
BASELINES = {"arena-hard-v0.1": "gpt-4-0314", "hard_prompt": "o3-mini-2025-01-31", "creative_writing": "gemini-2.0-flash-001"}
"""Of each category: whose answers the published scores compare with."""
_MAIN = ("arena-hard-v0.1", "hard_prompt")


def load_v0_1(folder: Path) -> Loaded:
    """The 500 requests of v0.1; see `load`."""
    return load(folder, Benchmark.ARENA_HARD_V0_1, "arena-hard-v0.1.question.jsonl")


def load_v2_0(folder: Path) -> Loaded:
    """The 500 hard and 250 creative requests of v2.0; see `load`."""
    return load(folder, Benchmark.ARENA_HARD_V2_0, "arena-hard-v2.0.question.jsonl")


def load(folder: Path, benchmark: Benchmark, file: str) -> Loaded:
    """The requests, and the baselines' answers where ``model_answer/BASELINE.jsonl`` is there.

    Args:
        folder: With ``file`` or ``question.jsonl``, plain or with ``.gz``.
        benchmark: Of the items.
        file: The name of the questions.

    Raises:
        ValueError: The questions are not there, or a row has no `uid`, `prompt` or known `category`.
    """
    path = file_in(folder, file, "question.jsonl")
    names, rows = {}, json_lines(path)
    for number, row in enumerate(rows, 1):
        if row.get("category") not in BASELINES or not row.get("prompt") or not row.get("uid"):
            raise ValueError(f"{path}: row {number} lacks uid, prompt, or a category of {', '.join(BASELINES)}")
        names[row["uid"]] = f"{row['category']}/{row['uid']}"
    prompts = items(item(benchmark, names[row["uid"]], [row["prompt"]]) for row in rows)
    categories = {row["uid"]: row["category"] for row in rows}
    found = [
        responses(benchmark, baseline, {f"{benchmark}:{names[uid]}": text for uid, text in answers if categories.get(uid) == category})
        for category, baseline in BASELINES.items()
        if category in categories.values() and (answers := _answers(folder, baseline))
    ]
    return Loaded(prompts, pl.concat([responses(benchmark, "", {}), *found]))


def scores(folder: Path, ratings: pl.DataFrame, replies: pl.DataFrame) -> pl.DataFrame:
    """Win rate, style-controlled win rate and position bias of each recipe by each judge, for each category.

    Args:
        folder: Not needed.
        ratings: ``BENCHMARK_RATINGS`` of one version.
        replies: ``RESPONSES`` of the recipes and of the opponents.
    """
    texts = {(row["recipe"], row["prompt_id"]): row["reply"] or "" for row in replies.iter_rows(named=True)}
    category = pl.col("prompt_id").str.split(":").list.last().str.split("/").list.first()
    keys = ("recipe", "opponent", "judge", "benchmark", "category")
    rows = []
    for (recipe, opponent, judge, benchmark, of), group in ratings.with_columns(category=category).group_by(*keys, maintain_order=True):
        pairs = position_bias(group, SCALE.tie)
        fought = battles(group.join(pairs, on="prompt_id", how="semi"))
        key = {"recipe": recipe, "judge": judge, "benchmark": benchmark if of in _MAIN else f"{benchmark}/{of}"}
        expanded = fought.select(pl.col("won", "prompt_id").repeat_by("count").explode(empty_as_null=False))
        rows.append(key | mean_score(Metric.WIN_RATE, expanded["won"], expanded["prompt_id"]))
        rows.append(key | mean_score(Metric.POSITION_BIAS, pairs["follows_order"], pairs["prompt_id"]))
        if len(fought) and recipe != opponent:
            styles = [np.array([style_control.style(texts[name, each]) for each in fought["prompt_id"]]) for name in (recipe, opponent)]
            different = style_control.differences(*styles)
            ends = style_control.controlled(
                fought["won"].to_numpy(), fought["count"].cast(pl.Float64).to_numpy(), different, fought["prompt_id"].to_numpy().astype(str)
            )
            rows.append(key | score(Metric.STYLE_CONTROLLED_WIN_RATE, len(pairs), *ends))
    return in_scores(rows)


def battles(ratings: pl.DataFrame) -> pl.DataFrame:
    """What each verdict counts: `prompt_id`, `won` (1, 0, or 0.5 for a tie) and `count` (battles)."""
    rating = pl.col("rating")
    count = pl.when(rating.abs() == max(SCALE.values.values())).then(STRONG).otherwise(1).cast(pl.Int64)
    return ratings.sort("prompt_id", "order").select("prompt_id", won=(rating.sign() + 1) / 2, count=count)


def _answers(folder: Path, model: str) -> list[tuple[str, str]]:
    """The answers of a published model by `uid`; none where the folder has no file of them."""
    path = next((path for end in ("", ".gz") if (path := folder / "model_answer" / f"{model}.jsonl{end}").is_file()), None)
    return [] if path is None else [_answer(row, f"{path}: row {number}") for number, row in enumerate(json_lines(path), 1)]


def _answer(row: Mapping[str, Any], at: str) -> tuple[str, str]:
    """As arena-hard-auto writes them since 2025, with `messages`, and before, with `choices`."""
    try:
        if "messages" in row:
            content = row["messages"][-1]["content"]
            return str(row["uid"]), str(content["answer"] if isinstance(content, dict) else content)
        return str(row.get("uid") or row["question_id"]), str(row["choices"][0]["turns"][-1]["content"])
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"{at} has no answer as arena-hard-auto writes them (`uid` and `messages`)") from None
