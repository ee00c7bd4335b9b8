"""What materializing an asset would ask models for, told without asking: ``rlhi plan`` and the job ``forecast``.

What belongs here: running an asset up to its first model call, with workers that count instead of answering and an I/O manager that
writes nothing. What does not: how forecasts are made (``engines.forecast``), and how they are shown (``jobs.py``, ``cli/planning.py``).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dagster as dg

from rlhi_dagster import profiles
from rlhi_dagster.base import failures
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.forecast import NOTHING, Forecast
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.partitions import add_months, months, range_tags
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import Profile
from rlhi_dagster.reasoning.math_answers import Grade, Solution

FOOTNOTE = "Of each asset the first calls that are missing; calls that depend on their answers are not known before. Nothing was started."


class _PlannedError(Exception):
    def __init__(self, forecast: Forecast) -> None:
        super().__init__()
        self.forecast = forecast


_complete: ContextVar[Forecast] = ContextVar("complete", default=NOTHING)
"""What the asset has asked for that is in the store; Dagster makes resources anew for each run, so they can keep nothing themselves."""


class _Workers(Workers):
    """Workers that tell what they would do instead of doing it."""

    plans = True

    def _announce(self, context: dg.AssetExecutionContext, planned: Forecast) -> None:
        _complete.set(so_far := _complete.get() + planned)
        if planned.missing:
            raise _PlannedError(so_far)

    def verify(self, context: dg.AssetExecutionContext, solutions: Sequence[Solution]) -> dict[Solution, Grade]:
        """Verification asks no model but starts a process, so it is left out; what an asset asks does not depend on it."""
        return dict.fromkeys(solutions, Grade.UNDECIDED)

    def _run(
        self, context: dg.AssetExecutionContext, worker: str, jobs: Sequence[dict[str, Any]], python: str = sys.executable
    ) -> list[Sequence[Any]]:
        """Nothing is started: a GGUF file that is not converted yet is not converted for a plan."""
        raise ValueError(f"not planned: the worker {worker!r} has to run before its calls are known; it does when the asset is made")

    def _note_use(self, *_: object) -> None:
        """Nothing is used."""


class _ReadOnly(TableIOManager):
    """Reads tables and writes none."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Forget the value."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an asset would ask for.

    Attributes:
        asset: Its name.
        forecast: Of its first model calls that are missing; ``None`` if it cannot be told.
        note: Why not.
    """

    asset: str
    forecast: Forecast | None
    note: str = ""


def plannable(loaded: dg.Definitions) -> list[str]:
    """Assets that may call models and write nothing but their table, in the order of the graph: not the online rounds, which train."""
    graph = loaded.resolve_asset_graph()
    names = [key.to_user_string() for key in graph.toposorted_asset_keys]
    return [name for name in names if name in TABLES and graph.get(dg.AssetKey(name)).pools and _is_alone(loaded, name)]


def _is_alone(loaded: dg.Definitions, name: str) -> bool:
    return len(loaded.get_assets_def(name).keys) == 1


@dataclass(frozen=True)
class Planner:
    """Forecasts the model calls of assets, from the tables that are materialized now.

    Attributes:
        profile: Every setting.
        loaded: The profile's definitions, without a prefix.
        resources: What assets are given.
    """

    profile: Profile
    loaded: dg.Definitions
    resources: Mapping[str, Any]

    def __call__(self, names: Sequence[str], first: str | None, last: str | None) -> list[Plan]:
        """The forecasts.

        Args:
            names: Assets; all that call models if empty.
            first: First partition, for assets that have it; every month that has turns, or every recipe, if ``None``.
            last: Last partition.

        Raises:
            ValueError: A name is no asset that calls models, or ``first`` or ``last`` is a partition of none of them.
        """
        known = plannable(self.loaded)
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such asset, or it calls no model; those that do are {', '.join(known)}")
        asked = [name for name in known if not names or name in names]
        of_month = self._months(first, last)
        keys = {name: self._partition_keys(name, of_month) for name in asked}
        for given in filter(None, (first, last)):
            if not any(given in each for each in keys.values()):
                of = ", ".join(names) or "any asset that calls models"
                raise ValueError(f"{given} is no partition of {of}; partitions are {_partitions_text(keys.values())}")
        return [self._plan(name, keys[name], first, last) for name in asked]

    def _plan(self, name: str, partitions: Sequence[str], first: str | None, last: str | None) -> Plan:
        _complete.set(NOTHING)
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)  # Dagster's own report of a run that ends by an exception is not for people who plan
        try:
            tags = self._range(name, partitions, first, last)
            with dg.DagsterInstance.ephemeral() as instance:
                add_months(instance, months(), partitions if TABLES[name].partition_column == "month" else ())
                assets: list[Any] = [*(self.loaded.assets or ())]
                dg.materialize(assets, instance=instance, selection=[name], resources=self._planning(), tags=tags)
        except _PlannedError as planned:
            return Plan(name, planned.forecast)
        except (ValueError, OSError, dg.Failure) as error:
            return Plan(name, None, failures.message(error))
        finally:
            logging.disable(before)
        return Plan(name, _complete.get())

    def _planning(self) -> dict[str, Any]:
        """The resources, of which none starts or writes anything."""
        manager, workers = self.resources["io_manager"], self.resources["workers"]
        return {**self.resources, "io_manager": _ReadOnly(root=manager.root), "workers": _Workers(workers.root, workers.limits)}

    def _months(self, *wanted: str | None) -> list[str]:
        """Months that have turns; if one is wanted that has none, or nothing is made, those of the source too, which is read for it."""
        made = self.resources["lake"].partitions_present("turns")
        if made and {*made}.issuperset(filter(None, wanted)):
            return list(made)
        return sorted({*made, *profiles.source_months(self.profile)[0]})

    def _partition_keys(self, name: str, of_month: Sequence[str]) -> Sequence[str]:
        """All partitions of an asset; none if it is not partitioned."""
        partitions = self.loaded.get_assets_def(name).partitions_def
        if isinstance(partitions, dg.DynamicPartitionsDefinition):
            return of_month
        return partitions.get_partition_keys() if partitions else ()

    def _range(self, name: str, partitions: Sequence[str], first: str | None, last: str | None) -> dict[str, str]:
        """Tags of a run over the partitions.

        Raises:
            ValueError: There are none such.
        """
        if not partitions:
            return {}
        column = TABLES[name].partition_column
        present = self.resources["lake"].partitions_present("turns") if column == "month" else partitions
        if not (present or (first and last)):
            raise failures.NotMadeError("turns has not been materialized", "turns")
        first, last = first or present[0], last or present[-1]
        if not {first, last} <= set(partitions):
            raise ValueError(f"not planned: it is partitioned by {column}, and {first}...{last} is not")
        if partitions.index(first) > partitions.index(last):
            raise ValueError(f"not planned: {first} comes after {last}")
        return range_tags(first, last)


def _partitions_text(keys: Iterable[Sequence[str]]) -> str:
    return ", ".join(sorted({f"{each[0]}...{each[-1]}" for each in keys if each})) or "none: these assets are not partitioned"
