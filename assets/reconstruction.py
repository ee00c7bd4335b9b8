"""WildLlamaChat: the conversations with replies of the policy, so that nothing trains on another model's text."""

import dagster as dg
import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.reconstruction.wildllamachat import mismatches, user_messages
from rlhi_dagster.reconstruction.wildllamachat import wildllamachat as wildllamachat_of
from rlhi_dagster.roles.pair_judge import pair_judge

GROUP = "reconstruction"
PROMPTS = ("prompts.applicability", "prompts.meets_feedback")
"""Of the judge of pairs; its name has the digest of both."""


@declare.asset(
    "wildllamachat",
    GROUP,
    {"huggingface"},
    code_version="3",
    reads=("rewrites.min_feedback_probability", "models.policy", "models.pair_judge", *PROMPTS),
    deps=["policy"],
    pool=declare.OF_ROLES,
)
def wildllamachat(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    turns: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a user message that got a reply, with the one that the policy gives, turn by turn on its own history.

    Where the next message criticises the logged reply, also whether the criticism fits the policy's.
    """
    said, calls = turns.collect(), Calls(context, workers, settings, lake)
    policy = calls.model("policy")
    answers = calls.replay(policy, user_messages(said))
    least = settings.profile.rewrites.min_feedback_probability
    chat = wildllamachat_of(said, feedback_labels.collect(), answers, policy.identity, pair_judge(calls), least)
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
        **calls.metadata(),
    )


table_checks = [declare.matches_table("wildllamachat")]
