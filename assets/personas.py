"""What is known about a user from their own earlier messages, with the messages that say so."""

from functools import partial

import dagster as dg
import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.conversations.turns import timed
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.personas.evidence import lines_rest_on_earlier_messages
from rlhi_dagster.roles.persona_writer import corrected, written

GROUP = "personas"


@declare.asset(
    "personas",
    GROUP,
    {"huggingface"},
    code_version="3",
    reads=("personas", "models.persona_writer", "prompts.persona_writer"),
    pool=declare.MODEL,
)
def personas(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    conversations: pl.LazyFrame,
    turns: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a version of a persona line, valid from one moment until it is revised, with the messages that support it."""
    calls, embed = Calls(context, workers, settings, lake), partial(workers.embed, context, MiniLM.name)
    found = written(calls, settings.profile, embed, timed(turns, conversations), feedback_labels, conversations)
    lines, corrections = corrected(settings.profile, found.lines, turns)
    current = lines.filter(pl.col("valid_until").is_null())
    per_user = current.group_by("user_id").len().group_by("len").agg(pl.len().alias("users")).sort("len")
    return metadata.result(
        "personas",
        lines,
        users_with_persona=lines["user_id"].n_unique(),
        current_lines=len(current),
        current_lines_by_slot=metadata.bars(dict(current["slot"].value_counts(sort=True).head(12).iter_rows())),
        lines_by_writer=metadata.bars(dict(lines["writer"].value_counts(sort=True).iter_rows())),
        users_by_current_lines=metadata.bars({str(n): users for n, users in per_user.iter_rows()}),
        dropped=metadata.bars(found.dropped),
        **corrections,
        **calls.metadata(),
    )


table_checks = [declare.matches_table("personas")]
rest_on_messages = declare.check("personas", lines_rest_on_earlier_messages, turns="turns")
