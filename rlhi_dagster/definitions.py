"""Composition root: the code location that Dagster loads; the only importer of ``assets``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

import assets
from rlhi_dagster import declare, jobs, profiles
from rlhi_dagster.automation import LogFile, new_log_files, weekly_preference_data
from rlhi_dagster.conversations.sources import month_counts, source_files
from rlhi_dagster.io_managers import TableIOManager
from rlhi_dagster.lake import Lake
from rlhi_dagster.resources import Settings, Workers


def _log_files() -> list[LogFile]:
    """The local files of the profile's source as they are now; files of a hub do not change under a revision."""
    source = profiles.source_settings(profiles.current())
    if "://" in source.location:
        return []
    stats = [(file, Path(file).stat()) for file in source_files(source)]
    return [LogFile(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def _source_months() -> tuple[str, str]:
    return profiles.source_months(profiles.current())


def _months_of(file: str) -> list[str]:
    source = profiles.source_settings(profiles.current())
    return list(month_counts(source.model_copy(update={"location": file})))


def resources() -> dict[str, Any]:
    """What assets are given, as the profile and the folder of all outputs have it."""
    profile, root = profiles.current(), profiles.data_root()
    lake = str(root / "lake")
    return {
        "io_manager": TableIOManager(root=lake),
        "lake": Lake(root=lake),
        "settings": Settings(),
        "workers": Workers(
            root=str(root),
            engines={role: profile.engine_of(role).model_dump_json() for role in profiles.ROLES},
            limits=profile.limits.model_dump_json(),
        ),
    }


def _fixed(given: Any) -> dg.ResourceDefinition:
    """A resource that no run can configure: two roots, or settings other than the profile's, would split the outputs."""
    if isinstance(given, dg.ConfigurableIOManager):
        return dg.IOManagerDefinition.hardcoded_io_manager(given)
    return dg.ResourceDefinition.hardcoded_resource(given)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the code location."""
    return dg.Definitions(
        assets=dg.load_assets_from_package_module(assets, include_specs=True),
        asset_checks=dg.load_asset_checks_from_package_module(assets),
        jobs=[jobs.preference_data, jobs.training],
        schedules=[weekly_preference_data(_source_months)],
        sensors=[new_log_files(_log_files, _months_of, declare.MONTHS)],
        resources={name: _fixed(given) for name, given in resources().items()},
        # Steps are thin and models run in workers of their own: a process per step would cost more than the steps.
        executor=dg.in_process_executor,
    )
