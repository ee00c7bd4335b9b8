"""WildLlamaChat: the conversations with replies of the policy, so that nothing trains on another model's text."""

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.preferences.applicability import follow_up_applies, town_follow_up_applies
from rlhi_dagster.preferences.reconstruction import user_messages
from rlhi_dagster.preferences.reconstruction import wildllamachat as wildllamachat_of
from rlhi_dagster.resources import Settings, Workers, call_metadata
from rlhi_dagster.tables import TABLES

GROUP = "reconstruction"


@declare.table("wildllamachat", GROUP, {"huggingface"}, deps=["policy"], pool="model")
def wildllamachat(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, turns: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a user message with the reply that the policy gives, turn by turn on its own history, beside the logged reply."""
    said = turns.collect()
    policy = ModelRef.from_manifest(lake.artefact_path("policy"))
    answers, stats = workers.replay(context, policy, user_messages(said), settings.sampling())
    applies = town_follow_up_applies if settings.profile.truth else follow_up_applies
    chat = wildllamachat_of(said, answers, policy.identity, applies)
    known = chat["follow_up_applies"].drop_nulls()
    errors = chat["error"].drop_nulls().str.split(":").list.first()
    return metadata.result(
        "wildllamachat",
        chat,
        follow_up_mismatch_fraction=metadata.number((~known).mean()),
        follow_ups_that_could_be_told=len(known),
        error_rows=len(errors),
        errors=metadata.bars(dict(errors.value_counts(sort=True).iter_rows())),
        **call_metadata(stats),
    )


table_checks = [checks.table_check("wildllamachat", TABLES["wildllamachat"])]
