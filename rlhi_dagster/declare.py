"""How an asset of this project is declared: everything the UI shows, once, in three decorators.

What belongs here: owners, kinds, code version, column schema, partitions and the single-run policy that lets one launch cover a range.

A code version is the version of the body, and a digest of the settings that the body reads, so that an asset is stale when one of them has
changed. A setting is a dotted path of the profile; ``engines.<role>``, of which only what bears on answers counts; ``recipes``, of all
recipes what bears on training; or ``recipes_shown``, what bears on the report alone. The secret ``RLHI_SALT`` is not among them: a digest
of it could be guessed at.
"""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import dagster as dg
import polars as pl
from dagster_shared.utils.warnings import BetaWarning

from rlhi_dagster import failures, profiles
from rlhi_dagster.conversations.sources import file_version
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.metadata import markdown_table
from rlhi_dagster.partitions import months, recipes
from rlhi_dagster.tables import TABLES
from rlhi_dagster.training import recipes as recipe_files

# Both are marked beta in Dagster 1.13; the version is pinned, and a line per asset would bury other warnings.
warnings.filterwarnings("ignore", message="(Parameter `backfill_policy`|Function `multi_observable_source_asset`)", category=BetaWarning)

OWNERS = ["team:rlhi"]
_PROFILE = profiles.current().model_dump(mode="json")
MONTHS = months(profiles.current().first_month)
RECIPES = recipes(recipe_files.names())
OF_RECIPES = ("recipes", "sft", "dpo", "dpo_on_rewards", "max_pairs", "validation_fraction", "seed")
"""Settings that decide how recipes train, and on which pairs."""
DEVIATING = (
    "source",
    "labeller",
    "personas",
    "sampling",
    "policy",
    "pair_judge",
    "rewrites",
    "candidates",
    "reward",
    "reasoning",
    "dpo",
    "dpo_on_rewards",
    "evaluation",
)
"""Settings of which the report says where they depart from the paper."""

Declare = Callable[[Callable[..., Any]], dg.AssetsDefinition]


def source(name: str, group: str, location: str, description: str, files: Callable[[], Sequence[str]], **shown: str) -> dg.AssetsDefinition:
    """Declare files that are made elsewhere; whoever observes them gives them a data version, of their names and contents.

    Args:
        name: Of the asset.
        group: Of the asset.
        location: Where the files lie.
        description: What one row is.
        files: Lists the files.
        shown: More metadata.
    """
    place = "huggingface" if location.startswith("hf://") else "file"
    layout = {kind for suffix, kind in ((".parquet", "parquet"), (".jsonl", "json")) if suffix in location}
    spec = dg.AssetSpec(
        name,
        description=description,
        group_name=group,
        kinds={place, *layout},
        owners=OWNERS,
        metadata={"location": location, **shown},
    )

    @dg.multi_observable_source_asset(name=f"observe_{name}", specs=[spec])
    def observe() -> dg.ObserveResult:
        """Version of the files as they are now."""
        with failures.told():
            found = sorted((Path(file).name, file_version(file)) for file in files())
        listed = markdown_table(pl.DataFrame(found, schema=["file", "version"], orient="row"))
        return dg.ObserveResult(asset_key=name, data_version=dg.DataVersion(digest_of(found)), metadata={"files": listed})

    return observe


def table(
    name: str,
    group: str,
    kinds: set[str],
    *,
    code_version: str = "1",
    reads: Sequence[str] = (),
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
        **versioned(code_version, reads, declared.metadata),
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
    reads: Sequence[str] = (),
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
        **versioned(code_version, reads, folder(name)),
        partitions_def=RECIPES if by_recipe else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=deps,
        ins=ins,
        pool=pool,
    )


def folder(name: str) -> dict[str, dg.MetadataValue]:
    """Metadata of an artefact: where it lies, or its partitions do."""
    return {"folder": dg.MetadataValue.path(profiles.data_root() / "lake" / name)}


def versioned(version: str, reads: Sequence[str], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments ``code_version`` and ``metadata`` of an asset.

    Args:
        version: Of the body.
        reads: Settings that its result depends on.
        metadata: What else the UI shows.
    """
    if not reads:
        return {"code_version": version, "metadata": metadata}
    digest = digest_of({name: _setting(name) for name in reads})[:8]
    return {"code_version": f"{version}-{digest}", "metadata": {**metadata, "settings": ", ".join(reads)}}


def _setting(name: str) -> Any:
    if name == "recipes":
        return recipe_files.trained()
    if name == "recipes_shown":
        return recipe_files.shown()
    section, _, role = name.partition(".")
    if section == "engines":
        return profiles.current().engine_of(cast("profiles.Role", role)).identity
    return functools.reduce(operator.getitem, name.split("."), _PROFILE)


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
