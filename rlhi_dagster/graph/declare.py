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
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dagster as dg
import polars as pl
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData  # not exported
from dagster_shared.utils.warnings import BetaWarning, PreviewWarning

from rlhi_dagster.base import failures, owned
from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.findings import matches_table as _matches_table
from rlhi_dagster.base.lake import UNPARTITIONED, Lake, Staged
from rlhi_dagster.base.launching import partition_column
from rlhi_dagster.base.lineage import PASSED, column_lineage
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.conversations.sources import file_version
from rlhi_dagster.engines.model_settings import ROLES, Role
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.engines.questions import prompts_in, text_of
from rlhi_dagster.graph import recovery
from rlhi_dagster.graph.declared_settings import Settings, UndeclaredSettingError
from rlhi_dagster.graph.excerpts import excerpts
from rlhi_dagster.graph.launchpad import ModelCalls
from rlhi_dagster.graph.metadata import markdown_table, rounded
from rlhi_dagster.graph.partitions import against_base, months, partitions_of_run, recipes
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import ROOT, Profile
from rlhi_dagster.training import recipes as recipe_files

# They are marked beta or preview in Dagster 1.13; the project stays below 1.14, and a line per asset would bury other warnings.
_BETA = (
    "(Parameter `backfill_policy`|Function `multi_observable_source_asset`|Class `(LocalFileCodeReference|CodeReferencesMetadataValue)`)"
)
warnings.filterwarnings("ignore", message=_BETA, category=BetaWarning)
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec", category=PreviewWarning)

OWNERS = ["team:rlhi"]
OF_RECIPES = (
    *("recipes", "sft", "dpo", "dpo_on_rewards", "kto", "sdpo", "max_pairs", "validation_fraction", "seed"),
    *("prompts.persona", "prompts.hindsight"),
)
"""Settings that decide how recipes train, and on which pairs."""
DEVIATING = (
    *("source", "labeller", "personas", "sampling", "policy", "rewrites", "candidates", "reward", "reasoning"),
    *("dpo", "dpo_on_rewards", "evaluation", *(f"models.{role}" for role in ROLES)),
)
"""Settings of which the report says where they depart from the paper."""

_DATA_VERSION, _INPUT_DATA_VERSION = "dagster/data_version", "dagster/input_data_version"
"""Tags by which Dagster tells what is stale."""

_LOCKS = ".locks"
"""Folder of the lake, beside the assets."""

WHEN_UPSTREAM_IS_SOUND = (
    dg.AutomationCondition.eager()
    & dg.AutomationCondition.all_deps_match(
        dg.AutomationCondition.all_checks_match(dg.AutomationCondition.check_passed(), blocking_only=True)
    )
).with_label("when what it rests on is new and its blocking checks have passed")
FRESH_FOR = timedelta(days=8)
"""Of real logs, which grow: as long as the weekly schedule leaves between two runs, and a day. Simulated ones stay as they are."""

DOCUMENTS = {
    **{
        group: f"{group}.md" for group in ("benchmarks", "evaluation", "feedback", "personas", "preferences", "reasoning", "reconstruction")
    },
    "conversations": "logs.md",
    "generation": "rewrites.md",
    "held_out": "evaluation.md",
    "online": "rewards.md",
    "policy": "training.md",
    "reward": "reward_models.md",
    "training": "training.md",
}
"""The page of the documents about each group, by its file's name."""

MODEL, SERVER = "model", "server"
"""Pools: what needs this machine's accelerator, and what only asks servers, which may charge. ``dagster.yaml`` limits each to one run."""
OF_ROLES = "of roles"
"""Pool of a step that asks none but the models of the roles it reads: ``SERVER`` where all of these are behind servers, else ``MODEL``."""

_DIALS = "config"
"""Parameter by which Dagster hands in what the launchpad says."""

RESOURCES = ("settings", "lake", "workers")
"""Parameters that are resources, beside ``io_manager``; under a prefix each place has its own."""

Body = Callable[..., Any]


@dataclass(frozen=True)
class Place:
    """What definitions are made for.

    Attributes:
        profile: Every setting.
        prefix: First parts of every asset key; none for the profile that has a Dagster instance of its own.
        started: Names (without the prefix) of schedules that are on from the beginning.
    """

    profile: Profile
    prefix: tuple[str, ...] = ()
    started: frozenset[str] = frozenset()

    @cached_property
    def months(self) -> dg.DynamicPartitionsDefinition:
        """Months of the source."""
        return months(self.prefix)

    @cached_property
    def recipes(self) -> dg.PartitionsDefinition[str]:
        """Recipes of the profile."""
        return recipes(recipe_files.names(self.profile.recipes, self.profile.project_recipes))

    def partitions(self, column: str | None) -> dg.PartitionsDefinition[str] | None:
        """How a table is cut by its partition column."""
        return {"month": self.months, "recipe": self.recipes, None: None}[column]

    def key(self, name: str) -> dg.AssetKey:
        """Key of the asset of that name."""
        return dg.AssetKey([*self.prefix, name])

    def named(self, name: str) -> str:
        """Name of what has no key: a step, a job, a schedule or a sensor."""
        return "__".join([*self.prefix, name])

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
            return recipe_files.trained(self.profile.recipes, self.profile.project_recipes)
        if name == "recipes_shown":
            return recipe_files.shown(self.profile.recipes, self.profile.project_recipes)
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

    A step that reads them observes them itself, and records of which version it is made: the latest observation may be of other files.

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
            group_name=place.named(self.group),
            kinds={"huggingface" if location.startswith("hf://") else "file", *layout},
            owners=OWNERS,
            metadata={"location": location, **_pages(self.group), **self.shown(place.profile)},
        )

        @dg.multi_observable_source_asset(name=place.named(f"observe_{self.name}"), specs=[spec])
        def observe() -> dg.ObserveResult:
            """Version of the files as they are now."""
            with failures.told():
                version, shown = self.seen(place)
            return dg.ObserveResult(asset_key=key, data_version=dg.DataVersion(version), metadata=shown)

        return observe

    def seen(self, place: Place) -> tuple[str, dict[str, dg.MarkdownMetadataValue]]:
        """Data version of the files as they are now, and what the UI shows of them."""
        found = sorted((Path(file).name, file_version(file)) for file in self.files(place.profile))
        return digest_of(found), {"files": markdown_table(pl.DataFrame(found, schema=["file", "version"], orient="row"))}


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

    def arguments(self, place: Place, body: Body) -> dict[str, Any]:
        """What Dagster is told of it, as an asset or as one of several outputs; ``body`` makes it."""
        is_by_recipe = partition_column(self.name) == "recipe"
        folder = place.profile.root / "lake" / self.name
        shown = {
            "dagster/uri": folder.absolute().as_uri(),
            "dagster/code_references": _references(body),
            **_pages(self.group),
            **({"dagster/table_name": self.name, **TABLES[self.name].metadata} if self.is_table else {}),
            **({"dagster/column_lineage": column_lineage(self.name, place.key)} if self.name in PASSED else {}),
        }
        return {
            "key": place.key(self.name),
            "group_name": place.named(self.group),
            "kinds": {"polars", *self.kinds} if self.is_table else self.kinds,
            "owners": OWNERS,
            "description": self.description,
            "io_manager_key": place.named("io_manager"),
            "freshness_policy": None if place.profile.truth or is_by_recipe else dg.FreshnessPolicy.time_window(fail_window=FRESH_FOR),
            **place.versioned(self.code_version, self.reads, shown),
        }


@dataclass(frozen=True)
class Step:
    """A body and the assets that it makes.

    Attributes:
        name: Of the step; the asset's, if it makes one.
        outs: What it makes.
        partition_column: ``month``, ``recipe`` or none.
        body: A function of resources, and of the tables that it reads as frames. Several results are yielded one after the other.
        deps: Assets that it reads otherwise, by name; sources as they are declared.
        with_base: Of the frames, those of which a recipe also sees the base's.
        pool: Scarce thing that it needs: ``MODEL`` or ``OF_ROLES``.
    """

    name: str
    outs: Sequence[Out]
    partition_column: str | None
    body: Body
    deps: Sequence[str | Source] = ()
    with_base: Sequence[str] = ()
    pool: str | None = None

    @property
    def reads(self) -> frozenset[str]:
        """Settings that the body may read."""
        return frozenset(setting for out in self.outs for setting in out.reads)

    @property
    def asks(self) -> bool:
        """Whether it makes tables of what models answer; what only trains, or uses the classifier, asks nobody."""
        return self.pool is not None and any(out.is_table for out in self.outs)

    @property
    def is_cheap(self) -> bool:
        """Whether it makes one table from tables on the processor alone, so that it may run by itself."""
        out, *others = self.outs
        reads_tables_alone = bool(_frames(self.body)) and not any(isinstance(dep, Source) for dep in self.deps)
        needs_a_model = self.pool is not None or bool(out.kinds)
        return out.is_table and not others and reads_tables_alone and not needs_a_model and self.partition_column != "recipe"

    def build(self, place: Place) -> dg.AssetsDefinition:
        """The definition; failures that can be expected are told in one sentence, and undeclared settings cannot be read."""
        given: dict[str, Any] = {
            "partitions_def": place.partitions(self.partition_column),
            "backfill_policy": dg.BackfillPolicy.single_run(),
            "deps": [place.key(dep.name if isinstance(dep, Source) else dep) for dep in self.deps],
            "ins": {name: self._input(place, name) for name in _frames(self.body)},
            "pool": self._pool(place),
        }
        if inspect.isgeneratorfunction(self.body):
            outs = {out.name: dg.AssetOut(**out.arguments(place, self.body), **_without_value(out)) for out in self.outs}
            return dg.multi_asset(name=place.named(self.name), outs=outs, **given)(_called(place, self._told_one_by_one(place)))
        (out,) = self.outs
        condition = WHEN_UPSTREAM_IS_SOUND if self.is_cheap else None
        return dg.asset(**out.arguments(place, self.body), **given, automation_condition=condition)(_called(place, self._told(place)))

    def _pool(self, place: Place) -> str | None:
        if self.pool != OF_ROLES:
            return self.pool
        roles = [cast("Role", setting.removeprefix("models.")) for setting in self.reads if setting.startswith("models.")]
        models = [player for role in roles for player in place.profile.players(role) if player.program is None]
        return SERVER if models and all(player.engine.kind == "openai" for player in models) else MODEL

    def _input(self, place: Place, name: str) -> dg.AssetIn:
        if name in self.with_base:
            return dg.AssetIn(key=place.key(name), partition_mapping=against_base(place.recipes.get_partition_keys()))
        column, other = self.partition_column, partition_column(name)
        is_cut_otherwise = None not in (column, other) and column != other
        return dg.AssetIn(key=place.key(name), partition_mapping=dg.AllPartitionMapping() if is_cut_otherwise else None)

    def _told(self, place: Place) -> Body:
        @functools.wraps(self.body)
        def told(*args: Any, **kwargs: Any) -> Any:
            limit = kwargs.pop(_DIALS, ModelCalls()).limit or None
            with (
                recovery.tried_again(limit),
                failures.told(),
                self._prompts(place),
                self._alone([*args, *kwargs.values()]) as locks,
            ):
                sources = self._observed(place)
                made = self.body(*self._seen(args, locks, limit), **self._seen_by_name(kwargs, locks, limit))
                self._check_unchanged(place, sources)
                return _placed(place, made, sources)

        return self._with_dials(told)

    def _told_one_by_one(self, place: Place) -> Body:
        @functools.wraps(self.body)
        def told(*args: Any, **kwargs: Any) -> Iterator[Any]:
            limit = kwargs.pop(_DIALS, ModelCalls()).limit or None
            with ExitStack() as stack:
                with recovery.tried_again(limit), failures.told():
                    locks = stack.enter_context(self._alone([*args, *kwargs.values()]))
                    sources = self._observed(place)
                results = iter(self.body(*self._seen(args, locks, limit), **self._seen_by_name(kwargs, locks, limit)))
                is_first = True
                while True:
                    # Not around the yield, for what is set there would hold for whoever reads the results.
                    with recovery.tried_again(limit), failures.told(), self._prompts(place):
                        made = next(results, None)
                        if is_first:
                            self._check_unchanged(place, sources)
                    if made is None:
                        return
                    is_first = False
                    yield _placed(place, made, sources)

        return self._with_dials(told)

    def _with_dials(self, told: Body) -> Body:
        """A body that takes what a person may set for one run, if there is anything."""
        if not self.asks:
            return told
        signature = inspect.signature(self.body, eval_str=True)
        dials = inspect.Parameter(_DIALS, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=ModelCalls)
        told.__signature__ = signature.replace(parameters=[*signature.parameters.values(), dials])  # type: ignore[attr-defined]
        told.__annotations__ = {**self.body.__annotations__, _DIALS: ModelCalls}
        return told

    def _observed(self, place: Place) -> dict[Source, str]:
        """The sources that the step reads, each observed, and their data versions."""
        found = {}
        for source in (dep for dep in self.deps if isinstance(dep, Source)):
            found[source], shown = source.seen(place)
            observed = dg.AssetObservation(place.key(source.name), metadata=shown, tags={_DATA_VERSION: found[source]})
            dg.AssetExecutionContext.get().log_event(observed)
        return found

    def _check_unchanged(self, place: Place, sources: Mapping[Source, str]) -> None:
        """Raise ValueError if the files of a source are others than before they were read."""
        for source, version in sources.items():
            if source.seen(place)[0] != version:
                raise ValueError(f"the files of {source.name} changed while they were read: launch again")

    def _prompts(self, place: Place) -> AbstractContextManager[None]:
        """The prompts of the place, of which the body reads those that it declares."""

        def note(name: str) -> None:
            if f"prompts.{name}" not in self.reads:
                raise UndeclaredSettingError(self.name, f"prompts.{name}")

        return prompts_in(place.profile.prompts, note)

    def _alone(self, given: Sequence[Any]) -> AbstractContextManager[list[str]]:
        """Be the only run that makes these partitions; nothing is waited for where the body only hands over a frame, or for a plan."""
        context = next((each for each in given if isinstance(each, dg.AssetExecutionContext)), None)
        roots = [Path(each.root) for each in given if isinstance(each, Lake)]
        workers = [each for each in given if isinstance(each, Workers)]
        if context is None or not (roots or workers) or any(each.plans for each in workers):
            return nullcontext([])
        folder = (roots[0] if roots else workers[0].root / "lake") / _LOCKS / self.name
        keys = context.partition_keys if context.has_partition_key or context.has_partition_key_range else []
        what = f"{self.name} of {keys[0]}" + (f" to {keys[-1]}" if len(keys) > 1 else "") if keys else self.name
        files = [folder / f"{key}.lock" for key in keys or [UNPARTITIONED]]
        return owned.alone(files, what, context.run.run_id, context.log.info)

    def _seen(self, given: Sequence[Any], locks: Sequence[str], limit: int | None) -> list[Any]:
        return [self._seen_one(each, locks, limit) for each in given]

    def _seen_one(self, given: Any, locks: Sequence[str], limit: int | None) -> Any:
        if isinstance(given, Settings):
            return given.seen_by(self.name, self.reads)
        return given.of(self.name, locks, limit) if isinstance(given, Workers) else given

    def _seen_by_name(self, given: Mapping[str, Any], locks: Sequence[str], limit: int | None) -> dict[str, Any]:
        return dict(zip(given, self._seen(list(given.values()), locks, limit), strict=True))


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

    It is looked at once for all partitions of a run. If it does not hold, each partition is looked at by itself, so that the UI shows in
    which of them; where it holds in each by itself, it is broken by all of them together.

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
        column = partition_column(self.asset)
        partitions_def = place.partitions(column)
        # A check has no mapping between partitions, so one that also reads what is cut otherwise tells of all its partitions at once.
        is_by_partition = all(partition_column(key.path[-1]) in (None, column) for key in tables.values())

        def check(context: dg.AssetCheckExecutionContext, settings: Any, lake: Any, **inputs: pl.LazyFrame) -> Iterator[Any]:
            keys = partitions_of_run(context.run.tags, partitions_def, context.instance)

            def found_in(partitions: Sequence[str] | None, cut: Sequence[str]) -> Finding:
                run = Run(lake, settings.profile, partitions)
                seen = {name: _of(inputs[name], column, partitions) if name in cut else inputs[name] for name in inputs}
                values = {name: value(run) if callable(value) else value for name, value in self.given.items() if name not in tables}
                return self.holds(**seen, **values)

            with failures.told():
                together = found_in(keys, self.of_run)
                if keys is None or not is_by_partition:
                    yield dg.AssetCheckResult(passed=together.passed, metadata=_shown(together), severity=severity)
                    return
                # A fault that no partition has by itself lies between them, so all of them have it.
                alone = {} if together.passed else {key: found_in([key], (*frames, *self.of_run)) for key in keys}
                told = alone if not all(each.passed for each in alone.values()) else dict.fromkeys(keys, together)
            for key, finding in told.items():
                yield dg.AssetCheckEvaluation(
                    asset_key=place.key(self.asset),
                    check_name=self.name,
                    passed=finding.passed,
                    metadata=_shown(finding),
                    target_materialization_data=_target(context.instance, place.key(self.asset), key),
                    severity=severity,
                    blocking=not self.warns,
                    partition=key,
                )
            yield dg.Output(None, output_name=context.op_execution_context.op_def.output_defs[0].name)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        typed = {
            "context": dg.AssetCheckExecutionContext,
            **dict.fromkeys((*frames, *tables), pl.LazyFrame),
            "settings": dg.ResourceParam[Settings],
            "lake": dg.ResourceParam[Lake],
        }
        check.__signature__ = inspect.Signature([inspect.Parameter(name, kind, annotation=typ) for name, typ in typed.items()])  # type: ignore[attr-defined]
        check.__annotations__ = typed
        checked = dg.asset_check(
            asset=place.key(self.asset),
            name=self.name,
            blocking=not self.warns,
            description=(self.holds.__doc__ or "").strip().split("\n", 1)[0],
            additional_ins={name: dg.AssetIn(key) for name, key in tables.items()},
            partitions_def=partitions_def if is_by_partition else None,
        )
        return checked(_called(place, check))


Declaration = Source | Step | Check
"""Files made elsewhere, the assets that one step makes, or a check."""


def asset(
    name: str,
    group: str,
    kinds: set[str],
    *,
    code_version: str = "1",
    reads: Sequence[str] = (),
    deps: Sequence[str | Source] = (),
    with_base: Sequence[str] = (),
    pool: str | None = None,
) -> Callable[[Body], Step]:
    """Declare the asset of a table in ``base/tables.py``, or of an artefact, which is a folder with a manifest rather than a table."""
    out = Out(name, group, kinds, code_version=code_version, reads=reads)
    return lambda body: Step(name, [out], partition_column(name), body, deps, with_base, pool)


def together(
    name: str, cut_by: str, outs: Sequence[Out], *, deps: Sequence[str | Source] = (), pool: str | None = None
) -> Callable[[Body], Step]:
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


def _placed(place: Place, made: Any, sources: Mapping[Source, str]) -> Any:
    """A result under the key that its asset has in a place, with the versions of the sources that it is made of."""
    if not isinstance(made, dg.MaterializeResult):
        return made
    key = made.asset_key and place.key(made.asset_key.path[-1])
    shown = rounded(made.metadata)
    if place.profile.truth and key is not None and isinstance(made.value, pl.DataFrame | Staged):
        shown |= excerpts(key.path[-1], made.value)
    of = {f"{_INPUT_DATA_VERSION}/{place.key(source.name).to_user_string()}": version for source, version in sources.items()}
    return made._replace(asset_key=key, metadata=shown, tags={**(made.tags or {}), **of})


def _called(place: Place, body: Body) -> Body:
    """A function whose resources are called as in a place, so that places with resources of their own stand side by side."""
    if not place.prefix:
        return body
    signature = inspect.signature(body, eval_str=True)
    names = {place.named(name): name for name in signature.parameters if name in RESOURCES}
    renamed = [each.replace(name=place.named(each.name) if each.name in RESOURCES else each.name) for each in signature.parameters.values()]

    def called(*args: Any, **kwargs: Any) -> Any:
        return body(*args, **{names.get(name, name): value for name, value in kwargs.items()})

    def called_one_by_one(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from called(*args, **kwargs)

    given = functools.wraps(body)(called_one_by_one if inspect.isgeneratorfunction(inspect.unwrap(body)) else called)
    del given.__wrapped__
    given.__signature__ = signature.replace(parameters=renamed)  # type: ignore[attr-defined]
    given.__annotations__ = {each.name: each.annotation for each in renamed}
    return given


def _pages(group: str) -> dict[str, dg.MetadataValue[Any]]:
    """Where the documents speak of a group, from the checkout's folder; an installed package has none."""
    page = next((ROOT / "docs").rglob(DOCUMENTS[group]), None)
    return {} if page is None else {"documents": dg.MetadataValue.path(page.relative_to(ROOT))}


def _references(body: Body) -> dg.CodeReferencesMetadataValue:
    """Where a body is written; Dagster itself would find what is wrapped around it."""
    file, line = str(inspect.getsourcefile(body)), body.__code__.co_firstlineno
    return dg.CodeReferencesMetadataValue(
        code_references=[dg.LocalFileCodeReference(file_path=file, line_number=line, label=body.__name__)]
    )


def _of(frame: pl.LazyFrame, column: str | None, partitions: Sequence[str] | None) -> pl.LazyFrame:
    """The rows of some partitions; all of them where there are none."""
    return frame if column is None or partitions is None else frame.filter(pl.col(column).is_in(list(partitions)))


def _shown(found: Finding) -> dict[str, Any]:
    """The measurements of a finding, as the UI shows them."""
    return rounded({name: markdown_table(each) if isinstance(each, pl.DataFrame) else each for name, each in found.numbers.items()})


def _target(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The materialization that a check looked at: Dagster counts a check as one of the latest only with it."""
    records = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]), limit=1).records
    if not records:
        return None
    (latest,) = records
    return AssetCheckEvaluationTargetMaterializationData(
        run_id=latest.event_log_entry.run_id, storage_id=latest.storage_id, timestamp=latest.timestamp
    )
