"""The persona writer that the profile names, behind the workers, and the users' corrections.

What belongs here: the one place that turns settings into lines. What does not: the writers themselves.
"""

from __future__ import annotations

from functools import partial

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.engines.calls import CallStats
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.personas import corrections, extractive
from rlhi_dagster.personas.chat_writer import ChatWriter
from rlhi_dagster.personas.versions import Written
from rlhi_dagster.resources import Settings, Workers, asking, call_metadata
from rlhi_dagster.training.artefacts import hub_model


def written(
    context: dg.AssetExecutionContext,
    settings: Settings,
    workers: Workers,
    turns: pl.LazyFrame,
    labels: pl.LazyFrame,
    conversations: pl.LazyFrame,
) -> tuple[Written, dict[str, float]]:
    """Write all lines with the profile's writer; return them and, where a model wrote, what it cost as metadata."""
    chosen, spent = settings.profile.personas, list[CallStats]()
    if chosen.writer is None:
        embed = partial(workers.embed, context, MiniLM.name)
        return extractive.persona_lines(turns, labels, conversations, chosen, embed), {}
    model = hub_model(chosen.writer.hub_model, chosen.writer.hub_revision)
    chat = asking(context, workers, model, settings.sampling(temperature=0.0), "persona_writer", spent)
    lines = ChatWriter.with_default_prompt(model.identity, chat, chosen).persona_lines(turns)
    return lines, call_metadata(sum(spent, CallStats()))


def corrected(settings: Settings, lines: pl.DataFrame, turns: pl.LazyFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Apply the profile's corrections file; return the lines and, where there is a file, counts as metadata."""
    chosen = settings.profile.personas
    if chosen.corrections is None:
        return lines, {}
    given = corrections.read(profiles.data_root() / chosen.corrections, chosen.max_line_characters)
    users = turns.select(pl.col("user_id").unique()).collect().to_series()
    found, counts = corrections.corrected(lines, given, users)
    return found, {f"corrections/{name}": count for name, count in counts.items()}
