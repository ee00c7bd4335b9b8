"""Profiles for tests, and definitions of a few declarations under one, to materialize them without the rest of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.model_settings import Models
from rlhi_dagster.graph import declare, partitions
from rlhi_dagster.profiles import Profile, files


def town_settings() -> dict[str, Any]:
    """The settings of the shipped profile `town`, as one file would spell them: the sample whose policy is trained here."""
    return files.read("town")[1] | {"extends": None}


def built(profile: Profile, *declared: declare.Declaration) -> list[Any]:
    """The definitions of declarations under a profile."""
    place = declare.Place(profile)
    return [each.build(place) for each in declared]


def upstream(profile: Profile, *names: str) -> list[dg.AssetSpec]:
    """Tables and unpartitioned artefacts that the definitions read, as assets that are made elsewhere."""
    place = declare.Place(profile)
    columns = {name: TABLES[name].partition_column if name in TABLES else None for name in names}
    return [dg.AssetSpec(name, partitions_def=place.partitions(column)) for name, column in columns.items()]


def knowing(*months: str) -> dg.DagsterInstance:
    """A Dagster instance in memory that knows months of a source."""
    instance = dg.DagsterInstance.ephemeral()
    partitions.add_months(instance, partitions.months(), months)
    return instance


def playing(profile: Profile, **roles: str | Mapping[str, Any] | list[Any]) -> Profile:
    """The profile with other players in some roles, spelled as in its file."""
    return profile.model_copy(update={"models": Models.model_validate(profile.models.model_dump() | roles)})
