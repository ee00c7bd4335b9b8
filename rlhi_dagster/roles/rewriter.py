"""The rewriter that the profile names."""

from __future__ import annotations

from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.preferences.rewriter import Rewriter
from rlhi_dagster.profiles import Profile


def rewriter(calls: Calls, profile: Profile) -> Rewriter:
    """The model that rewrites: the policy's, unless the profile names another."""
    model = calls.asked("rewriter")
    return Rewriter(model.model.identity, model, profile.rewrites.form)
