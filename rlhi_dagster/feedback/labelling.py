"""The chat model that the profile names as labeller, behind the workers.

What belongs here: the one place that turns settings into that labeller. What does not: the labellers themselves.
"""

from __future__ import annotations

import dagster as dg
import polars as pl

from rlhi_dagster.engines.calls import CallStats
from rlhi_dagster.feedback import cascade
from rlhi_dagster.feedback.chat_labeller import ChatLabeller
from rlhi_dagster.resources import Settings, Workers, asking, call_metadata
from rlhi_dagster.training.artefacts import hub_model


def refined(
    context: dg.AssetExecutionContext, settings: Settings, workers: Workers, given: pl.DataFrame, follow_ups: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, float | None]]:
    """Let the profile's chat model label what the classifier is not sure of; see ``cascade.refined``.

    Returns:
        The labels, and what the model cost as metadata; the classifier's labels and nothing if the profile names no model.
    """
    labeller, spent = settings.profile.labeller, list[CallStats]()
    if labeller.hub_model is None:
        return given, {}
    model = hub_model(labeller.hub_model, labeller.hub_revision)
    chat = asking(context, workers, model, settings.sampling(temperature=0.0), "labeller", spent)
    labels = cascade.refined(given, follow_ups, ChatLabeller.with_default_prompts(model.identity, chat), labeller.sure)
    return labels, {**call_metadata(sum(spent, CallStats())), "model_agrees_with_classifier": cascade.agreement(given, labels)}
