"""Partition ranges as ``dg launch --partition-range`` takes them: ``rlhi months`` and ``rlhi recipes``.

What belongs here: which partitions a whole job is launched over. What does not: the partitions themselves (``graph/partitions.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import dagster as dg

from rlhi_dagster import profiles
from rlhi_dagster.cli import dagster_home
from rlhi_dagster.graph import partitions
from rlhi_dagster.training import recipes as recipe_files


def months(home: str, say: Callable[[str], None]) -> list[str]:
    """The months that the source has rows of, in order; they become partitions.

    Args:
        home: ``DAGSTER_HOME`` of the instance whose partitions they become.
        say: Where it is told that rows are left out.
    """
    profile = profiles.current()
    found, before = profiles.source_months(profile)
    with dg.DagsterInstance.from_config(home) as instance:
        partitions.add_months(instance, partitions.months(), found)
    if before:
        say(f"no run reads the {before:,} rows of the source from before {profile.first_month}, the profile's first_month")
    return list(found)


def recipes() -> list[str]:
    """The profile's recipes, in alphabetical order."""
    profile = profiles.current()
    return list(recipe_files.names(profile.recipes, profile.project_recipes))


def home_in_use() -> str:
    """``DAGSTER_HOME`` of the environment, as ``dg`` has it; else that of the outputs in use."""
    return os.environ.get("DAGSTER_HOME") or str(dagster_home.home())


def written(keys: list[str]) -> str:
    """From the first to the last."""
    return f"{keys[0]}...{keys[-1]}"
