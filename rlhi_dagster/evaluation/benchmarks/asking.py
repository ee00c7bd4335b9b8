"""From a profile's public benchmarks to their items, the opponents' replies, and the replies of checkpoints.

What belongs here: what is the same for all benchmarks. What does not: how one is loaded, judged and scored (its own module), and calling a
model, which is handed in.

Dialogues are asked turn by turn, each turn after the checkpoint's own replies. Items with a known answer can be asked several times; what a
model judges is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import BENCHMARK_ITEMS, BENCHMARK_RESPONSES, RESPONSES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.evaluation.benchmarks import KNOWN_ANSWERS, PUBLIC
from rlhi_dagster.evaluation.benchmarks.items import with_earlier_replies

Ask = Callable[[Sequence[tuple[ModelRef, Sequence[ChatRequest]]]], Sequence[Sequence[ChatAnswer]]]
"""Answers of several models to their requests, in order."""
NO_EARLIER_REPLY = "no_earlier_reply: the model gave none to the turn before"
_TURN = pl.col("prompt").list.len()


def load(locations: Mapping[Benchmark, Path]) -> pl.DataFrame:
    """``BENCHMARK_ITEMS`` of all benchmarks.

    Args:
        locations: Where the files of each lie.

    Raises:
        ValueError: Files are not there or have another layout; the message names them.
    """
    found = [
        PUBLIC[name].load(location).items if name in PUBLIC else KNOWN_ANSWERS[name](str(location)) for name, location in locations.items()
    ]
    return BENCHMARK_ITEMS.conform(pl.concat([BENCHMARK_ITEMS.empty(), *found]))


def responses(items: pl.DataFrame, models: Mapping[str, ModelRef], samples: int, ask: Ask) -> pl.DataFrame:
    """Let checkpoints answer.

    Args:
        items: ``BENCHMARK_ITEMS``.
        models: The checkpoints by recipe.
        samples: Replies to each item with a known answer.
        ask: Asks the models; called once a turn.

    Returns:
        ``BENCHMARK_RESPONSES``. A turn without a reply to the one before is not asked and has an error.
    """
    rows: list[dict[str, Any]] = []
    for turn in items.select(_TURN.unique().sort()).to_series():
        given = {name: _replies(rows, name) for name in models}
        asked = {name: with_own_replies(items.filter(turn == _TURN), given[name]).to_dicts() for name in models}
        wanted = {
            name: [(row, n) for row in mine for n in range(1 if row["reference"] is None else samples)] for name, mine in asked.items()
        }
        answers = ask([(models[name], [_request(row, n) for row, n in mine if row["is_asked"]]) for name, mine in wanted.items()])
        for (name, mine), told in zip(wanted.items(), answers, strict=True):
            each = iter(told)
            rows += [_row(name, models[name], row, n, next(each) if row["is_asked"] else None) for row, n in mine]
    return BENCHMARK_RESPONSES.conform(pl.DataFrame(rows, schema=BENCHMARK_RESPONSES.schema))


def with_own_replies(items: pl.DataFrame, replies: Mapping[str, str | None]) -> pl.DataFrame:
    """The items with a model's own ``replies`` (by `prompt_id`) before later turns, and `is_asked`: whether all of those are there."""
    first = items.filter(_TURN == 1)
    later = with_earlier_replies(items.filter(_TURN > 1), replies)
    silent = items.filter(_TURN > 1).join(later, on="prompt_id", how="anti")
    shown = (first.with_columns(is_asked=True), later.with_columns(is_asked=True), silent.with_columns(is_asked=False))
    return pl.concat([each.cast({"prompt": items.schema["prompt"]}) for each in shown]).sort("prompt_id")


def rated(
    items: pl.DataFrame, benchmark: Benchmark, published: pl.DataFrame, replies: pl.DataFrame, base: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """What a judge of a benchmark is shown.

    Args:
        items: ``BENCHMARK_ITEMS``.
        benchmark: One of ``PUBLIC``.
        published: The benchmark's own opponents, ``items.Loaded.opponents``.
        replies: ``BENCHMARK_RESPONSES`` of one recipe.
        base: The same of the opponent where none was published.

    Returns:
        The items as the recipe was asked, its replies and the opponents' as ``RESPONSES``.
    """
    mine = _as_responses(replies.filter(benchmark=benchmark.value))
    shown = with_own_replies(items.filter(benchmark=benchmark.value), dict(mine.select("prompt_id", "reply").iter_rows()))
    other = _as_responses(base.filter(benchmark=benchmark.value)).join(published, on="prompt_id", how="anti")
    return shown.drop("is_asked"), mine, pl.concat([published, other])


def _as_responses(replies: pl.DataFrame) -> pl.DataFrame:
    return RESPONSES.conform(replies.filter(pl.col("sample") == 0))


def _replies(rows: Sequence[Mapping[str, Any]], recipe: str) -> dict[str, str | None]:
    return {row["prompt_id"]: row["reply"] for row in rows if row["recipe"] == recipe and row["sample"] == 0}


def _count(item: Mapping[str, Any], samples: int) -> int:
    return samples if item["benchmark"] in KNOWN_ANSWERS else 1


def _request(item: Mapping[str, Any], sample: int) -> ChatRequest:
    return ChatRequest(item["prompt"], sample)


def _row(recipe: str, model: ModelRef, item: Mapping[str, Any], sample: int, answer: ChatAnswer | None) -> dict[str, Any]:
    return {
        "response_id": f"{recipe}/{item['prompt_id']}" + (f"~{sample}" if sample else ""),
        "recipe": recipe,
        "prompt_id": item["prompt_id"],
        "benchmark": item["benchmark"],
        "sample": sample,
        "reply": answer and answer.text,
        "error": answer.error if answer else NO_EARLIER_REPLY,
        "model": model.identity,
        "call_id": (answer.call_id or None) if answer else None,
    }
