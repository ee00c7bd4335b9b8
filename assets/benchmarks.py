"""Public benchmarks: those that a model judges, and those with known answers. A profile names which, and where their files lie."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import BENCHMARK_GRADES, BENCHMARK_RATINGS, BENCHMARK_SCORES
from rlhi_dagster.evaluation import Benchmark, accuracy
from rlhi_dagster.evaluation.benchmarks import KNOWN_ANSWERS, PUBLIC, asking
from rlhi_dagster.evaluation.benchmarks.rating import rate
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import Profile
from rlhi_dagster.reasoning import known_answers
from rlhi_dagster.training import artefacts
from rlhi_dagster.training.recipes import BASE

GROUP = "benchmarks"


@declare.asset("benchmark_items", GROUP, set(), reads=("evaluation",))
def benchmark_items(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is an item of a public benchmark; none where the profile names no benchmark."""
    items = asking.load(_locations(settings.profile))
    counts = dict(items.group_by("benchmark").len().sort("benchmark").iter_rows())
    return metadata.result("benchmark_items", items, items_by_benchmark=metadata.bars(counts))


@declare.asset(
    "benchmark_responses",
    GROUP,
    {"huggingface"},
    reads=("evaluation", "models.policy"),
    deps=["checkpoints"],
    pool=declare.OF_ROLES,
)
def benchmark_responses(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    benchmark_items: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a checkpoint's reply to an item, without a persona; no row for a recipe without data."""
    chosen, calls = settings.profile.evaluation, Calls(context, workers, settings, lake)
    models = artefacts.models({name: lake.artefact_path("checkpoints", name) for name in context.partition_keys})
    player = settings.profile.players("policy")[0]
    if chosen.max_new_tokens:
        player = replace(player, sampling=replace(player.sampling, max_new_tokens=chosen.max_new_tokens))
    found = asking.responses(benchmark_items.collect(), models, chosen.samples, lambda batches: calls.ask(batches, player))
    return metadata.result("benchmark_responses", found, error_rows=found["error"].count(), **calls.metadata())


@declare.asset(
    "benchmark_ratings",
    GROUP,
    set(),
    reads=("evaluation", "models.judge", *(f"prompts.{benchmark.scale.prompt}" for benchmark in PUBLIC.values())),
    with_base=["benchmark_responses"],
    pool=declare.OF_ROLES,
)
def benchmark_ratings(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    benchmark_items: pl.LazyFrame,
    benchmark_responses: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a judge's rating of a reply: alone, or against the published baseline's, else the base's, in one order."""
    items, replies, calls = benchmark_items.collect(), benchmark_responses.collect(), Calls(context, workers, settings, lake)
    judged = {name: PUBLIC[name].load(at).opponents for name, at in _locations(settings.profile).items() if name in PUBLIC}
    judges = calls.all_asked("judge", temperature=0.0) if judged else []
    if judged and not judges:
        told = f"{', '.join(judged)}: a model has to judge; name one as models.judge, programs cannot read these replies"
        raise dg.Failure(told, allow_retries=False)
    found = [BENCHMARK_RATINGS.empty()]
    for recipe in context.partition_keys:
        mine, base = replies.filter(recipe=recipe), replies.filter(recipe=BASE)
        for benchmark, published in judged.items() if len(mine) else ():
            shown, own, others = asking.rated(items, benchmark, published, mine, base)
            found += [rate(shown, own, others, PUBLIC[benchmark].scale, judge.model.identity, judge) for judge in judges]
    ratings = pl.concat(found)
    return metadata.result("benchmark_ratings", ratings, error_rows=ratings["error"].count(), **calls.metadata())


@declare.asset("benchmark_grades", GROUP, set())
def benchmark_grades(
    context: dg.AssetExecutionContext, workers: dg.ResourceParam[Workers], benchmark_items: pl.LazyFrame, benchmark_responses: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is whether a reply gives the known answer: formulas by math-verify, letters by rule."""
    items = benchmark_items.filter(pl.col("benchmark").is_in([name.value for name in KNOWN_ANSWERS])).collect()
    replies = benchmark_responses.collect().join(items, on="prompt_id", how="semi")
    verified = workers.verify(context, known_answers.to_verify(items, replies))
    of_recipes = [
        known_answers.graded(items, mine, verified).with_columns(recipe=pl.lit(recipe))
        for (recipe,), mine in replies.sort("recipe").group_by("recipe", maintain_order=True)
    ]
    found = BENCHMARK_GRADES.conform(pl.concat([BENCHMARK_GRADES.empty(), *(BENCHMARK_GRADES.conform(each) for each in of_recipes)]))
    grades = dict(found.group_by("grade").len().sort("grade").iter_rows())
    return metadata.result("benchmark_grades", found, grades=metadata.bars(grades))


@declare.asset("benchmark_scores", GROUP, set(), reads=("evaluation",), with_base=["benchmark_responses"])
def benchmark_scores(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    benchmark_items: pl.LazyFrame,
    benchmark_responses: pl.LazyFrame,
    benchmark_ratings: pl.LazyFrame,
    benchmark_grades: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a metric of a recipe on a public benchmark, with n, a 95 % interval over items, and the judge."""
    items, replies, ratings, grades = (
        frame.collect() for frame in (benchmark_items, benchmark_responses, benchmark_ratings, benchmark_grades)
    )
    locations = {name: location for name, location in _locations(settings.profile).items() if name in PUBLIC}
    published = {name: PUBLIC[name].load(location).opponents for name, location in locations.items()}
    found = [BENCHMARK_SCORES.empty()]
    for recipe in context.partition_keys:
        mine, base = replies.filter(recipe=recipe), replies.filter(recipe=BASE)
        if len(known := grades.filter(recipe=recipe)):
            found.append(accuracy.accuracies(known.drop("recipe"), recipe))
        for benchmark, location in locations.items():
            if len(rated := ratings.filter(recipe=recipe, benchmark=benchmark.value)):
                _, own, others = asking.rated(items, benchmark, published[benchmark], mine, base)
                found.append(PUBLIC[benchmark].scores(location, rated, pl.concat([own, others.filter(pl.col("recipe") != recipe)])))
    scores = BENCHMARK_SCORES.conform(pl.concat(found))
    shown = scores.select("recipe", "benchmark", "metric", "value", "ci_low", "ci_high", "n", "judge")
    return metadata.result("benchmark_scores", scores, table=metadata.markdown_table(shown, 60))


def _locations(profile: Profile) -> Mapping[Benchmark, Path]:
    return {name: Path(profiles.project_path(location)) for name, location in sorted(profile.evaluation.benchmarks.items())}


table_checks = [
    declare.matches_table(name)
    for name in ("benchmark_items", "benchmark_responses", "benchmark_ratings", "benchmark_grades", "benchmark_scores")
]
