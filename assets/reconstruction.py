"""WildLlamaChat: the conversations with replies of the policy, so that nothing trains on another model's text."""

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata
from rlhi_dagster.engines.calls import CallStats
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.preferences.pair_judge import pair_judge_of
from rlhi_dagster.preferences.reconstruction import mismatches, user_messages
from rlhi_dagster.preferences.reconstruction import wildllamachat as wildllamachat_of
from rlhi_dagster.resources import Settings, Workers, call_metadata
from rlhi_dagster.tables import TABLES

GROUP = "reconstruction"


@declare.table(
    "wildllamachat",
    GROUP,
    {"huggingface"},
    code_version="2",
    reads=("rewrites.min_feedback_probability", "pair_judge", "sampling", "seed", "engines.policy", "engines.pair_judge"),
    deps=["policy"],
    pool="model",
)
def wildllamachat(
    context: dg.AssetExecutionContext,
    settings: Settings,
    lake: dg.ResourceParam[Lake],
    workers: Workers,
    turns: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a user message with the reply that the policy gives, turn by turn on its own history, beside the logged reply.

    Where the next message criticises the logged reply, also whether the criticism fits the policy's.
    """
    said, spent = turns.collect(), list[CallStats]()
    policy = ModelRef.from_manifest(lake.artefact_path("policy"))
    answers, stats = workers.replay(context, policy, user_messages(said), settings.sampling())
    judge = pair_judge_of(context, settings, workers, spent)
    least = settings.profile.rewrites.min_feedback_probability
    chat = wildllamachat_of(said, feedback_labels.collect(), answers, policy.identity, judge, least)
    found = mismatches(chat)
    overall = found.row(0, named=True)
    errors = chat["error"].drop_nulls().str.split(":").list.first()
    wishes = found.filter(pl.col("of").str.starts_with("wish ")).select(pl.col("of").str.strip_prefix("wish "), "mismatched")
    return metadata.result(
        "wildllamachat",
        chat,
        follow_up_mismatch_fraction=metadata.number(overall["mismatch_fraction"]),
        follow_up_mismatch_ci_low=metadata.number(overall["ci_low"]),
        follow_up_mismatch_ci_high=metadata.number(overall["ci_high"]),
        follow_ups_judged=overall["follow_ups"],
        follow_ups_that_could_be_told=overall["follow_ups"] - overall["untold"],
        untold_fraction=metadata.number(overall["untold"] / overall["follow_ups"] if overall["follow_ups"] else None),
        mismatches=metadata.markdown_table(found),
        mismatched_by_wish=metadata.bars(dict(wishes.iter_rows())),
        error_rows=len(errors),
        errors=metadata.bars(dict(errors.value_counts(sort=True).iter_rows())),
        **call_metadata(sum(spent, stats)),
    )


table_checks = [checks.table_check("wildllamachat", TABLES["wildllamachat"])]
