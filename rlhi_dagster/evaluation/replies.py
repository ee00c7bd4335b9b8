"""From evaluation items to requests, and from answers to responses."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from rlhi_dagster.base.tables import RESPONSES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.personas.conditioning import with_persona


def requests(items: pl.DataFrame, persona: str) -> list[ChatRequest]:
    """One request an item; ``persona`` is ``own`` or ``none``, as the recipe was trained."""
    return [ChatRequest(with_persona(row["prompt"], row["persona"] if persona == "own" else "")) for row in items.to_dicts()]


def responses_of(items: pl.DataFrame, recipe: str, model: ModelRef, answers: Sequence[ChatAnswer]) -> pl.DataFrame:
    """``RESPONSES`` of one recipe from the answers to ``requests``. A reply cut off at the limit stays, as it is what a user would get."""
    return RESPONSES.conform(
        items.select("prompt_id", "benchmark").with_columns(
            response_id=pl.format("{}/{}", pl.lit(recipe), "prompt_id"),
            recipe=pl.lit(recipe),
            reply=pl.Series([answer.text for answer in answers], dtype=pl.String()),
            error=pl.Series([answer.error for answer in answers], dtype=pl.String()),
            model=pl.lit(model.identity),
            call_id=pl.Series([answer.call_id or None for answer in answers], dtype=pl.String()),
        )
    )
