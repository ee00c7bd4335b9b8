"""The two jobs that make the whole, conversations to preference pairs by month, then training to scores by recipe; and smaller ones.

What belongs here: selections of assets. What does not: when they run (``graph/automation.py``), and the job `forecast`, which makes none
(``graph/forecast_job.py``). Every asset of a job carries ``BackfillPolicy.single_run()``, so that
``dg launch --job preference_data --partition-range 2023-04...2023-09`` runs partitioned and unpartitioned assets together in one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from rlhi_dagster.graph.declare import Place
from rlhi_dagster.graph.hooks import tell_how_to_go_on

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition  # not exported

    Job: TypeAlias = UnresolvedAssetJobDefinition


def preference_data(place: Place) -> Job:
    """The job that makes preference pairs."""
    groups = dg.AssetSelection.groups(
        *map(place.named, ("conversations", "feedback", "personas", "held_out", "policy", "reasoning")),
        *map(place.named, ("reconstruction", "generation", "reward", "preferences")),
    )
    others = ("token_budget", "report")
    return dg.define_asset_job(
        place.named("preference_data"),
        selection=groups | dg.AssetSelection.assets(*map(place.key, others)),
        hooks={tell_how_to_go_on},
        description="From raw conversations to preference pairs and the report, for a range of months.",
    )


def training(place: Place) -> Job:
    """The job that makes checkpoints and tries them."""
    online = ("online_candidates", "online_pairs", "online_policies")
    others = ("checkpoints", "eval_prompts", "responses", "judgements", "judge_calibration", "judge_quality", "scores", "report")
    return dg.define_asset_job(
        place.named("training"),
        selection=dg.AssetSelection.assets(*map(place.key, (*online, *others))),
        hooks={tell_how_to_go_on},
        description="From preference pairs to trained checkpoints, scores and the report, for a range of recipes.",
    )


def benchmarks(place: Place) -> Job:
    """The job that tries checkpoints on public benchmarks."""
    return dg.define_asset_job(
        place.named("benchmarks"),
        selection=dg.AssetSelection.groups(place.named("benchmarks")) | dg.AssetSelection.assets(place.key("report")),
        hooks={tell_how_to_go_on},
        description="From checkpoints to scores on the public benchmarks that the profile names, for a range of recipes.",
    )


def logs(place: Place) -> Job:
    """The job that looks at conversations without asking a model to write anything."""
    return dg.define_asset_job(
        place.named("logs"),
        selection=dg.AssetSelection.groups(place.named("conversations"), place.named("feedback")),
        hooks={tell_how_to_go_on},
        description="From raw conversations to labels and analytics, for a range of months; the first part of preference_data.",
    )


def observe_sources(place: Place, names: Sequence[str]) -> Job:
    """The job that looks at the sources' files."""
    return dg.define_asset_job(
        place.named("observe_sources"),
        selection=dg.AssetSelection.assets(*map(place.key, names)),
        description="Observes the files that everything is made of; what was made of other files is then marked as such.",
    )
