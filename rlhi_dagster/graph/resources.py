"""What assets use: the workers that hold the heavy libraries.

What belongs here: starting workers through Dagster Pipes and reading their answers back from the response store. What does not: what a
worker does (``workers/``), what is asked (the stages' packages), and which model is asked (``model_calls.py``). If the store already has
every answer, no process is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from itertools import chain, groupby
from operator import add
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import dagster as dg
import numpy as np
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base import owned, seals
from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.engines import forecast as forecasting
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest, Sampling, characters
from rlhi_dagster.engines.forecast import NOTHING, Forecast, Limits, OverLimitError
from rlhi_dagster.engines.model_settings import ModelSettings
from rlhi_dagster.engines.models import ModelRef, digest_of, read_manifest
from rlhi_dagster.engines.read import read_chat, read_rewards
from rlhi_dagster.engines.replay import replay, unanswered
from rlhi_dagster.engines.requests import chat_rows
from rlhi_dagster.engines.settings import EngineSettings, WorkerSettings
from rlhi_dagster.engines.sources import GgufFile
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.graph import pipes
from rlhi_dagster.graph.metadata import forecast_observation
from rlhi_dagster.reasoning.math_answers import SOLUTION_SCHEMA, Grade, Solution
from rlhi_dagster.store import uses as references
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.artefacts import made_of, refer
from rlhi_dagster.training.reference_keys import KIND as REFERENCE
from rlhi_dagster.training.reference_keys import reference_key
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings
from rlhi_dagster.workers.share import KEY as SHARE

_EMBED_CHUNK = 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """An artefact to train: see ``workers.train_loop.TrainingJob``."""

    name: str
    method: str
    model: ModelRef | None
    rows: pl.DataFrame
    validation: pl.DataFrame | None
    settings: TrainingSettings
    out: Path
    extra: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def work(self) -> float:
        """How much it trains, in rows seen."""
        return len(self.rows) * self.settings.epochs

    @property
    def inputs(self) -> str:
        """Digest of everything that determines the result."""
        model = [self.model.name, self.model.revision] if self.model else None
        validation = self.validation.to_dicts() if self.validation is not None else []
        return digest_of(self.method, model, self.rows.to_dicts(), validation, self.settings.model_dump(), dict(self.extra))


@dataclass
class Allowance:
    """How many answers a step may still ask for in a run: ``launchpad.ModelCalls``.

    Attributes:
        limit: In all; ``None`` for as many as are missing.
        used: So far.
    """

    limit: int | None = None
    used: int = 0

    def of(self, missing: Sequence[Sequence[T]]) -> list[list[T]]:
        """From the front, what of several lists may be asked for; it counts as used."""
        granted = []
        for each in missing:
            granted.append(list(each) if self.limit is None else list(each[: self.limit - self.used]))
            self.used += len(granted[-1])
        return granted


@dataclass(frozen=True)
class Workers:
    """Resource: starts worker programs and reads their answers back.

    Attributes:
        root: Folder of all outputs; the store is ``responses/`` below it, job files lie in ``work/``.
        limits: What the calls of one asset may cost.
        settings: How many processes work side by side.
        asset: Name of the asset or step that they work for.
        locks: What they hold while they work: see ``owned.alone``.
        allowance: How much the run may ask for.
        plans: Whether they only tell what they would do.
    """

    plans: ClassVar[bool] = False

    root: Path
    limits: Limits = field(default_factory=Limits)
    settings: WorkerSettings = field(default_factory=WorkerSettings)
    asset: str = ""
    locks: tuple[str, ...] = ()
    allowance: Allowance = field(default_factory=Allowance)
    _owned: dict[str, owned.Partial] = field(default_factory=dict, repr=False, compare=False)

    def of(self, asset: str, locks: Sequence[str] = (), limit: int | None = None) -> Self:
        """The workers of an asset or step, what they hold, and how many answers they may ask for."""
        return replace(self, asset=asset, locks=tuple(locks), allowance=Allowance(limit))

    @property
    def store(self) -> Path:
        """Folder of the response store."""
        return self.root / "responses"

    def chat(
        self,
        context: dg.AssetExecutionContext,
        batches: Sequence[tuple[ModelRef, Sequence[ChatRequest]]],
        engine: EngineSettings,
        sampling: Sampling,
    ) -> tuple[list[list[ChatAnswer]], CallStats]:
        """Answers to each batch's requests, in order, and what they cost; several models share one worker."""
        order = [[request.key(model, sampling, engine.identity) for request in requests] for model, requests in batches]
        keyed = [(model, dict(zip(keys, requests, strict=True))) for (model, requests), keys in zip(batches, order, strict=True)]
        stores = [ResponseStore(self.store, "chat", model.identity) for model, _ in batches]
        lacking = [store.missing(_keys(requests)).to_list() for store, (_, requests) in zip(stores, keyed, strict=True)]
        wanted, asked = sum(len(requests) for _, requests in batches), self.allowance.of(lacking)
        total = CallStats(requests=wanted, cached=wanted)

        def planned(missing: Sequence[Sequence[str]]) -> Forecast:
            parts = [
                self._forecast("chat", model, engine, len(requests), [requests[key] for key in keys], sampling.max_new_tokens)
                for (model, requests), keys in zip(keyed, missing, strict=True)
            ]
            return reduce(add, parts, NOTHING)

        self._announce(context, planned(asked))
        if any(asked):
            calls = [(model, key, requests[key]) for (model, requests), keys in zip(keyed, asked, strict=True) for key in keys]
            shares = [
                [
                    {"model": model.to_dict(), "requests": self._job_file(context, chat_rows({key: each for _, key, each in some}))}
                    for model, some in groupby(share, lambda call: call[0])
                ]
                for share in self._shares(calls, engine)
            ]
            total = _with_cached(self._generate(context, shares, engine, sampling), wanted)
        self._end_if_limited(planned([keys[len(some) :] for keys, some in zip(lacking, asked, strict=True)]))
        self._note_use(context, zip(stores, order, strict=True))
        return [read_chat(keys, store) for keys, store in zip(order, stores, strict=True)], total

    def replay(
        self,
        context: dg.AssetExecutionContext,
        model: ModelRef,
        dialogues: Mapping[str, Sequence[str]],
        engine: EngineSettings,
        sampling: Sampling,
    ) -> tuple[dict[str, list[ChatAnswer]], CallStats]:
        """A model's replies to whole conversations, turn by turn on its own history: see ``engines.replay.replay``."""
        store = ResponseStore(self.store, "chat", model.identity)
        used: list[str] = []

        def stored(requests: list[ChatRequest]) -> list[ChatAnswer]:
            keys = [request.key(model, sampling, engine.identity) for request in requests]
            used.extend(keys)
            return read_chat(keys, store)

        wanted = sum(map(len, dialogues.values()))
        lacking = unanswered(dialogues, store, lambda request: request.key(model, sampling, engine.identity))
        asked = dict(zip(lacking, self.allowance.of(list(lacking.values())), strict=True))
        total = CallStats(wanted, wanted)

        def planned(missing: Iterable[Sequence[ChatRequest]]) -> Forecast:
            return self._forecast("chat", model, engine, wanted, list(chain.from_iterable(missing)), sampling.max_new_tokens)

        self._announce(context, planned(asked.values()))
        if any(asked.values()):
            schema = {"dialogue_id": pl.String(), "user_messages": pl.List(pl.String())}
            # Dialogues that begin alike ask for the same replies, so they stay together.
            alike: dict[str, list[tuple[str, list[str]]]] = {}
            for name, said in dialogues.items():
                left = len(lacking.get(name, ())) - len(asked.get(name, ()))
                alike.setdefault("".join(said[:1]), []).append((name, list(said[: len(said) - left])))
            lengths = [sum(len(said) for _, said in group) for group in alike.values()]
            shared = _evenly(list(alike.values()), lengths, self._processes(engine, wanted))
            frames = [pl.DataFrame([each for group in groups for each in group], schema=schema, orient="row") for groups in shared]
            shares = [[{"model": model.to_dict(), "dialogues": self._job_file(context, frame)}] for frame in frames]
            total = _with_cached(self._generate(context, shares, engine, sampling), wanted)
        self._end_if_limited(planned(each[len(asked[name]) :] for name, each in lacking.items()))
        answers = replay(dialogues, stored)
        self._note_use(context, [(store, used)])
        return answers, total

    def score(
        self, context: dg.AssetExecutionContext, model: ModelRef, requests: Sequence[RewardRequest], engine: EngineSettings
    ) -> tuple[list[RewardAnswer], CallStats]:
        """Rewards of the requests, in order, and what they cost."""
        order = [request.key(model, engine.identity) for request in requests]
        keyed = dict(zip(order, requests, strict=True))
        store = ResponseStore(self.store, "reward", model.identity)
        lacking, total = store.missing(_keys(order)).to_list(), CallStats(requests=len(order), cached=len(order))
        (asked,) = self.allowance.of([lacking])

        def planned(keys: Sequence[str]) -> Forecast:
            return self._forecast("reward", model, engine, len(keyed), [keyed[key] for key in keys], 0)

        self._announce(context, planned(asked))
        if asked:
            schema, of_model = {"key": pl.String(), "messages": MESSAGES}, {"model": model.to_dict()}
            shares = [
                of_model | {"requests": self._job_file(context, pl.DataFrame(share, schema=schema, orient="row"))}
                for share in self._shares([(key, keyed[key].messages) for key in asked], engine)
            ]
            total = _with_cached(self._asked(context, "score", shares, engine), len(order))
        self._end_if_limited(planned(lacking[len(asked) :]))
        self._note_use(context, [(store, order)])
        return read_rewards(order, store), total

    def find(self, context: dg.AssetExecutionContext, settings: ModelSettings) -> ModelRef:
        """The model that a profile names; a GGUF file is converted once, to a folder of its own.

        Raises:
            UnresolvedModelError: It cannot be found; the message says what to write instead.
        """
        file = settings.gguf_file(profiles.ROOT)
        return settings.ref(profiles.ROOT, self._converted(context, file) if file else None)

    def put(self, context: dg.AssetExecutionContext, settings: ModelSettings, out: Path) -> dict[str, Any]:
        """Let an artefact's folder hold a model that a profile names, or stand for it; return the manifest."""
        file = settings.gguf_file(profiles.ROOT)
        if file is None:
            return refer(out, settings.ref(profiles.ROOT), method="none")
        return read_manifest(self._converted(context, file, out))

    def _converted(self, context: dg.AssetExecutionContext, file: GgufFile, out: Path | None = None) -> Path:
        """The folder that a GGUF file is made to, once: ``out``, or one of its own."""
        name = Path(file.path).stem
        inputs = file.inputs(name)
        folder = out or self.root / "models" / f"{name}-{inputs[:12]}"
        if not made_of(folder, inputs):
            self._run(context, "convert", [{"file": file.to_dict(), "out": str(folder), "name": name}])
        return folder

    def embed(self, context: dg.AssetExecutionContext, encoder: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of the texts, in order: float32 ``[n, dimensions]``."""
        keys = [digest_of("embedding", encoder, text) for text in texts]
        store = ResponseStore(self.store, "embedding", encoder)
        keyed = dict(zip(keys, texts, strict=True))
        lacking = store.missing(_keys(keys)).to_list()
        (asked,) = self.allowance.of([lacking])

        def planned(missing: Sequence[str]) -> Forecast:
            rates = forecasting.measured(self.store, store.kind, store.model, encoder)
            return forecasting.forecast(len(keyed), [len(keyed[key]) for key in missing], 0, rates, None, encoder)

        self._announce(context, planned(asked))
        if asked:
            rows = pl.DataFrame({"key": asked, "text": [keyed[key] for key in asked]}, schema={"key": pl.String(), "text": pl.String()})
            self._run(context, "embed", [{"store": str(self.store), "texts": self._job_file(context, rows), "chunk_size": _EMBED_CHUNK}])
        self._end_if_limited(planned(lacking[len(asked) :]))
        self._note_use(context, [(store, keys)])
        found = store.lookup(_keys(keys))
        place = {key: row for row, key in enumerate(found["key"])}
        vectors = np.array(found["vector"].to_list(), dtype=np.float32)
        return vectors[[place[key] for key in keys]] if keys else np.zeros((0, 0), np.float32)

    def verify(self, context: dg.AssetExecutionContext, solutions: Sequence[Solution]) -> dict[Solution, Grade]:
        """Whether solutions end in the known answers. Nothing is kept: grades are cheap and the same every time."""
        keyed = {str(number): solution for number, solution in enumerate(dict.fromkeys(solutions))}
        if not keyed:
            return {}
        rows = pl.DataFrame([{"key": key, **asdict(each)} for key, each in keyed.items()], schema={"key": pl.String(), **SOLUTION_SCHEMA})
        (messages,) = self._run(context, "verify", [{"items": self._job_file(context, rows)}])
        return {keyed[key]: Grade(value) for message in messages for key, value in message.items()}

    def count_tokens(self, context: dg.AssetExecutionContext, model: ModelRef, rows: pl.DataFrame) -> pl.DataFrame:
        """``budget.PAIR_TOKENS`` of pairs as they are shown (``key``, ``prompt``, ``chosen``, ``rejected``); counted once, then kept."""
        file = self._job_path(context, rows)
        out = file.with_name(f"{file.stem}.{digest_of(model.identity)}.tokens")
        try:
            return seals.read(out)
        except (FileNotFoundError, seals.BrokenFileError):
            self._run(context, "tokens", [{"model": model.to_dict(), "rows": self._job_file(context, rows), "out": str(out)}])
        return seals.read(out)

    def train(self, context: dg.AssetExecutionContext, runs: Sequence[TrainingRun]) -> dict[str, dict[str, Any]]:
        """Train artefacts that are not there yet from the same inputs, one worker a method and number of processes; their manifests."""
        lacking = [run for run in runs if not made_of(run.out, run.inputs)]
        groups: dict[tuple[str, int | None], list[TrainingRun]] = {}
        for run in lacking:
            groups.setdefault((run.method, run.settings.processes), []).append(run)
        waiting = list(groups.values())
        while waiting:
            # Job files go with the workers that have read them, so those of later workers are written again.
            jobs, *later = [[self._training_job(context, run) for run in group] for group in waiting]
            checked = [job for group in later for job in group]
            shares = [
                {"jobs": share, "later": checked} for share in _evenly(jobs, [each.work for each in waiting[0]], self.settings.processes)
            ]
            idle = self.settings.processes // len(shares)  # a training uses what no other does; a few calls are made as fast without
            self._run(context, f"train_{jobs[0]['method']}", self._side_by_side(shares, idle))
            waiting = waiting[1:]
        self._note_references(context, runs)
        return {run.name: read_manifest(run.out) for run in runs}

    def _note_references(self, context: dg.AssetExecutionContext, runs: Sequence[TrainingRun]) -> None:
        """Remember which log-probabilities of the reference DPO went by; pairs that were too long have none."""
        used: list[tuple[ResponseStore, list[str]]] = []
        for run in runs:
            if isinstance(run.settings, DPOSettings) and run.model:
                rows = [row for frame in (run.rows, run.validation) if frame is not None for row in frame.iter_rows(named=True)]
                keys = _keys(reference_key(run.model, row, run.settings) for row in rows)
                store = ResponseStore(self.store, REFERENCE, run.model.identity)
                used.append((store, keys.filter(~keys.is_in(store.missing(keys).implode())).to_list()))
        if used:
            self._note_use(context, used)

    def _training_job(self, context: dg.AssetExecutionContext, run: TrainingRun) -> dict[str, Any]:
        validation = run.validation if run.validation is not None and len(run.validation) else None
        return {
            "name": run.name,
            "method": run.method,
            "model": run.model.to_dict() if run.model else None,
            "train": self._job_file(context, run.rows),
            "validation": self._job_file(context, validation) if validation is not None else None,
            "settings": run.settings.model_dump(),
            "out": str(run.out),
            "inputs": run.inputs,
            "store": str(self.store),
            "extra": dict(run.extra),
            "origin": dict(run.origin),
            "events": str(self._events(context, run)),
        }

    def _events(self, context: dg.AssetExecutionContext, run: TrainingRun) -> Path:
        """Folder of a run's TensorBoard event files: the asset's, or a folder in it for each partition."""
        is_partitioned = context.has_partition_key or context.has_partition_key_range
        return Path(self.root, "tensorboard", self._step(context), *([run.name] if is_partitioned else []))

    def _forecast(
        self,
        kind: str,
        model: ModelRef,
        engine: EngineSettings,
        wanted: int,
        missing: Sequence[ChatRequest | RewardRequest],
        new_tokens: int,
    ) -> Forecast:
        rates = forecasting.measured(self.store, kind, model.identity, engine.identity)
        lengths = [characters(request.messages) for request in missing]
        return forecasting.forecast(wanted, lengths, new_tokens, rates, engine, model.name)

    def _announce(self, context: dg.AssetExecutionContext, planned: Forecast) -> None:
        """Say what calls will cost before they are made, in the log and as an observation of the asset; refuse what is over a limit."""
        if not planned.missing:
            return
        context.log.info(f"{self._step(context)}: {planned}")
        for key in context.selected_asset_keys:
            context.log_event(forecast_observation(key, planned))
        try:
            forecasting.check(self.limits, planned)
        except OverLimitError as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    def _end_if_limited(self, left: Forecast) -> None:
        """End the step if its run may not ask for what is left: a table of what is there would be taken for the whole."""
        if left.missing:
            raise dg.Failure(
                f"this run's limit of {self.allowance.limit:,} answers is used up: they are kept, and no table was written. Left: {left}. "
                "Launch again without limit for all of it, or with one for some more",
                allow_retries=False,
            )

    def _note_use(self, context: dg.AssetExecutionContext, used: Iterable[tuple[ResponseStore, Sequence[str]]]) -> None:
        """Remember which answers the asset's materialization rests on, for ``rlhi store gc`` and ``explain``."""
        uses: dict[tuple[str, str], list[str]] = {}
        for store, keys in used:
            uses.setdefault((store.kind, store.model), []).extend(keys)
        partitions = context.partition_keys if context.has_partition_key or context.has_partition_key_range else None
        references.record(self.store, self._step(context), partitions, context.run.run_id, uses)

    def _generate(
        self, context: dg.AssetExecutionContext, shares: list[list[dict[str, Any]]], engine: EngineSettings, sampling: Sampling
    ) -> CallStats:
        drawn = {"sampling": asdict(sampling)}
        return self._asked(context, "generate", [drawn | {"batches": batches} for batches in shares], engine)

    def _asked(self, context: dg.AssetExecutionContext, worker: str, shares: list[dict[str, Any]], engine: EngineSettings) -> CallStats:
        """What the calls of several workers cost together; they work at the same time, on one machine with one price."""
        priced = engine.model_copy(update={"usd_per_hour": engine.usd_per_hour / len(shares)})
        common = {"store": str(self.store), "engine": priced.model_dump(), "limits": self.limits.shared(len(shares)).model_dump()}
        jobs = [common | share for share in shares]
        jobs = self._side_by_side(jobs) if engine.kind == "transformers" else jobs
        spent = [_sum(messages) for messages in self._run(context, worker, jobs, _python(engine))]
        return replace(reduce(add, spent), seconds=max(stats.seconds for stats in spent))

    def _side_by_side(self, jobs: list[dict[str, Any]], times: int = 1) -> list[dict[str, Any]]:
        """The jobs with what each worker has of the machine; one alone has all of it, unless the profile says how many threads.

        Args:
            jobs: One a worker.
            times: So many times the profile's threads.
        """
        if len(jobs) == 1 and self.settings.threads is None:
            return jobs
        share = {"of": len(jobs), "threads": self.settings.threads and self.settings.threads * times}
        return [job | {SHARE: share | {"number": number}} for number, job in enumerate(jobs)]

    def _shares(self, calls: Sequence[T], engine: EngineSettings) -> list[Sequence[T]]:
        """Parts of the calls for workers side by side; neighbours, which may begin alike, stay together."""
        each = -(-len(calls) // self._processes(engine, len(calls)))
        return [calls[start : start + each] for start in range(0, len(calls), each)]

    def _step(self, context: dg.AssetExecutionContext) -> str:
        """Name of the step that asks, the same in every code location."""
        return self.asset or context.assets_def.node_def.name

    def _processes(self, engine: EngineSettings, calls: int) -> int:
        """Workers that share out calls, which only transformers needs; each has a batch at least, or would not be worth its start."""
        if engine.kind != "transformers" or engine.cluster is not None:
            return 1
        return max(1, min(self.settings.processes, calls // engine.batch_size))

    def _run(
        self, context: dg.AssetExecutionContext, worker: str, jobs: Sequence[dict[str, Any]], python: str = sys.executable
    ) -> list[Sequence[Any]]:
        """Run a worker for each job to its end, good or bad; then their files go, which hold chat text: what came of it is in the store."""
        program = ("launch", worker) if worker.startswith("train_") else (worker,)
        holding = [{**job, owned.LOCKS: list(self.locks)} for job in jobs]
        try:
            return pipes.run(context, worker, [python, "-m", f"rlhi_dagster.workers.{program[0]}", *program[1:]], holding)
        finally:
            for file in {text for job in jobs for text in _texts(job)} & set(self._owned):
                Path(file).unlink(missing_ok=True)
                self._owned.pop(file).close()

    def _job_path(self, context: dg.AssetExecutionContext, frame: pl.DataFrame) -> Path:
        """Where a job's rows lie for its worker; named by content, as what is counted of them beside it is (`count_tokens`)."""
        return self.root / "work" / self._step(context) / f"{digest_of(frame.columns, frame.rows())}.parquet"

    def _job_file(self, context: dg.AssetExecutionContext, frame: pl.DataFrame) -> str:
        """Write a job's rows where its worker finds them; those that a killed run left there go."""
        file = self._job_path(context, frame)
        owned.sweep([*file.parent.glob("*.parquet"), *file.parent.glob(owned.PARTIAL)])
        self._owned[str(file)] = seals.written(file, frame)
        return str(file)


def _python(engine: EngineSettings) -> str:
    """The interpreter of an engine's worker.

    Raises:
        dg.Failure: The engine names one that is not there.
    """
    named = getattr(engine, "python", None)
    if named is None:
        return sys.executable
    file = profiles.project_path(named)
    if not os.access(file, os.X_OK):
        raise dg.Failure(f"engine: python {named} is no program; name the interpreter of an environment with vLLM", allow_retries=False)
    return str(file)


def _evenly(jobs: Sequence[T], work: Sequence[float], processes: int) -> list[list[T]]:
    """Jobs for workers side by side, about equally much ``work`` for each; long ones first."""
    shares: list[list[T]] = [[] for _ in range(min(processes, len(jobs)))]
    load = [0.0] * len(shares)
    for number in sorted(range(len(jobs)), key=lambda number: -work[number]):
        lightest = load.index(min(load))
        shares[lightest].append(jobs[number])
        load[lightest] += work[number]
    return shares


def _texts(job: Any) -> Iterator[str]:
    """Every string in a job."""
    if isinstance(job, str):
        yield job
    elif isinstance(job, Mapping | list):
        for value in job.values() if isinstance(job, Mapping) else job:
            yield from _texts(value)


def _keys(keys: Iterable[str]) -> pl.Series:
    return pl.Series("key", list(keys), dtype=pl.String())


def _sum(messages: Sequence[Any]) -> CallStats:
    return sum((CallStats(**message) for message in messages), CallStats())


def _with_cached(answered: CallStats, wanted: int) -> CallStats:
    """The worker's figures with ``wanted`` as the requests: what it did not answer came from the store (or repeats another request)."""
    return replace(answered, requests=wanted, cached=wanted - answered.answered)
