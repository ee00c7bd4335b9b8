"""From what users said next to training examples: follow-ups as privileged context."""

from functools import partial

import dagster as dg
import polars as pl

from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.personas.evidence import personas_precede_use
from rlhi_dagster.preferences import decontamination, merge, pair_checks
from rlhi_dagster.training import follow_ups

GROUP = "preferences"


@declare.asset("follow_up_examples", GROUP, {"huggingface"}, reads=("pairs", "validation_fraction", "seed"), pool=declare.MODEL)
def follow_up_examples(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    workers: dg.ResourceParam[Workers],
    turns: pl.LazyFrame,
    users: pl.LazyFrame,
    personas: pl.LazyFrame,
    eval_prompts: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a logged reply with what its user said next: to train on, or dropped with the reasons; a twin has another user's."""
    profile, clean = settings.profile, settings.profile.pairs.decontamination
    drew = follow_ups.offered(turns, users.collect(), personas.collect())
    items = merge.eval_items(eval_prompts.collect(), clean.benchmarks)
    embed = partial(workers.embed, context, MiniLM.name)
    hits = decontamination.hits(drew, items, clean.ngram_words, clean.min_similarity, embed)
    jaccard, fraction = profile.pairs.near_duplicate_jaccard, profile.validation_fraction
    found = follow_ups.follow_up_examples(drew, hits, users.collect(), jaccard, fraction, profile.seed)
    given = found.filter(source=follow_ups.FollowUps.GIVEN.value)
    fates = given.select(pl.col("drop_reasons").list.first().fill_null("kept").alias("fate"))
    return metadata.result(
        "follow_up_examples",
        found,
        kept_train=len(given.filter("is_kept", split="train")),
        users=given["user_id"].n_unique(),
        fates=metadata.bars(dict(fates["fate"].value_counts(sort=True).iter_rows())),
    )


table_checks = [declare.matches_table("follow_up_examples")]
examples_are_sound = [
    declare.check("follow_up_examples", follow_ups.each_example_has_its_follow_up, turns="turns"),
    declare.check(
        "follow_up_examples",
        pair_checks.pairs_are_decontaminated,
        eval_prompts="eval_prompts",
        settings=lambda run: run.profile.pairs.decontamination,
    ),
    declare.check("follow_up_examples", pair_checks.no_held_out_user_in_training, users="users"),
    declare.check("follow_up_examples", personas_precede_use, personas="personas", turns="turns"),
]
