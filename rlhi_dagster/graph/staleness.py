"""What of a job is not up to date, as the UI's own columns say it: missing, or made by other code or settings, or of other inputs.

What belongs here: asking Dagster, and comparing with the files that lie there. What does not: launching (``cli.refresh_command``), and what
counts as another version (``declare``: code, settings and prompts of an asset, names and contents of a source's files).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus  # not exported
from dagster._core.loader import LoadingContext  # not exported

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.launching import partition_column
from rlhi_dagster.base.tables import TABLES


@dataclass(frozen=True, slots=True)
class Stale:
    """An asset that is not up to date.

    Attributes:
        asset: Its name.
        reason: Why not, in a few words.
    """

    asset: str
    reason: str


class _Loading(LoadingContext):
    """What Dagster keeps of the event log while it answers."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[type, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        """Where events are read."""
        return self._instance

    @property
    def loaders(self) -> dict[type, Any]:
        """By what they load."""
        return self._loaders


def stale(
    loaded: dg.Definitions,
    job: str,
    partitions: Mapping[str, Sequence[str]],
    sources: Mapping[dg.AssetKey, str],
    lake: Lake,
    instance: dg.DagsterInstance,
) -> list[Stale]:
    """Assets of a job that are not up to date, in the order of the graph.

    Args:
        loaded: The definitions.
        job: Its name.
        partitions: Which partitions count, by how assets are cut: ``month`` and ``recipe``.
        sources: Data versions of the sources as their files are now.
        lake: Where the files lie.
        instance: Where runs are recorded.
    """
    graph = loaded.resolve_asset_graph()
    selected = loaded.resolve_job_def(job).asset_layer.selected_asset_keys
    resolver = CachingStaleStatusResolver(instance, graph, _Loading(instance))
    changed = [key for key, now in sources.items() if _recorded(instance, key) != now]
    found = []
    for key in (key for key in graph.toposorted_asset_keys if key in selected):
        name = key.path[-1]
        keys: Sequence[str | None] = partitions[column] if (column := partition_column(name)) else [None]
        of_source = [parent for parent in graph.get(key).parent_keys if parent in changed]
        reason = next(_reasons(resolver, lake, key, keys), f"the files of {of_source[0].path[-1]} changed" if of_source else None)
        found += [Stale(name, reason)] if reason else []
    return found


def _recorded(instance: dg.DagsterInstance, source: dg.AssetKey) -> str | None:
    record = instance.get_latest_data_version_record(source)
    event = record and record.asset_event
    return event.tags.get("dagster/data_version") if event and event.tags else None


def _reasons(resolver: CachingStaleStatusResolver, lake: Lake, key: dg.AssetKey, partitions: Sequence[str | None]) -> Iterator[str]:
    name = key.path[-1]
    for partition in partitions:
        of = f" ({partition})" if partition else ""
        status = resolver.get_status(key, partition)
        # Of an artefact by recipe nothing has to lie there: not every recipe makes one, and checkpoints are deleted to save space.
        file = lake.table_path(name, partition) if name in TABLES else None if partition else lake.artefact_path(name)
        if status is StaleStatus.MISSING:
            yield f"not made yet{of}"
        elif status is StaleStatus.STALE:
            cause = resolver.get_stale_causes(key, partition)[0]
            whose = f"{cause.dependency.asset_key.path[-1]} " if cause.dependency else ""
            yield f"{whose}{cause.reason.replace('dependency ', '')}{of}"
        elif file is not None and not file.exists():
            yield f"{file} is gone"
