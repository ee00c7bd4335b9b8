"""What follow-ups say about the replies before them, and the paper's analytics over it."""

from functools import partial

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback.diversity import comparison, corpora, measures
from rlhi_dagster.feedback.labels import classifier_card, fitting
from rlhi_dagster.feedback.labels.agreement import read_gold
from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
from rlhi_dagster.feedback.labels.follow_ups import ClassifierLabeller, follow_ups
from rlhi_dagster.feedback.labels.offline import read_follow_ups
from rlhi_dagster.feedback.labels.thumbs import labels_go_with_thumbs
from rlhi_dagster.feedback.rates.paper_figures import readings, sentences
from rlhi_dagster.feedback.rates.shares import reattempt_rates as rates_of
from rlhi_dagster.feedback.wishes import counts as wish_counts
from rlhi_dagster.feedback.wishes.complaints import complaints
from rlhi_dagster.feedback.wishes.grouping import complaints_are_conserved, groups_have_enough_users
from rlhi_dagster.feedback.wishes.grouping import unmet_wishes as grouped
from rlhi_dagster.forgetting import marks, tombstones
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.roles.labeller import namer, refined

GROUP = "feedback"


@declare.asset(
    "feedback_classifier",
    GROUP,
    {"huggingface", "scikitlearn"},
    code_version="3",
    reads=("labeller.training", "truth", "salt", "seed"),
    deps=["users"],
    pool=declare.MODEL,
)
def feedback_classifier(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
) -> dg.MaterializeResult[None]:
    """One artefact: the trained labeller of follow-ups, with its card.

    The one that comes with the project was fitted on real WildChat follow-ups; `labeller.training` of the profile trains another.
    """
    given, unmatched, evaluated = profiles.labelled_follow_ups(settings.profile), 0, 0
    if given is None:
        classifier = FeedbackClassifier.load()
    else:
        gold = read_gold(profiles.project_path(given.labels))
        salt = profiles.salt(settings.profile)
        found = read_follow_ups(given.conversations, salt, tombstones.read(settings.profile.root, salt))
        context.log.info(found.account)
        every = fitting.labelled(found.frame, gold)
        known = fitting.of_training_users(every, lake.scan("users").collect())
        evaluated = len(every) - len(known)
        classifier = fitting.train(known, partial(workers.embed, context, MiniLM.name), settings.profile.seed)
        unmatched = len(gold) - len(every)
    classifier.save(lake.artefact_path("feedback_classifier"))
    marks.clear(lake.artefact_path("feedback_classifier"))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(classifier.digest),
        metadata={
            "labeller": classifier.name,
            "labels_without_follow_up": unmatched,
            "labels_of_evaluated_users": evaluated,
            "scores": metadata.markdown_table(classifier_card.table(classifier.card)),
            "reliability": metadata.plot(classifier_card.reliability_plot(classifier.card)),
            "card": dg.MetadataValue.json(classifier.card),
        },
    )


@declare.asset(
    "feedback_labels",
    GROUP,
    {"huggingface"},
    code_version="3",
    reads=("labeller.sure", "models.labeller", "prompts.feedback", "prompts.feedback_span"),
    deps=["feedback_classifier"],
    pool=declare.MODEL,
)
def feedback_labels(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    turns: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a follow-up message and what it says about the reply before it."""
    classifier = FeedbackClassifier.load(lake.artefact_path("feedback_classifier"))
    pairs = follow_ups(turns)
    given = ClassifierLabeller(classifier, partial(workers.embed, context, classifier.encoder)).label(pairs)
    calls = Calls(context, workers, settings, lake)
    labels, agreement = refined(calls, settings.profile, given, pairs)
    counts = dict(labels["label"].value_counts(sort=True).iter_rows())
    drawn = classifier_card.cascade_plot(classifier.card, given["probability"].to_numpy())
    return metadata.result(
        "feedback_labels",
        labels,
        reattempt_with_feedback_fraction=counts.get("reattempt_with_feedback", 0) / max(len(labels), 1),
        mean_probability=metadata.number(labels["probability"].mean()),
        unanswered=int(labels["is_unanswered"].sum()),
        label_counts=metadata.bars(counts),
        labels_by_labeller=metadata.bars(dict(labels["labeller"].value_counts(sort=True).iter_rows())),
        **({"cost_and_quality": metadata.plot(drawn)} if drawn else {}),
        **agreement,
        **calls.metadata(),
    )


@declare.asset(
    "unmet_wishes",
    GROUP,
    {"huggingface", "scikitlearn"},
    reads=("unmet_wishes", "models.labeller", "prompts.group_name"),
    pool=declare.MODEL,
)
def unmet_wishes(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    workers: dg.ResourceParam[Workers],
    turns: pl.LazyFrame,
    feedback_labels: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a complaint, with what is wished, what the request was about, and whether it was settled later."""
    calls, least = Calls(context, workers, settings, lake), settings.profile.unmet_wishes.min_users
    found = grouped(complaints(feedback_labels, turns), partial(workers.embed, context, MiniLM.name), least, namer(calls))
    wishes, topics = (wish_counts.by_group(found, column, least) for column in ("wish", "topic"))
    months = wish_counts.by_month(found, least)
    return metadata.result(
        "unmet_wishes",
        found,
        users=found["user_id"].n_unique(),
        resolved_fraction=metadata.number(found["is_resolved"].mean()),
        unknown_whether_resolved=found["is_resolved"].null_count(),
        wishes=metadata.markdown_table(wishes),
        topics=metadata.markdown_table(topics),
        **({"by_month": metadata.plot(wish_counts.months_plot(months))} if len(months) else {}),
        **calls.metadata(),
    )


@declare.asset("reattempt_rates", GROUP, set(), code_version="3")
def reattempt_rates(conversations: pl.LazyFrame, feedback_labels: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a share of re-attempts with feedback: of a level, a denominator and a template filter (the paper: 26.51 %)."""
    rates = rates_of(conversations, feedback_labels)
    overall = rates.filter(dimension="all", templates="included").select("denominator", "value")
    numbers = {f"reattempt_of_{name}": value for name, value in overall.drop_nulls().iter_rows()}
    beside = readings(rates)
    shown = rates.select("level", "denominator", "templates", "value", "n", "unanswered", "ci_low", "ci_high")
    return metadata.result(
        "reattempt_rates",
        rates,
        **numbers,
        nearest_to_the_paper=metadata.markdown_list(sentences(beside)),
        readings=metadata.markdown_table(beside.drop("users", "is_nearest")),
        **{f"by_{name}": metadata.markdown_table(shown.filter(rates["dimension"] == name), 60) for name in ("turn", "month")},
    )


@declare.asset(
    "contextual_diversity",
    GROUP,
    {"huggingface", "scikitlearn"},
    code_version="2",
    reads=("source.name", "diversity_corpora", "seed"),
    pool=declare.MODEL,
)
def contextual_diversity(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], workers: dg.ResourceParam[Workers], turns: pl.LazyFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a corpus and the mean pairwise cosine distance between its opening requests (the paper: WildChat 0.865)."""
    profile = settings.profile
    opening = turns.filter(pl.col("turn") == 1).select("user_id", "prompt", "template_id").collect()
    others = [corpora.read(corpus) for corpus in profiles.diversity_corpora(profile)]
    embedded = partial(comparison.embedded, embed=partial(workers.embed, context, MiniLM.name))
    without_templates = opening.filter(pl.col("template_id").is_null())
    rows, compared = measures.measure(
        [
            embedded(profile.source.name, corpora.distinct(opening)),
            embedded(f"{profile.source.name}, without templates", corpora.distinct(without_templates), is_part=True),
            *(embedded(corpus.name, corpus.prompts) for corpus in others),
        ],
        MiniLM.name,
        profile.seed,
    )
    found = pl.DataFrame(rows, schema=TABLES["contextual_diversity"].schema)
    shown = {"table": metadata.markdown_table(found), "distances": metadata.plot(comparison.drawing(rows))}
    if others:
        shown["ranking"] = metadata.markdown_list(each.statement for each in compared)
        shown["corpora"] = metadata.markdown_list(corpus.account for corpus in others)
        shown["rows_without_prompt"] = metadata.markdown_table(pl.concat(corpus.broken for corpus in others))
    return metadata.result("contextual_diversity", found, **shown)


agrees_with_thumbs = declare.check(
    "feedback_labels", labels_go_with_thumbs, explicit_feedback="explicit_feedback", turns="turns", warns=True
)
conserved = declare.check("unmet_wishes", complaints_are_conserved, feedback_labels="feedback_labels")
enough_users = declare.check("unmet_wishes", groups_have_enough_users, min_users=lambda run: run.profile.unmet_wishes.min_users)
table_checks = [declare.matches_table(name) for name in ("feedback_labels", "unmet_wishes", "reattempt_rates", "contextual_diversity")]
