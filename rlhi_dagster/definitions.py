"""Composition root: the code location that Dagster loads; the only importer of ``assets``.

`build` makes the definitions of a profile, so that several profiles can stand side by side: in one process, or as several code locations
of one workspace. ``defs`` is that of the profile that the environment chooses, with what users add in ``rlhi_dagster/defs/``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

import assets
from rlhi_dagster import profiles
from rlhi_dagster.base import private
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.conversations.sources import month_counts, source_files
from rlhi_dagster.graph import automation, declare, jobs
from rlhi_dagster.graph.automation import LogFile
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.forecast_job import forecast
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.planning import Plan, Planner
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.graph.runs import abandoned_runs, steps_in_one_process
from rlhi_dagster.profiles import Profile

LOCATION = "rlhi"
"""Name of the code location, as ``workspace.yaml`` and ``pyproject.toml`` have it."""


def build(profile: Profile, key_prefix: Sequence[str] | str = (), started: Collection[str] = ()) -> dg.Definitions:
    """The definitions of a profile.

    Args:
        profile: Every setting; see ``profiles.load``.
        key_prefix: First parts of every asset key. Needed where the instance (``DAGSTER_HOME``) of another profile is shared, for Dagster
            knows assets by their keys alone. Jobs, schedules, sensors, groups and resources have names that begin with it.
        started: Names (without the prefix) of schedules that are on from the beginning.
    """
    place = declare.Place(profile, (key_prefix,) if isinstance(key_prefix, str) else tuple(key_prefix), frozenset(started))
    declared = [*declarations()]
    made = [declaration.build(place) for declaration in declared]
    preference_data, training, logs = jobs.preference_data(place), jobs.training(place), jobs.logs(place)
    observe_sources = jobs.observe_sources(place, [each.name for each in declared if isinstance(each, declare.Source)])

    def find_months() -> list[str]:
        return profiles.source_months(profile)[0]

    def list_files() -> list[LogFile]:
        return _log_files(profile)

    return dg.Definitions(
        assets=[each for each in made if not isinstance(each, dg.AssetChecksDefinition)],
        asset_checks=[each for each in made if isinstance(each, dg.AssetChecksDefinition)],
        jobs=[preference_data, training, logs, jobs.benchmarks(place), observe_sources, forecast(place, partial(plan, profile))],
        schedules=[
            automation.weekly_preference_data(place, preference_data, find_months),
            automation.daily_logs(place, logs, find_months),
            automation.daily_observation(place, observe_sources),
        ],
        sensors=[
            automation.source_months(place, list_files, find_months),
            automation.new_log_files(place, preference_data, list_files, lambda file: _months_of(profile, file)),
            automation.enough_new_pairs(place, training, lambda: _kept_pairs(profile), place.recipes.get_partition_keys()),
            automation.cheap_assets(place, [place.key(each.name) for each in declared if isinstance(each, declare.Step) and each.is_cheap]),
        ],
        resources={place.named(name): _fixed(given) for name, given in resources(profile).items()},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the code location: the assets of the environment's profile, and what users have put into ``rlhi_dagster/defs``."""
    private.only_owner()
    # Steps are thin and models run in workers of their own: a process per step would cost more than the steps.
    common = dg.Definitions(sensors=[abandoned_runs], executor=steps_in_one_process(LOCATION))
    made = dg.Definitions.merge(build(profiles.current()), common)
    is_checkout = (profiles.ROOT / "pyproject.toml").is_file()  # an installed package has no folder to write to
    return dg.Definitions.merge(made, dg.load_from_defs_folder(path_within_project=profiles.ROOT)) if is_checkout else made


def plan(profile: Profile, names: Sequence[str], first: str | None, last: str | None) -> list[Plan]:
    """What assets would ask models for under a profile; see ``planning.Planner``."""
    return Planner(profile, build(profile), resources(profile))(names, first, last)


def declarations() -> Iterator[declare.Declaration]:
    """What the modules of ``assets`` declare, by module and in their order; one by one or in lists."""
    for found in sorted(pkgutil.iter_modules(assets.__path__), key=lambda module: module.name):
        for value in vars(importlib.import_module(f"assets.{found.name}")).values():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, declare.Declaration):
                    yield each


def source_versions(profile: Profile) -> dict[dg.AssetKey, str]:
    """Data versions of the sources as their files are now."""
    place = declare.Place(profile)
    return {place.key(each.name): each.seen(place)[0] for each in declarations() if isinstance(each, declare.Source)}


def resources(profile: Profile) -> dict[str, Any]:
    """What assets are given: the profile, and what works in the folder of its outputs."""
    lake = str(profile.root / "lake")
    return {
        "io_manager": TableIOManager(root=lake),
        "lake": Lake(root=lake),
        "settings": Settings(profile),
        "workers": Workers(profile.root, profile.limits, profile.workers),
    }


def _fixed(given: Any) -> dg.ResourceDefinition:
    """A resource that no run can configure: two roots, or settings other than the profile's, would split the outputs."""
    if isinstance(given, dg.ConfigurableIOManager):
        return dg.IOManagerDefinition.hardcoded_io_manager(given)
    return dg.ResourceDefinition.hardcoded_resource(given)


def _log_files(profile: Profile) -> list[LogFile]:
    """The local files of the profile's source as they are now; files of a hub do not change under a revision."""
    source = profiles.source_settings(profile)
    if "://" in source.location:
        return []
    stats = [(file, Path(file).stat()) for file in source_files(source)]
    return [LogFile(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def _kept_pairs(profile: Profile) -> int | None:
    """Pairs that recipes may train on; ``None`` before there are any."""
    lake = Lake(root=str(profile.root / "lake"))
    if not lake.table_path("preference_pairs").is_file():
        return None
    return int(lake.scan("preference_pairs").filter("is_kept").select(pl.len()).collect().item())


def _months_of(profile: Profile, file: str) -> list[str]:
    source = profiles.source_settings(profile)
    return list(month_counts(source.model_copy(update={"location": file})))
