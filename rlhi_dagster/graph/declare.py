"""How an asset and a check of this project are declared: everything the UI shows, once, as data; a profile makes definitions of it.

What belongs here: owners, kinds, code version, column schema, partitions, and the single-run policy that lets one launch cover a range.
What does not: which assets there are (``assets/``), and who puts them together (``definitions.py``).

A declaration knows no profile. `Place` has one, and with it the partitions and the keys; ``build`` makes the definitions of that place, so
that several profiles can stand side by side.

A code version is the version of the body, and a digest of the settings that the body reads, so that an asset is stale when one of them has
changed. A setting is a dotted path of the profile; ``models.<role>``, of which only what bears on answers counts; ``prompts.<name>``, a
prompt; ``recipes``, of all recipes what bears on training; or ``recipes_shown``, what bears on the report alone. A body that reads what it
does not declare fails (``declared_settings.py``). The secret ``RLHI_SALT`` is not among them: a digest of it could be guessed at.
"""

from __future__ import annotations

import functools
import inspect
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dagster as dg
import polars as pl
from dagster_shared.utils.warnings import BetaWarning

from rlhi_dagster.base import failures
from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.findings import matches_table as _matches_table
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.launching import partition_column
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.conversations.sources import file_version
from rlhi_dagster.engines.model_settings import ROLES, Role
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.engines.questions import prompts_in, text_of
from rlhi_dagster.graph.declared_settings import Settings, UndeclaredSettingError
from rlhi_dagster.graph.metadata import markdown_table
from rlhi_dagster.graph.partitions import against_base, months, partitions_of_run, recipes
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import Profile
from rlhi_dagster.training import recipes as recipe_files

# Both are marked beta in Dagster 1.13; the project stays below 1.14, and a line per asset would bury other warnings.
warnings.filterwarnings("ignore", message="(Parameter `backfill_policy`|Function `multi_observable_source_asset`)", category=BetaWarning)

OWNERS = ["team:rlhi"]
OF_RECIPES = ("recipes", "sft", "dpo", "dpo_on_rewards", "max_pairs", "validation_fraction", "seed", "prompts.persona")
"""Settings that decide how recipes train, and on which pairs."""
DEVIATING = (
    *("source", "labeller", "personas", "sampling", "policy", "rewrites", "candidates", "reward", "reasoning"),
    *("dpo", "dpo_on_rewards", "evaluation", *(f"models.{role}" for role in ROLES)),
)
"""Settings of which the report says where they depart from the paper."""

Body = Callable[..., Any]


@dataclass(frozen=True)
class Place:
    """What definitions are made for.

    Attributes:
        profile: Every setting.
        prefix: First parts of every asset key; none for the profile that has a Dagster instance of its own.
    """

    profile: Profile
    prefix: tuple[str, ...] = ()

    @cached_property
    def months(self) -> dg.PartitionsDefinition[str]:
        """Months of the profile."""
        return months(self.profile.first_month)

    @cached_property
    def recipes(self) -> dg.PartitionsDefinition[str]:
        """Recipes of the profile."""
        return recipes(recipe_files.names(self.profile.recipes))

    def partitions(self, column: str | None) -> dg.PartitionsDefinition[str] | None:
        """How a table is cut by its partition column."""
        return {"month": self.months, "recipe": self.recipes, None: None}[column]

    def key(self, name: str) -> dg.AssetKey:
        """Key of the asset of that name."""
        return dg.AssetKey([*self.prefix, name])

    def versioned(self, version: str, reads: Sequence[str], metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments ``code_version`` and ``metadata`` of an asset.

        Args:
            version: Of the body.
            reads: Settings that its result depends on.
            metadata: What else the UI shows.
        """
        if not reads:
            return {"code_version": version, "metadata": metadata}
        digest = digest_of({name: self._setting(name) for name in reads})[:8]
        return {"code_version": f"{version}-{digest}", "metadata": {**metadata, "settings": ", ".join(reads)}}

    def _setting(self, name: str) -> Any:
        section, _, rest = name.partition(".")
        if name == "recipes":
            return recipe_files.trained(self.profile.recipes)
        if name == "recipes_shown":
            return recipe_files.shown(self.profile.recipes)
        if section == "prompts":
            return text_of(rest, self.profile.prompts)
        if section == "models":
            return [player.identity for player in self.profile.players(cast("Role", rest))]
        return functools.reduce(operator.getitem, name.split("."), self._dumped)

    @cached_property
    def _dumped(self) -> dict[str, Any]:
        return self.profile.model_dump(mode="json")


@dataclass(frozen=True)
class Source:
    """Files that are made elsewhere; whoever observes them gives them a data version, of their names and contents.

    Attributes:
        name: Of the asset.
        group: Of the asset.
        description: What one row is.
        location: Says where the files lie under a profile.
        files: Lists the files.
        shown: More metadata.
    """

    name: str
    group: str
    description: str
    location: Callable[[Profile], str]
    files: Callable[[Profile], Sequence[str]]
    shown: Callable[[Profile], Mapping[str, str]] = lambda profile: {}

    def build(self, place: Place) -> dg.AssetsDefinition:
        """The observable source asset."""
        key, location = place.key(self.name), self.location(place.profile)
        layout = {kind for suffix, kind in ((".parquet", "parquet"), (".jsonl", "json")) if suffix in location}
        spec = dg.AssetSpec(
            key,
            description=self.description,
            group_name=self.group,
            kinds={"huggingface" if location.startswith("hf://") else "file", *layout},
            owners=OWNERS,
            metadata={"location": location, **self.shown(place.profile)},
        )

        @dg.multi_observable_source_asset(name=_op_name(place, f"observe_{self.name}"), specs=[spec])
        def observe() -> dg.ObserveResult:
            """Version of the files as they are now."""
            with failures.told():
                found = sorted((Path(file).name, file_version(file)) for file in self.files(place.profile))
            listed = markdown_table(pl.DataFrame(found, schema=["file", "version"], orient="row"))
            return dg.ObserveResult(asset_key=key, data_version=dg.DataVersion(digest_of(found)), metadata={"files": listed})

        return observe


@dataclass(frozen=True)
class Out:
    """One of the assets that a step makes: a table of ``base/tables.py``, or an artefact, which is a folder with a manifest.

    Attributes:
        name: Of the asset.
        group: Of the asset.
        kinds: Shown in the UI.
        description: What one row is, or what the artefact is; for a step that makes one asset the docstring of its body.
        code_version: Of the body.
        reads: Settings that the result depends on.
    """

    name: str
    group: str
    kinds: set[str]
    description: str | None = None
    code_version: str = "1"
    reads: Sequence[str] = ()

    @property
    def is_table(self) -> bool:
        """Whether it is a table."""
        return self.name in TABLES

    def arguments(self, place: Place) -> dict[str, Any]:
        """What Dagster is told of it, as an asset or as one of several outputs."""
        folder = {"folder": dg.MetadataValue.path(place.profile.root / "lake" / self.name)}
        return {
            "key": place.key(self.name),
            "group_name": self.group,
            "kinds": {"polars", *self.kinds} if self.is_table else self.kinds,
            "owners": OWNERS,
            "description": self.description,
            **place.versioned(self.code_version, self.reads, TABLES[self.name].metadata if self.is_table else folder),
        }


@dataclass(frozen=True)
class Step:
    """A body and the assets that it makes.

    Attributes:
        name: Of the step; the asset's, if it makes one.
        outs: What it makes.
        partition_column: ``month``, ``recipe`` or none.
        body: A function of resources, and of the tables that it reads as frames. Several results are yielded one after the other.
        deps: Assets that it reads otherwise.
        with_base: Of the frames, those of which a recipe also sees the base's.
        pool: Scarce thing that it needs.
    """

    name: str
    outs: Sequence[Out]
    partition_column: str | None
    body: Body
    deps: Sequence[str] = ()
    with_base: Sequence[str] = ()
    pool: str | None = None

    @property
    def reads(self) -> frozenset[str]:
        """Settings that the body may read."""
        return frozenset(setting for out in self.outs for setting in out.reads)

    def build(self, place: Place) -> dg.AssetsDefinition:
        """The definition; failures that can be expected are told in one sentence, and undeclared settings cannot be read."""
        given: dict[str, Any] = {
            "partitions_def": place.partitions(self.partition_column),
            "backfill_policy": dg.BackfillPolicy.single_run(),
            "deps": [place.key(name) for name in self.deps],
            "ins": {name: self._input(place, name) for name in _frames(self.body)},
            "pool": self.pool,
        }
        if inspect.isgeneratorfunction(self.body):
            outs = {out.name: dg.AssetOut(**out.arguments(place), **_without_value(out)) for out in self.outs}
            return dg.multi_asset(name=_op_name(place, self.name), outs=outs, **given)(self._told_one_by_one(place))
        (out,) = self.outs
        return dg.asset(**out.arguments(place), **given)(self._told(place))

    def _input(self, place: Place, name: str) -> dg.AssetIn:
        mapping = against_base(place.recipes.get_partition_keys()) if name in self.with_base else None
        return dg.AssetIn(key=place.key(name), partition_mapping=mapping)

    def _told(self, place: Place) -> Body:
        @functools.wraps(self.body)
        def told(*args: Any, **kwargs: Any) -> Any:
            with failures.told(), self._prompts(place):
                return _placed(place, self.body(*self._seen(args), **self._seen_by_name(kwargs)))

        return told

    def _told_one_by_one(self, place: Place) -> Body:
        @functools.wraps(self.body)
        def told(*args: Any, **kwargs: Any) -> Iterator[Any]:
            results = iter(self.body(*self._seen(args), **self._seen_by_name(kwargs)))
            while True:
                # Not around the yield, for what is set there would hold for whoever reads the results.
                with failures.told(), self._prompts(place):
                    made = next(results, None)
                if made is None:
                    return
                yield _placed(place, made)

        return told

    def _prompts(self, place: Place) -> AbstractContextManager[None]:
        """The prompts of the place, of which the body reads those that it declares."""

        def note(name: str) -> None:
            if f"prompts.{name}" not in self.reads:
                raise UndeclaredSettingError(self.name, f"prompts.{name}")

        return prompts_in(place.profile.prompts, note)

    def _seen(self, given: Sequence[Any]) -> list[Any]:
        return [self._seen_one(each) for each in given]

    def _seen_one(self, given: Any) -> Any:
        if isinstance(given, Settings):
            return given.seen_by(self.name, self.reads)
        return given.of(self.name) if isinstance(given, Workers) else given

    def _seen_by_name(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(given, self._seen(list(given.values())), strict=True))


@dataclass(frozen=True)
class Run:
    """What a check can ask of the run that it belongs to.

    Attributes:
        lake: Tables and artefacts.
        profile: Every setting.
        partitions: Partitions of the checked asset that the run is about; ``None`` for all.
    """

    lake: Lake
    profile: Profile
    partitions: Sequence[str] | None


@dataclass(frozen=True)
class Check:
    """A property that an asset must have.

    Attributes:
        asset: Name of the asset.
        holds: The property, a function that returns a `Finding`; the check has its name and the first line of its docstring. The one
            parameter that ``given`` lacks is the asset's table; of an artefact there is none.
        given: Its parameters: the name of another table, a function of the `Run`, or a value.
        of_run: Of the other tables, those of which only the months of the run are looked at.
        warns: The check warns; else it blocks what comes after in the same run.
    """

    asset: str
    holds: Callable[..., Finding]
    given: Mapping[str, Any] = field(default_factory=dict)
    of_run: Sequence[str] = ()
    warns: bool = False

    @property
    def name(self) -> str:
        """Name of the check."""
        return self.holds.__name__

    def build(self, place: Place) -> dg.AssetChecksDefinition:
        """The asset check."""
        wanted = inspect.signature(self.holds).parameters.values()
        tables = {name: place.key(value) for name, value in self.given.items() if isinstance(value, str)}
        frames = [each.name for each in wanted if each.name not in self.given and each.default is each.empty]
        severity = dg.AssetCheckSeverity.WARN if self.warns else dg.AssetCheckSeverity.ERROR
        partitions_def = place.partitions(partition_column(self.asset))

        def check(context: dg.AssetCheckExecutionContext, settings: Any, lake: Any, **inputs: pl.LazyFrame) -> dg.AssetCheckResult:
            run = Run(lake, settings.profile, partitions_of_run(context.run.tags, partitions_def))
            if run.partitions is not None:
                inputs |= {name: inputs[name].filter(pl.col("month").is_in(list(run.partitions))) for name in self.of_run}
            with failures.told():
                values = {name: value(run) if callable(value) else value for name, value in self.given.items() if name not in tables}
                found = self.holds(**inputs, **values)
            shown = {name: markdown_table(each) if isinstance(each, pl.DataFrame) else each for name, each in found.numbers.items()}
            return dg.AssetCheckResult(passed=found.passed, metadata=shown, severity=severity)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        typed = {
            "context": dg.AssetCheckExecutionContext,
            **dict.fromkeys((*frames, *tables), pl.LazyFrame),
            "settings": dg.ResourceParam[Settings],
            "lake": dg.ResourceParam[Lake],
        }
        check.__signature__ = inspect.Signature([inspect.Parameter(name, kind, annotation=typ) for name, typ in typed.items()])  # type: ignore[attr-defined]
        check.__annotations__ = typed
        return dg.asset_check(
            asset=place.key(self.asset),
            name=self.name,
            blocking=not self.warns,
            description=(self.holds.__doc__ or "").strip().split("\n", 1)[0],
            additional_ins={name: dg.AssetIn(key) for name, key in tables.items()},
        )(check)


Declaration = Source | Step | Check
"""Files made elsewhere, the assets that one step makes, or a check."""


def asset(
    name: str,
    group: str,
    kinds: set[str],
    *,
    code_version: str = "1",
    reads: Sequence[str] = (),
    deps: Sequence[str] = (),
    with_base: Sequence[str] = (),
    pool: str | None = None,
) -> Callable[[Body], Step]:
    """Declare the asset of a table in ``base/tables.py``, or of an artefact, which is a folder with a manifest rather than a table."""
    out = Out(name, group, kinds, code_version=code_version, reads=reads)
    return lambda body: Step(name, [out], partition_column(name), body, deps, with_base, pool)


def together(name: str, cut_by: str, outs: Sequence[Out], *, deps: Sequence[str] = (), pool: str | None = None) -> Callable[[Body], Step]:
    """Declare the assets that one step makes (``launching.TOGETHER``); its body yields their results one after the other."""
    return lambda body: Step(name, outs, cut_by, body, deps, (), pool)


def check(asset: str, holds: Callable[..., Finding], *, of_run: Sequence[str] = (), warns: bool = False, **given: Any) -> Check:
    """Declare a property that an asset must have; see `Check`."""
    return Check(asset, holds, given, of_run, warns)


def matches_table(name: str) -> Check:
    """Declare that a table has the columns, types and key that ``base/tables.py`` says."""
    return check(name, _matches_table, table=TABLES[name])


def _frames(body: Body) -> list[str]:
    """Parameters that are tables."""
    return [name for name, each in inspect.signature(body, eval_str=True).parameters.items() if each.annotation is pl.LazyFrame]


def _without_value(out: Out) -> dict[str, Any]:
    """What several outputs are told besides: an artefact is no value that Dagster would store."""
    return {} if out.is_table else {"dagster_type": dg.Nothing}


def _placed(place: Place, made: Any) -> Any:
    """A result under the key that its asset has in a place."""
    if not isinstance(made, dg.MaterializeResult) or made.asset_key is None:
        return made
    return made._replace(asset_key=place.key(made.asset_key.path[-1]))


def _op_name(place: Place, name: str) -> str:
    return "__".join([*place.prefix, name])
