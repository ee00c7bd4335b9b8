"""Reasoning: erroneous PRM800K solutions, a simulated user's remark, and the corrected solution."""

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata, profiles
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.lake import Lake
from rlhi_dagster.preferences import prm800k as solutions_of
from rlhi_dagster.preferences import reasoning, simulated_user
from rlhi_dagster.resources import Settings, Workers, call_metadata
from rlhi_dagster.tables import TABLES
from rlhi_dagster.training import artefacts

GROUP = "reasoning"

prm800k = declare.source(
    "prm800k",
    GROUP,
    profiles.current().reasoning.prm800k,
    "One row is a solution whose steps people rated: [PRM800K](https://github.com/openai/prm800k) (MIT) in its original layout or as "
    "decoded steps, or in the sample an arithmetic analogue. Not made here; the profile's `reasoning.prm800k` says where it lies.",
    files=lambda: solutions_of.find(str(profiles.project_path(profiles.current().reasoning.prm800k))),
)


@declare.table(
    "reasoning_errors",
    GROUP,
    {"huggingface"},
    code_version="2",
    reads=("reasoning", "sampling", "seed", "engines.simulated_user"),
    deps=[prm800k],
    pool="model",
)
def reasoning_errors(context: dg.AssetExecutionContext, settings: Settings, workers: Workers) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is an erroneous solution up to its first wrong step, and what a simulated user says about it."""
    chosen = settings.profile.reasoning
    records = solutions_of.read_records(str(profiles.project_path(chosen.prm800k)))
    found, fates = solutions_of.erroneous_solutions(records, chosen.errors)
    called = {}
    if chosen.simulated_user:
        model = artefacts.hub_model(chosen.simulated_user.hub_model, chosen.simulated_user.hub_revision)
        asked = [(model, simulated_user.remark_requests(found))]
        (answers,), stats = workers.chat(context, asked, settings.sampling(), role="simulated_user")
        errors, called = simulated_user.spoken(found, answers, model.identity), call_metadata(stats)
    else:
        errors = simulated_user.templated(found)
    failed = errors["error"].drop_nulls().str.split(":").list.first().value_counts(sort=True)
    return metadata.result(
        "reasoning_errors",
        errors,
        records=sum(fates.values()),
        fates=metadata.bars(fates),
        error_rows=errors["error"].count(),
        errors_by_reason=metadata.bars(dict(failed.iter_rows())),
        known_answers=errors["answer"].count(),
        **called,
    )


@declare.table(
    "reasoning_pairs",
    GROUP,
    {"huggingface"},
    code_version="2",
    reads=("rewrites.form", "sampling", "seed", "engines.policy"),
    deps=["policy"],
    pool="model",
)
def reasoning_pairs(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, reasoning_errors: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a corrected solution against the erroneous one, kept only if it alone ends in the known answer."""
    errors, policy = reasoning_errors.collect(), ModelRef.from_manifest(lake.artefact_path("policy"))
    asked = [(policy, reasoning.correction_requests(errors, settings.profile.rewrites.form))]
    (answers,), stats = workers.chat(context, asked, settings.sampling())
    corrected = reasoning.corrections(errors, answers)
    grades = workers.verify(context, reasoning.to_verify(corrected))
    pairs = reasoning.reasoning_pairs(corrected, grades, policy.identity)
    fates = pairs.select(pl.col("drop_reasons").list.first().fill_null("kept")).to_series().value_counts(sort=True)
    return metadata.result(
        "reasoning_pairs",
        pairs,
        kept_pairs=int(pairs["is_kept"].sum()),
        correct_fraction=metadata.number(pairs["is_chosen_correct"].mean()),
        fates=metadata.bars(dict(fates.iter_rows())),
        **call_metadata(stats),
    )


table_checks = [checks.table_check(name, TABLES[name]) for name in ("reasoning_errors", "reasoning_pairs")]
sides_differ = checks.chosen_differs_from_rejected_check("reasoning_pairs")
