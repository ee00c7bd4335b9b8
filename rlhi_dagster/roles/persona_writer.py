"""The persona writer that the profile names, and the users' corrections."""

from __future__ import annotations

import polars as pl

from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.personas import corrections, extractive
from rlhi_dagster.personas.chat_writer import ChatWriter
from rlhi_dagster.personas.domains import Embed
from rlhi_dagster.personas.versions import Written
from rlhi_dagster.profiles import Profile


def written(
    calls: Calls, profile: Profile, embed: Embed, turns: pl.LazyFrame, labels: pl.LazyFrame, conversations: pl.LazyFrame
) -> Written:
    """Write all lines with the profile's writer; ``embed`` gives vectors to the extractive one."""
    if calls.program("persona_writer"):
        return extractive.persona_lines(turns, labels, conversations, profile.personas, embed)
    model = calls.asked("persona_writer", temperature=0.0)
    return ChatWriter.with_default_prompt(model.model.identity, model, profile.personas).persona_lines(turns)


def corrected(profile: Profile, lines: pl.DataFrame, turns: pl.LazyFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Apply the profile's corrections file; return the lines and, where there is a file, counts as metadata."""
    chosen = profile.personas
    if chosen.corrections is None:
        return lines, {}
    given = corrections.read(profile.root / chosen.corrections, chosen.max_line_characters)
    users = turns.select(pl.col("user_id").unique()).collect().to_series()
    found, counts = corrections.corrected(lines, given, users)
    return found, {f"corrections/{name}": count for name, count in counts.items()}
