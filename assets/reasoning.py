"""Reasoning: erroneous PRM800K solutions, a simulated user's remark, and the corrected solution."""

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata, profiles
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.preferences import reasoning
from rlhi_dagster.resources import Settings, Workers, call_metadata
from rlhi_dagster.tables import TABLES

GROUP = "reasoning"

prm800k = dg.AssetSpec(
    "prm800k",
    description=(
        "One row is a solution whose steps people rated: [PRM800K](https://github.com/openai/prm800k) (MIT) in its original layout, "
        "or in the sample an arithmetic analogue. Not materialized here; the profile's `prm800k` says where it lies."
    ),
    group_name=GROUP,
    kinds={"json"},
    owners=declare.OWNERS,
    metadata={"location": profiles.current().prm800k},
)


@declare.table("reasoning_errors", GROUP, set(), deps=[prm800k])
def reasoning_errors(settings: Settings) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is an erroneous solution up to its first wrong step, and what a simulated user says about it."""
    records = reasoning.read_records(str(profiles.project_path(settings.profile.prm800k)))
    errors, fates = reasoning.reasoning_errors(records, settings.profile.reasoning_errors)
    return metadata.result("reasoning_errors", errors, records=sum(fates.values()), fates=metadata.bars(fates))


@declare.table("reasoning_pairs", GROUP, {"huggingface"}, deps=["policy"], pool="model")
def reasoning_pairs(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, reasoning_errors: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a corrected solution against the erroneous one, kept only if it ends in the known answer."""
    errors = reasoning_errors.collect()
    policy = ModelRef.from_manifest(lake.artefact_path("policy"))
    (answers,), stats = workers.chat(context, [(policy, reasoning.correction_requests(errors))], settings.sampling())
    pairs = reasoning.reasoning_pairs(errors, answers, policy.identity)
    correct = pairs["is_chosen_correct"].mean()
    return metadata.result(
        "reasoning_pairs",
        pairs,
        kept_pairs=int(pairs["is_kept"].sum()),
        correct_fraction=metadata.number(correct),
        fates=metadata.bars(dict(pairs["drop_reason"].fill_null("kept").value_counts(sort=True).iter_rows())),
        **call_metadata(stats),
    )


table_checks = [checks.table_check(name, TABLES[name]) for name in ("reasoning_errors", "reasoning_pairs")]
