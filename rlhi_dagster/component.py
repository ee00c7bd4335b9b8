"""A pipeline as a Dagster component: one more profile beside the environment's, in one UI, from a few lines of YAML.

What belongs here: attributes of ``defs.yaml``, and the file that ``dg scaffold defs`` writes. What does not: what a pipeline is made of
(``definitions.build``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import dagster as dg
from pydantic import BaseModel, Field

from rlhi_dagster import definitions, profiles

SCHEDULES = {"none": [], "daily": ["daily_logs"], "weekly": ["weekly_preference_data"]}
"""Schedules that are on from the beginning, by the attribute ``schedule``."""


class PipelineParams(BaseModel):
    """What ``dg scaffold defs rlhi_dagster.Pipeline`` can be told."""

    profile: str = Field(default="laptop", description="Name of a shipped profile, or path of your own")


class PipelineScaffolder(dg.Scaffolder[PipelineParams]):
    """Writes ``defs.yaml`` and, beside it, a profile that extends the one that was named."""

    @classmethod
    def get_scaffold_params(cls) -> type[PipelineParams]:
        """What it can be told."""
        return PipelineParams

    def scaffold(self, request: dg.ScaffoldRequest[PipelineParams]) -> None:
        """Write both files."""
        name = (request.params or PipelineParams()).profile
        given = name if not name.endswith((".yaml", ".yml")) else str(Path(name).absolute())
        request.target_path.mkdir(parents=True, exist_ok=True)
        (request.target_path / "profile.yaml").write_text(f"# Yours: settings here replace those of {name}.\nextends: {given}\n")
        dg.scaffold_component(request, {"profile": "profile.yaml", "prefix": request.target_path.name, "schedule": "none"})


@dg.scaffold_with(PipelineScaffolder)
class Pipeline(dg.Component, dg.Model, dg.Resolvable):
    """All assets, checks, jobs, schedules and sensors of one profile, under a prefix of their own.

    The folder with its tables and models is that of the profile; runs and events are in the Dagster instance that the UI was started with.
    """

    profile: Annotated[str, Field(description="Name of a shipped profile, or path of a YAML file, relative to this one")]
    prefix: Annotated[str, Field(description="First part of every asset key, and of the names of jobs, schedules and sensors")]
    schedule: Annotated[
        Literal["none", "daily", "weekly"],
        Field(description="What runs by itself from the beginning: labels and analytics daily, or preference data weekly"),
    ] = "none"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the profile."""
        beside = context.path / self.profile
        profile = profiles.load(str(beside) if beside.is_file() else self.profile)
        return definitions.build(profile, self.prefix, SCHEDULES[self.schedule])
