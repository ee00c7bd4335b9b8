"""How good the checkpoints are, on users that training never saw."""

import hashlib

import dagster as dg
import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import JUDGE_CALIBRATION, RESPONSES
from rlhi_dagster.evaluation import Benchmark, headline, persona_conditions
from rlhi_dagster.evaluation import judge_quality as quality
from rlhi_dagster.evaluation import scores as scoring
from rlhi_dagster.evaluation.benchmarks import safety
from rlhi_dagster.evaluation.calibration import calibrated, drawn
from rlhi_dagster.evaluation.judge_quality import failed
from rlhi_dagster.evaluation.judgement_checks import malformed_share_is_low, orders_are_balanced
from rlhi_dagster.evaluation.judges import PROMPTS
from rlhi_dagster.evaluation.replies import requests, responses_of
from rlhi_dagster.evaluation.user_eval import (
    follow_up_prompts,
    only_the_chosen_users_are_evaluated,
    openings,
    personas_are_of_earlier_conversations,
    user_eval_prompts,
)
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.personas.cited import with_evidence
from rlhi_dagster.personas.evidence import personas_precede_use
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.profiles.files import absolute
from rlhi_dagster.reasoning.problems import arithmetic_prompts, doubted_sums
from rlhi_dagster.report.write import write_report
from rlhi_dagster.roles.judge import ceilings, judge_recipes, judges, model_judges
from rlhi_dagster.training import artefacts, human_preferences
from rlhi_dagster.training.recipes import BASE

GROUP = "evaluation"


@declare.asset("eval_prompts", "held_out", set(), code_version="2", reads=("evaluation", "seed"))
def eval_prompts(
    settings: dg.ResourceParam[Settings], turns: pl.LazyFrame, users: pl.LazyFrame, personas: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is an evaluation item: a request of an evaluated user with a persona of that moment, or a problem with a known answer."""
    chosen, seed, lines = settings.profile.evaluation, settings.profile.seed, personas.collect()
    opened = openings(turns, users.collect(), chosen.users)
    first = user_eval_prompts(opened, lines, chosen.requests_per_user, personas_at)
    of_users = pl.concat([first, follow_up_prompts(turns, opened, lines, chosen.follow_ups_per_user, personas_at, seed)])
    of_users = of_users.with_columns(with_evidence(of_users, lines, turns))
    again = persona_conditions.asked_again(of_users, opened, lines, chosen, personas_at, seed)
    doubted = doubted_sums(min(chosen.safety_items, chosen.arithmetic_problems), seed)
    sums = arithmetic_prompts(chosen.arithmetic_problems, seed)
    items = pl.concat([of_users, again, sums, safety.load(chosen.safety_items), doubted])
    with_persona = of_users.filter(pl.col("persona") != "")
    return metadata.result(
        "eval_prompts",
        items,
        evaluated=chosen.users,
        users=of_users["user_id"].n_unique(),
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
    pool=declare.OF_ROLES,
)
def responses(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    eval_prompts: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a checkpoint's reply to an evaluation item; no row for a recipe without data."""
    items, arms, calls = eval_prompts.collect(), settings.profile.arms, Calls(context, workers, settings, lake)
    models = artefacts.models({name: lake.artefact_path("checkpoints", name) for name in context.partition_keys})
    batches = [(model, requests(items, arms[name].persona)) for name, model in models.items()]
    answers = calls.ask(batches)
    replies = [responses_of(items, name, model, mine) for (name, model), mine in zip(models.items(), answers, strict=True)]
    found = pl.concat([RESPONSES.empty(), *replies])
    return metadata.result("responses", found, error_rows=found["error"].count(), **calls.metadata())


@declare.asset(
    "judgements",
    GROUP,
    set(),
    code_version="4",
    reads=(
        *("truth", "salt", "models.judge", "reward.persona_placement", "prompts.persona"),
        *(f"prompts.{prompt}" for prompt in PROMPTS.values()),
    ),
    with_base=["responses"],
    pool=declare.OF_ROLES,
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
    items, calls = eval_prompts.filter(pl.col("benchmark") != Benchmark.SAFETY).collect(), Calls(context, workers, settings, lake)
    replies = responses.filter(pl.col("benchmark") != Benchmark.SAFETY).collect()
    answered = [name for name in context.partition_keys if items.is_empty() or name in replies["recipe"]]
    found = judge_recipes(items, replies, answered, judges(calls, settings.profile, items))
    verdicts = found.group_by("recipe", "verdict").len().sort("recipe", "verdict")
    return metadata.result(
        "judgements",
        found,
        error_rows=found["error"].count(),
        verdicts=metadata.markdown_table(verdicts),
        **calls.metadata(),
    )


@declare.asset(
    "judge_calibration",
    GROUP,
    set(),
    reads=("evaluation", "seed", "models.judge", "reward.persona_placement", "prompts.judge", "prompts.persona"),
    deps=["reward_model"],
    pool=declare.OF_ROLES,
)
def judge_calibration(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a judge's verdict on a pair that a person ranked, in one order; none where the profile names no such pairs."""
    profile, calls = settings.profile, Calls(context, workers, settings, lake)
    judging, sets, seed = model_judges(calls, profile), profile.evaluation.calibration, profile.seed
    found = [JUDGE_CALIBRATION.empty()]
    for name, location in sorted(sets.items()) if judging else ():
        pairs = human_preferences.read(name, absolute(location)).pairs
        found.append(calibrated(name, drawn(pairs, profile.evaluation.calibration_pairs, seed), judging))
    verdicts = pl.concat(found)
    return metadata.result("judge_calibration", verdicts, error_rows=verdicts["error"].count(), failed=failed(verdicts), **calls.metadata())


@declare.asset("judge_quality", GROUP, {"matplotlib"}, deps=["judgements"])
def judge_quality(lake: dg.ResourceParam[Lake], judge_calibration: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a figure of a judge, or of two: biases, agreement, and accuracy on human preferences, with a 95 % interval.

    It is made of the verdicts that are there, of whichever recipes.
    """
    judged = lake.scan("judgements").collect()
    found = quality.judge_quality(judged, judge_calibration.collect())
    shown = found.select("judge", "other_judge", "criterion", "figure", "value", "ci_low", "ci_high", "n", "remark")
    drawn = {"drift": metadata.plot(figure)} if (figure := quality.drift(judged)) else {}
    return metadata.result("judge_quality", found, table=metadata.markdown_table(shown, 60), **drawn)


@declare.asset("scores", GROUP, set(), code_version="4", reads=("truth", "salt", "models.judge"), with_base=["judgements"])
def scores(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    judgements: pl.LazyFrame,
    responses: pl.LazyFrame,
    eval_prompts: pl.LazyFrame,
    judge_calibration: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a metric of a recipe on a benchmark, with n, a 95 % interval clustered by user, and the judge."""
    judged, items = judgements.collect(), eval_prompts.collect()
    mine = judged.filter(pl.col("recipe").is_in(context.partition_keys))
    replies, distrusted = responses.collect(), failed(judge_calibration.collect())
    judged_scores = scoring.scores(mine, replies, judged.filter(pl.col("recipe") == BASE), distrusted)
    found = pl.concat([judged_scores, safety.scores(items, replies), ceilings(settings.profile, items, mine)])
    leading = headline.ranked(found)
    for row in leading.iter_rows(named=True):
        context.add_asset_metadata({row["metric"]: row["value"]}, partition_key=row["recipe"])
    others = found.filter(pl.col("value").is_not_null()).select("recipe", "benchmark", "metric", "value", "ci_low", "ci_high", "n")
    shown = {"result": metadata.markdown_table(headline.in_words(leading)), "plot": metadata.plot(headline.drawing(leading))}
    return metadata.result("scores", found, **(shown if len(leading) else {}), table=metadata.markdown_table(others, 60))


@declare.asset(
    "report",
    GROUP,
    {"html", "matplotlib"},
    reads=("truth", "seed", "recipes", "recipes_shown", "max_pairs", "unmet_wishes", *declare.DEVIATING),
    deps=[
        *("unmet_wishes", "reattempt_rates", "contextual_diversity", "preference_pairs"),
        *("scores", "benchmark_scores", "judgements", "judge_quality", "responses", "checkpoints"),
    ],
)
def report(settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """One artefact: a self-contained HTML page with what users complain about, every score, plot and deviation, readable without a network.

    Both jobs make it, from the tables that are there.
    """
    file, comparisons = write_report(settings.profile, lake)
    shown = comparisons.select("left", "right", "metric", "difference", "ci_low", "ci_high", "n")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(file.read_bytes()).hexdigest()),
        metadata={"path": dg.MetadataValue.path(file), "comparisons": metadata.markdown_table(shown, 40)},
    )


table_checks = [
    declare.matches_table(name) for name in ("eval_prompts", "responses", "judgements", "judge_calibration", "judge_quality", "scores")
]
precedes = declare.check("eval_prompts", personas_precede_use, personas="personas", turns="turns")
earlier = declare.check("eval_prompts", personas_are_of_earlier_conversations, personas="personas", turns="turns")
of_chosen_users = [
    declare.check(name, only_the_chosen_users_are_evaluated, users="users", part=lambda run: run.profile.evaluation.users)
    for name in ("eval_prompts", "judgements")
]
balanced = declare.check("judgements", orders_are_balanced)
intact = declare.check("judgements", malformed_share_is_low, warns=True)
