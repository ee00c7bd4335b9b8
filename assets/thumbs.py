"""From users' thumbs to unpaired training examples."""

from functools import partial

import dagster as dg
import polars as pl

from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.personas.evidence import personas_precede_use
from rlhi_dagster.preferences import decontamination, merge, pair_checks
from rlhi_dagster.preferences.refusals import complaints
from rlhi_dagster.training import thumbs

GROUP = "preferences"


@declare.asset(
    "thumb_examples", GROUP, {"huggingface"}, code_version="2", reads=("pairs", "validation_fraction", "seed"), pool=declare.MODEL
)
def thumb_examples(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    workers: dg.ResourceParam[Workers],
    explicit_feedback: pl.LazyFrame,
    turns: pl.LazyFrame,
    users: pl.LazyFrame,
    personas: pl.LazyFrame,
    eval_prompts: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a logged reply with its user's thumb: ready for training, or dropped with the reasons; its twin has a shuffled thumb."""
    profile, clean = settings.profile, settings.profile.pairs.decontamination
    rated = thumbs.offered(explicit_feedback, turns, users.collect(), personas.collect())
    items = merge.eval_items(eval_prompts.collect(), clean.benchmarks)
    embed = partial(workers.embed, context, MiniLM.name)
    hits = decontamination.hits(rated, items, clean.ngram_words, clean.min_similarity, embed)
    jaccard, fraction = profile.pairs.near_duplicate_jaccard, profile.validation_fraction
    found = thumbs.thumb_examples(rated, hits, users.collect(), jaccard, fraction, profile.seed)
    given = found.filter(source=thumbs.Thumbs.GIVEN.value)
    fates = given.select(pl.col("drop_reasons").list.first().fill_null("kept").alias("fate"))
    kept = given.filter("is_kept", split="train")
    return metadata.result(
        "thumb_examples",
        found,
        up_train=kept["chosen"].count(),
        down_train=kept["rejected"].count(),
        users=given["user_id"].n_unique(),
        **complaints(given),
        fates=metadata.bars(dict(fates["fate"].value_counts(sort=True).iter_rows())),
    )


table_checks = [declare.matches_table("thumb_examples")]
examples_are_sound = [
    declare.check("thumb_examples", thumbs.each_example_has_one_side),
    declare.check(
        "thumb_examples",
        pair_checks.pairs_are_decontaminated,
        eval_prompts="eval_prompts",
        settings=lambda run: run.profile.pairs.decontamination,
    ),
    declare.check("thumb_examples", pair_checks.no_held_out_user_in_training, users="users"),
    declare.check("thumb_examples", personas_precede_use, personas="personas", turns="turns"),
]
