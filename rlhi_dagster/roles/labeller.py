"""The labeller that the profile names: the classifier alone, or a chat model for what it is not sure of, which also names groups."""

from __future__ import annotations

import polars as pl

from rlhi_dagster.feedback.labels import cascade
from rlhi_dagster.feedback.labels.chat_labeller import ChatLabeller
from rlhi_dagster.feedback.wishes.names import ChatNamer
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.profiles import Profile


def refined(calls: Calls, profile: Profile, given: pl.DataFrame, follow_ups: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, float | None]]:
    """Let the profile's chat model label what the classifier is not sure of; see ``cascade.refined``.

    Returns:
        The labels, and how often the model agrees with the classifier; the classifier's labels and nothing where no model labels.
    """
    if calls.program("labeller"):
        return given, {}
    model = calls.asked("labeller", temperature=0.0)
    labels = cascade.refined(given, follow_ups, ChatLabeller.with_default_prompts(model.model.identity, model), profile.labeller.sure)
    return labels, {"model_agrees_with_classifier": cascade.agreement(given, labels)}


def namer(calls: Calls) -> ChatNamer | None:
    """Who names groups of complaints; ``None`` where no model labels, and key phrases name them."""
    return None if calls.program("labeller") else ChatNamer.with_default_prompt(calls.asked("labeller", temperature=0.0))
