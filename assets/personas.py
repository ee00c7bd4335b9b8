"""What is known about a user from their own earlier messages, with the messages that say so."""

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata
from rlhi_dagster.personas import evidence, writing
from rlhi_dagster.resources import Settings, Workers
from rlhi_dagster.tables import TABLES

GROUP = "personas"


@declare.table(
    "personas", GROUP, {"huggingface"}, code_version="2", reads=("personas", "sampling", "seed", "engines.persona_writer"), pool="model"
)
def personas(
    context: dg.AssetExecutionContext,
    settings: Settings,
    workers: Workers,
    conversations: pl.LazyFrame,
    turns: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a version of a persona line, valid from one moment until it is revised, with the messages that support it."""
    found, cost = writing.written(context, settings, workers, turns, feedback_labels, conversations)
    lines, corrections = writing.corrected(settings, found.lines, turns)
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
        **cost,
    )


@dg.asset_check(asset=personas, blocking=True, additional_ins={"turns": dg.AssetIn("turns")})
def lines_rest_on_earlier_messages(personas: pl.LazyFrame, turns: pl.LazyFrame) -> dg.AssetCheckResult:
    """Every line cites messages of its user from before it became valid, and the words that it quotes are in them."""
    counts = evidence.faults(personas, turns)
    return checks.Finding(not any(counts.values()), counts).as_result()


table_checks = [checks.table_check("personas", TABLES["personas"])]
