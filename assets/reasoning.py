"""Reasoning: erroneous PRM800K solutions, a simulated user's remark, and the corrected solution."""

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.preferences.pair_checks import chosen_differs_from_rejected
from rlhi_dagster.reasoning import corrections, simulated_user
from rlhi_dagster.reasoning import prm800k as solutions_of

GROUP = "reasoning"

prm800k = declare.Source(
    "prm800k",
    GROUP,
    "One row is a solution whose steps people rated: [PRM800K](https://github.com/openai/prm800k) (MIT) in its original layout or as "
    "decoded steps, or in the sample an arithmetic analogue. Not made here; the profile's `reasoning.prm800k` says where it lies.",
    location=lambda profile: profile.reasoning.prm800k,
    files=lambda profile: solutions_of.find(str(profiles.project_path(profile.reasoning.prm800k))),
)


@declare.asset(
    "reasoning_errors",
    GROUP,
    {"huggingface"},
    code_version="3",
    reads=("reasoning", "models.simulated_user", "prompts.simulated_user"),
    deps=[prm800k],
    pool=declare.OF_ROLES,
)
def reasoning_errors(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is an erroneous solution up to its first wrong step, and what a simulated user says about it."""
    chosen = settings.profile.reasoning
    records = solutions_of.read_records(str(profiles.project_path(chosen.prm800k)))
    found, fates = solutions_of.erroneous_solutions(records, chosen.errors)
    calls = Calls(context, workers, settings, lake)
    if calls.program("simulated_user"):
        errors = simulated_user.templated(found)
    else:
        user = calls.asked("simulated_user")
        errors = simulated_user.spoken(found, user(simulated_user.remark_requests(found)), user.model.identity)
    failed = errors["error"].drop_nulls().str.split(":").list.first().value_counts(sort=True)
    return metadata.result(
        "reasoning_errors",
        errors,
        records=sum(fates.values()),
        fates=metadata.bars(fates),
        error_rows=errors["error"].count(),
        errors_by_reason=metadata.bars(dict(failed.iter_rows())),
        known_answers=errors["answer"].count(),
        **calls.metadata(),
    )


@declare.asset(
    "reasoning_pairs",
    GROUP,
    {"huggingface"},
    code_version="3",
    reads=("rewrites.form", "models.policy", "prompts.reasoning_correction"),
    deps=["policy"],
    pool=declare.OF_ROLES,
)
def reasoning_pairs(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    reasoning_errors: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a corrected solution against the erroneous one, kept only if it alone ends in the known answer."""
    errors, calls = reasoning_errors.collect(), Calls(context, workers, settings, lake)
    policy = calls.asked("policy")
    corrected = corrections.corrections(errors, policy(corrections.correction_requests(errors, settings.profile.rewrites.form)))
    grades = workers.verify(context, corrections.to_verify(corrected))
    pairs = corrections.reasoning_pairs(corrected, grades, policy.model.identity)
    fates = pairs.select(pl.col("drop_reasons").list.first().fill_null("kept")).to_series().value_counts(sort=True)
    return metadata.result(
        "reasoning_pairs",
        pairs,
        kept_pairs=int(pairs["is_kept"].sum()),
        correct_fraction=metadata.number(pairs["is_chosen_correct"].mean()),
        fates=metadata.bars(dict(fates.iter_rows())),
        **calls.metadata(),
    )


table_checks = [declare.matches_table(name) for name in ("reasoning_errors", "reasoning_pairs")]
sides_differ = declare.check("reasoning_pairs", chosen_differs_from_rejected)
