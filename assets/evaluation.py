"""How good the checkpoints are, on users that training never saw."""

import hashlib

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata
from rlhi_dagster.engines.calls import CallStats
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.evaluation import scores as scoring
from rlhi_dagster.evaluation.arithmetic import arithmetic_prompts
from rlhi_dagster.evaluation.judging import judge_of, judge_recipes
from rlhi_dagster.evaluation.replies import requests, responses_of
from rlhi_dagster.evaluation.user_eval import user_eval_prompts
from rlhi_dagster.lake import Lake
from rlhi_dagster.partitions import against_base
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.report.write import write_report
from rlhi_dagster.resources import Settings, Workers, call_metadata
from rlhi_dagster.tables import TABLES
from rlhi_dagster.training import recipes
from rlhi_dagster.training.recipes import BASE

GROUP = "evaluation"
WITH_BASE = dg.AssetIn(partition_mapping=against_base(recipes.names()))


@declare.table("eval_prompts", GROUP, set(), reads=("evaluation", "seed"))
def eval_prompts(
    settings: Settings, turns: pl.LazyFrame, users: pl.LazyFrame, personas: pl.LazyFrame
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


@declare.table(
    "responses", GROUP, {"huggingface"}, reads=("recipes", "sampling", "seed", "engines.policy"), deps=["checkpoints"], pool="model"
)
def responses(
    context: dg.AssetExecutionContext, settings: Settings, lake: dg.ResourceParam[Lake], workers: Workers, eval_prompts: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a checkpoint's reply to an evaluation item."""
    items = eval_prompts.collect()
    models = {name: ModelRef.from_manifest(lake.artefact_path("checkpoints", name)) for name in context.partition_keys}
    batches = [(model, requests(items, recipes.load(name).persona)) for name, model in models.items()]
    answers, stats = workers.chat(context, batches, settings.sampling())
    found = pl.concat([responses_of(items, name, model, mine) for (name, model), mine in zip(models.items(), answers, strict=True)])
    return metadata.result("responses", found, error_rows=found["error"].count(), **call_metadata(stats))


@declare.table(
    "judgements",
    GROUP,
    set(),
    code_version="2",
    reads=("evaluation", "truth", "salt", "sampling", "seed", "engines.judge"),
    ins={"responses": WITH_BASE},
    pool="model",
)
def judgements(
    context: dg.AssetExecutionContext, settings: Settings, workers: Workers, eval_prompts: pl.LazyFrame, responses: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is one judge's verdict on a reply against the base's, in one order."""
    items, spent = eval_prompts.collect(), list[CallStats]()
    judge = judge_of(context, settings, workers, items, spent)
    found = judge_recipes(items, responses.collect(), context.partition_keys, judge)
    verdicts = found.group_by("recipe", "verdict").len().sort("recipe", "verdict")
    return metadata.result(
        "judgements",
        found,
        illegible_verdicts=found["verdict"].null_count(),
        verdicts=metadata.markdown_table(verdicts),
        **(call_metadata(sum(spent, CallStats())) if spent else {}),
    )


@declare.table("scores", GROUP, set(), ins={"judgements": WITH_BASE})
def scores(context: dg.AssetExecutionContext, judgements: pl.LazyFrame, responses: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a metric of a recipe on a benchmark, with n, a 95 % interval clustered by user, and the judge."""
    judged = judgements.collect()
    mine = judged.filter(pl.col("recipe").is_in(context.partition_keys))
    found = scoring.scores(mine, responses.collect(), judged.filter(pl.col("recipe") == BASE))
    return metadata.result(
        "scores", found, table=metadata.markdown_table(found.select("recipe", "benchmark", "metric", "value", "ci_low", "ci_high", "n"), 60)
    )


@declare.artefact(
    "report",
    GROUP,
    {"html", "matplotlib"},
    reads=("truth", "seed", "recipes", "recipes_shown", "max_pairs", *declare.DEVIATING),
    deps=["scores", "judgements", "responses", "checkpoints"],
)
def report(settings: Settings, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """One artefact: a self-contained HTML page with every score, plot and deviation, readable without a network."""
    file, comparisons = write_report(settings.profile, lake)
    shown = comparisons.select("left", "right", "metric", "difference", "ci_low", "ci_high", "n")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(file.read_bytes()).hexdigest()),
        metadata={"path": dg.MetadataValue.path(file), "comparisons": metadata.markdown_table(shown, 40)},
    )


table_checks = [checks.table_check(name, TABLES[name]) for name in ("eval_prompts", "responses", "judgements", "scores")]
precedes = checks.personas_precede_use_check("eval_prompts")
balanced = checks.orders_are_balanced_check("judgements")
intact = checks.malformed_share_is_low_check("judgements")
