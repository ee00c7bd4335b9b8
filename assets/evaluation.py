"""How good the checkpoints are, on users that training never saw."""

import hashlib

import dagster as dg
import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.evaluation import scores as scoring
from rlhi_dagster.evaluation.judgement_checks import malformed_share_is_low, orders_are_balanced
from rlhi_dagster.evaluation.replies import requests, responses_of
from rlhi_dagster.evaluation.user_eval import user_eval_prompts
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.personas.evidence import personas_precede_use
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.reasoning.problems import arithmetic_prompts
from rlhi_dagster.report.write import write_report
from rlhi_dagster.roles.judge import judge_recipes, judges
from rlhi_dagster.training.recipes import BASE

GROUP = "evaluation"


@declare.asset("eval_prompts", GROUP, set(), reads=("evaluation", "seed"))
def eval_prompts(
    settings: dg.ResourceParam[Settings], turns: pl.LazyFrame, users: pl.LazyFrame, personas: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is an evaluation item: a request of a held-out user with the persona of its moment, or a problem with a known answer."""
    chosen = settings.profile.evaluation
    of_users = user_eval_prompts(turns, users.collect(), personas.collect(), chosen.requests_per_user, personas_at)
    items = pl.concat([of_users, arithmetic_prompts(chosen.arithmetic_problems, settings.profile.seed)])
    with_persona = of_users.filter(pl.col("persona") != "")
    return metadata.result(
        "eval_prompts",
        items,
        held_out_users=of_users["user_id"].n_unique(),
        with_persona_fraction=len(with_persona) / max(len(of_users), 1),
        items_by_benchmark=metadata.bars(dict(items.group_by("benchmark").len().sort("benchmark").iter_rows())),
    )


@declare.asset(
    "responses",
    GROUP,
    {"huggingface"},
    code_version="2",
    reads=("recipes", "models.policy", "prompts.persona"),
    deps=["checkpoints"],
    pool="model",
)
def responses(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    eval_prompts: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a checkpoint's reply to an evaluation item."""
    items, arms, calls = eval_prompts.collect(), settings.profile.arms, Calls(context, workers, settings, lake)
    models = {name: ModelRef.from_manifest(lake.artefact_path("checkpoints", name)) for name in context.partition_keys}
    batches = [(model, requests(items, arms[name].persona)) for name, model in models.items()]
    answers = calls.ask(batches)
    found = pl.concat([responses_of(items, name, model, mine) for (name, model), mine in zip(models.items(), answers, strict=True)])
    return metadata.result("responses", found, error_rows=found["error"].count(), **calls.metadata())


@declare.asset(
    "judgements",
    GROUP,
    set(),
    code_version="3",
    reads=("truth", "salt", "models.judge", "prompts.judge"),
    with_base=["responses"],
    pool="model",
)
def judgements(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    eval_prompts: pl.LazyFrame,
    responses: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is one judge's verdict on a reply against the base's, in one order."""
    items, calls = eval_prompts.collect(), Calls(context, workers, settings, lake)
    found = judge_recipes(items, responses.collect(), context.partition_keys, judges(calls, settings.profile, items))
    verdicts = found.group_by("recipe", "verdict").len().sort("recipe", "verdict")
    return metadata.result(
        "judgements",
        found,
        error_rows=found["error"].count(),
        verdicts=metadata.markdown_table(verdicts),
        **calls.metadata(),
    )


@declare.asset("scores", GROUP, set(), with_base=["judgements"])
def scores(context: dg.AssetExecutionContext, judgements: pl.LazyFrame, responses: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a metric of a recipe on a benchmark, with n, a 95 % interval clustered by user, and the judge."""
    judged = judgements.collect()
    mine = judged.filter(pl.col("recipe").is_in(context.partition_keys))
    found = scoring.scores(mine, responses.collect(), judged.filter(pl.col("recipe") == BASE))
    return metadata.result(
        "scores", found, table=metadata.markdown_table(found.select("recipe", "benchmark", "metric", "value", "ci_low", "ci_high", "n"), 60)
    )


@declare.asset(
    "report",
    GROUP,
    {"html", "matplotlib"},
    reads=("truth", "seed", "recipes", "recipes_shown", "max_pairs", *declare.DEVIATING),
    deps=["scores", "judgements", "responses", "checkpoints"],
)
def report(settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """One artefact: a self-contained HTML page with every score, plot and deviation, readable without a network."""
    file, comparisons = write_report(settings.profile, lake)
    shown = comparisons.select("left", "right", "metric", "difference", "ci_low", "ci_high", "n")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(file.read_bytes()).hexdigest()),
        metadata={"path": dg.MetadataValue.path(file), "comparisons": metadata.markdown_table(shown, 40)},
    )


table_checks = [declare.matches_table(name) for name in ("eval_prompts", "responses", "judgements", "scores")]
precedes = declare.check("eval_prompts", personas_precede_use, personas="personas", turns="turns")
balanced = declare.check("judgements", orders_are_balanced)
intact = declare.check("judgements", malformed_share_is_low, warns=True)
