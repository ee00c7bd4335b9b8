"""Composition root: the code location that Dagster loads; the only importer of ``assets``.

`build` makes the definitions of a profile, so that several profiles can stand side by side: in one process, or as several code locations
of one workspace. ``defs`` is that of the profile that the environment chooses, with what users add in ``rlhi_dagster/defs/``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

import assets
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.conversations.sources import month_counts, source_files
from rlhi_dagster.graph import declare, jobs
from rlhi_dagster.graph.automation import LogFile, new_log_files, weekly_preference_data
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import Profile


def build(profile: Profile, key_prefix: Sequence[str] | str = ()) -> dg.Definitions:
    """The definitions of a profile.

    Args:
        profile: Every setting; see ``profiles.load``.
        key_prefix: First parts of every asset key. Needed where the instance (``DAGSTER_HOME``) of another profile is shared, for Dagster
            knows assets by their keys alone.
    """
    place = declare.Place(profile, (key_prefix,) if isinstance(key_prefix, str) else tuple(key_prefix))
    made = [declaration.build(place) for declaration in declarations()]
    preference_data, training = jobs.preference_data(place), jobs.training(place)
    return dg.Definitions(
        assets=[each for each in made if not isinstance(each, dg.AssetChecksDefinition)],
        asset_checks=[each for each in made if isinstance(each, dg.AssetChecksDefinition)],
        jobs=[preference_data, training],
        schedules=[weekly_preference_data(preference_data, lambda: profiles.source_months(profile))],
        sensors=[
            new_log_files(preference_data, lambda: _log_files(profile), lambda file: _months_of(profile, file), place.months),
        ],
        resources={name: _fixed(given) for name, given in resources(profile).items()},
        # Steps are thin and models run in workers of their own: a process per step would cost more than the steps.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the code location: the assets of the environment's profile, and what users have put into ``rlhi_dagster/defs``."""
    made = build(profiles.current())
    is_checkout = (profiles.ROOT / "pyproject.toml").is_file()  # an installed package has no folder to write to
    return dg.Definitions.merge(made, dg.load_from_defs_folder(path_within_project=profiles.ROOT)) if is_checkout else made


def declarations() -> Iterator[declare.Declaration]:
    """What the modules of ``assets`` declare, by module and in their order; one by one or in lists."""
    for found in sorted(pkgutil.iter_modules(assets.__path__), key=lambda module: module.name):
        for value in vars(importlib.import_module(f"assets.{found.name}")).values():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, declare.Declaration):
                    yield each


def resources(profile: Profile) -> dict[str, Any]:
    """What assets are given: the profile, and what works in the folder of its outputs."""
    lake = str(profile.root / "lake")
    return {
        "io_manager": TableIOManager(root=lake),
        "lake": Lake(root=lake),
        "settings": Settings(profile),
        "workers": Workers(profile.root, profile.limits),
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


def _months_of(profile: Profile, file: str) -> list[str]:
    source = profiles.source_settings(profile)
    return list(month_counts(source.model_copy(update={"location": file})))
