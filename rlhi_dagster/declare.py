"""How an asset of this project is declared: everything the UI shows, once, in three decorators.

What belongs here: owners, kinds, code version, column schema, partitions and the single-run policy that lets one launch cover a range.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_shared.utils.warnings import BetaWarning

from rlhi_dagster import failures, profiles
from rlhi_dagster.partitions import months, recipes
from rlhi_dagster.tables import TABLES
from rlhi_dagster.training import recipes as recipe_files

# Single-run backfills are marked beta in Dagster 1.13; the version is pinned, and a line per asset would bury other warnings.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=BetaWarning)

OWNERS = ["team:rlhi"]
MONTHS = months(profiles.current().first_month)
RECIPES = recipes(recipe_files.names())

Declare = Callable[[Callable[..., Any]], dg.AssetsDefinition]


def table(
    name: str,
    group: str,
    kinds: set[str],
    *,
    code_version: str = "1",
    deps: Sequence[Any] = (),
    ins: Mapping[str, dg.AssetIn] | None = None,
    pool: str | None = None,
) -> Declare:
    """Declare the asset of a table in ``tables.py``; its partitions follow from the table's partition column."""
    declared = TABLES[name]
    partitions: dg.PartitionsDefinition[str] | None = {"month": MONTHS, "recipe": RECIPES, None: None}[declared.partition_column]
    return _asset(
        name=name,
        group_name=group,
        kinds={"polars", *kinds},
        owners=OWNERS,
        code_version=code_version,
        metadata=declared.metadata,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=deps,
        ins=ins,
        pool=pool,
    )


def artefact(
    name: str,
    group: str,
    kinds: set[str],
    *,
    code_version: str = "1",
    by_recipe: bool = False,
    deps: Sequence[Any] = (),
    ins: Mapping[str, dg.AssetIn] | None = None,
    pool: str | None = None,
) -> Declare:
    """Declare an asset that is a folder with a manifest rather than a table."""
    return _asset(
        name=name,
        group_name=group,
        kinds=kinds,
        owners=OWNERS,
        code_version=code_version,
        partitions_def=RECIPES if by_recipe else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=deps,
        ins=ins,
        pool=pool,
    )


def together(
    name: str,
    partitions: dg.PartitionsDefinition[str],
    outs: Mapping[str, dg.AssetOut],
    *,
    deps: Sequence[Any] = (),
    pool: str | None = None,
) -> Declare:
    """Declare the assets that one step makes (``launching.TOGETHER``); its body yields their results one after the other."""

    def declare(body: Callable[..., Iterator[Any]]) -> dg.AssetsDefinition:
        @functools.wraps(body)
        def told(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with failures.told():
                yield from body(*args, **kwargs)

        backfill = dg.BackfillPolicy.single_run()
        return dg.multi_asset(name=name, partitions_def=partitions, backfill_policy=backfill, outs=outs, deps=deps, pool=pool)(told)

    return declare


def _asset(**given: Any) -> Declare:
    """An asset whose failures that can be expected are told in one sentence."""

    def declare(body: Callable[..., Any]) -> dg.AssetsDefinition:
        @functools.wraps(body)
        def told(*args: Any, **kwargs: Any) -> Any:
            with failures.told():
                return body(*args, **kwargs)

        return dg.asset(**given)(told)

    return declare
