"""The fingerprint of everything that the graph computes, with models that answer by the digest of what they are asked.

All jobs run on a small town in this process, under a profile whose models are scripted: a reply, a reward, a vector or a trained
artefact is a function of the request's key alone. So the digests of all tables depend on no processor, and change where a request, a
cache key, the inputs of a training run or the arithmetic of a table has changed. ``python -m tests.snapshot`` records them anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict
from unittest import mock

import numpy as np
import polars as pl
import yaml

from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest, Sampling
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.graph import pipes
from rlhi_dagster.graph.declared_settings import View
from rlhi_dagster.graph.partitions import range_tags
from rlhi_dagster.profiles import Profile
from rlhi_dagster.reasoning.math_answers import Grade
from rlhi_dagster.simulation.town.__main__ import write
from rlhi_dagster.simulation.town.logs import TownSettings
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.budget import PAIR_TOKENS
from rlhi_dagster.workers import generate
from rlhi_dagster.workers.answering import Desk
from tests.built import knowing, town_settings
from tests.passed import compared

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "snapshots"
PROFILES = ("town", "models")
"""``town``: the roles are played as in the sample. ``models``: every role that can have a language model has one."""
_WRONG_STEP = re.compile(r"Step (\d+) is the first wrong step")
"""What the simulated user is asked to point at."""
ON_THE_PROCESSOR = {"contextual_diversity"}
"""Left out: which cluster an item falls into can hang on the last bits of its distances, which differ between processors."""
COMMIT = "1" * 40
MONTHS = ("2023-04", "2023-05")


class Run(TypedDict):
    """What came of a run of both jobs.

    Attributes:
        digests: Of every table, and of the inputs of every trained artefact.
        read: Settings that each step read, as dotted paths.
        passed: Of columns that are said to be passed on, rows that have something there, and those of them that have it from elsewhere.
    """

    digests: dict[str, str]
    read: dict[str, list[str]]
    passed: dict[str, tuple[int, int]]


def profile(folder: Path, name: str) -> dict[str, Any]:
    """The sample's settings with small numbers, over a town in ``folder``; as ``models`` with a language model in every role."""
    write(folder / "town", TownSettings(users=24, months=2), dialogues=60, problems=60)
    settings = town_settings()
    settings["name"] = f"snapshot-{name}"
    settings["source"]["location"] = str(folder / "town" / "wildchat*.parquet")
    settings["truth"] = str(folder / "town" / "truth")
    settings["reasoning"] |= {"prm800k": str(folder / "town" / "prm800k.jsonl")}
    settings["policy"]["corpus"] = str(folder / "town" / "corpus.parquet")
    settings["rewrites"] |= {"min_feedback_probability": 0.3}
    settings["candidates"] |= {"count": 4, "max_requests": 12, "min_margin": 0.1}
    settings["max_pairs"] = 40
    settings["evaluation"] |= {"requests_per_user": 2, "arithmetic_problems": 6}
    settings["evaluation"]["benchmarks"] = _benchmarks(folder / "benchmarks", is_judged=name == "models")
    if name == "models":
        settings["candidates"]["with_persona_only"] = False
        settings["pairs"]["decontamination"] = {"benchmarks": ["user_eval"], "min_similarity": 0.95}
        settings["rewrites"]["filters"] = {"min_meets_feedback": None, "min_reward_margin": -1.0}
        named = {"persona_writer": "writers/one", "labeller": "labellers/one", "pair_judge": "judges/one", "rewriter": "writers/two"}
        named |= {"simulated_user": "users/one", "judge": "judges/two"}
        settings["models"] |= {role: {"hub": f"{name}@{COMMIT}"} for role, name in named.items()}
        settings["personas"] = {}
        settings["rewrites"] |= {"form": "instruction"}
        settings["sdpo"] |= {"form": "instruction"}
    return settings


def _benchmarks(folder: Path, *, is_judged: bool) -> dict[str, str]:
    """Small files of public benchmarks, by name; one that a model judges only where there is such a judge."""
    folder.mkdir(exist_ok=True)
    problems = [{"id": str(number), "question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(3)]
    (folder / "aime24.test.jsonl").write_text("\n".join(map(json.dumps, problems)))
    (folder / "question.jsonl").write_text(json.dumps({"question_id": 1, "category": "c", "turns": ["Who?", "And now?"]}))
    return dict.fromkeys(["aime_24", *(["mt_bench"] if is_judged else [])], str(folder))


def draw(*parts: Any) -> int:
    """A whole number below 2**32 that depends on ``parts`` alone."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8], 16)


def instance(schema: Mapping[str, Any], seed: str) -> Any:
    """Something valid under a JSON schema of objects, lists, texts, whole numbers and choices."""
    if "$ref" in schema or "anyOf" in schema:
        raise NotImplementedError("schemas of this project have neither")
    if "enum" in schema:
        return schema["enum"][draw(seed) % len(schema["enum"])]
    kind = schema["type"]
    if kind == "object":
        return {name: instance(each, f"{seed}.{name}") for name, each in schema["properties"].items()}
    if kind == "array":
        return [instance(schema["items"], f"{seed}.{number}") for number in range(draw(seed) % 3)]
    return draw(seed) % 4 if kind == "integer" else "bullet points"


class Engine:
    """Plays every model.

    Args:
        replies: What chat models say.
    """

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies = replies

    def answer(self, calls: Iterator[tuple[str, ChatRequest]], _: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        for key, request in calls:
            probabilities = None
            if request.choices:
                weights = [1 + draw(key, choice) % 1000 for choice in request.choices]
                probabilities = [weight / sum(weights) for weight in weights]
                text = request.choices[probabilities.index(max(probabilities))]
            elif request.json_schema:
                text = json.dumps(instance(json.loads(request.json_schema), key))
            elif step := _WRONG_STEP.search(request.messages[-1]["content"]):
                text = f"Look at step {step[1]} again, it is not right."
            else:
                text = self.replies[draw(key) % len(self.replies)]
            yield [(key, ChatAnswer(text, None, "stop", 10, 5, probabilities))]

    def score(self, calls: Iterator[tuple[str, RewardRequest]]) -> Iterator[list[tuple[str, RewardAnswer]]]:
        for key, _ in calls:
            yield [(key, RewardAnswer(draw(key) % 8192 / 1024 - 4, None, 10))]


class Workers:
    """Does what the worker programs do, in this process, with a scripted engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, context: Any, worker: str, command: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """What ``pipes.run`` does."""
        return [list(getattr(self, worker.partition("_")[0])(job)) for job in jobs]

    def generate(self, job: Mapping[str, Any]) -> Iterator[Any]:
        desk = Desk(job, lambda _: None, lambda: False)
        with mock.patch.object(generate, "chat_engine", return_value=self.engine):
            for batch in job["batches"]:
                yield asdict(generate.run_batch(batch, Sampling(**job["sampling"]), desk))

    def score(self, job: Mapping[str, Any]) -> Iterator[Any]:
        desk, model = Desk(job, lambda _: None, lambda: False), ModelRef(**job["model"])
        requests = {row["key"]: RewardRequest(row["messages"]) for row in pl.read_parquet(job["requests"]).to_dicts()}
        store = ResponseStore(desk.root, "reward", model.identity)
        yield asdict(desk.fulfil(requests, store, self.engine.score, lambda request: request.settings(desk.settings.identity), model.name))

    def embed(self, job: Mapping[str, Any]) -> Iterator[Any]:
        texts = pl.read_parquet(job["texts"]).unique("key").sort("key")
        vectors = [vector(text) for text in texts["text"]]
        ResponseStore(Path(job["store"]), "embedding", MiniLM.name).append(pl.DataFrame({"key": texts["key"], "vector": vectors}))
        yield from ()

    def verify(self, job: Mapping[str, Any]) -> Iterator[Any]:
        """Half of the solutions are right: the arithmetic of math-verify is not looked at here."""
        for row in pl.read_parquet(job["items"]).to_dicts():
            yield {row["key"]: (Grade.RIGHT, Grade.WRONG)[draw(row["known"], row["text"]) % 2].value}

    def tokens(self, job: Mapping[str, Any]) -> Iterator[Any]:
        """A word is a token."""
        rows = pl.read_parquet(job["rows"]).to_dicts()
        opened = [sum(len(each["content"].split()) for each in row["prompt"]) for row in rows]
        sides = [[row[side] and n + len(row[side].split()) for n, row in zip(opened, rows, strict=True)] for side in ("chosen", "rejected")]
        counts = dict(zip(PAIR_TOKENS, [[row["key"] for row in rows], opened, *sides], strict=True))
        pl.DataFrame(counts, schema=PAIR_TOKENS).write_parquet(job["out"])
        yield from ()

    def train(self, job: Mapping[str, Any]) -> Iterator[Any]:
        """An artefact whose weights are the digest of its inputs."""
        for each in job["jobs"]:
            out, rows = Path(each["out"]), pl.read_parquet(each["train"])
            out.mkdir(parents=True, exist_ok=True)
            held_out = len(pl.read_parquet(each["validation"])) if each["validation"] else 0
            counted = {"train": len(rows), "validation": held_out}
            manifest = {
                "model": {"name": f"rlhi-{each['name']}", "revision": each["inputs"] * 2, "path": "."},
                "start": each["model"] and {"name": each["model"]["name"], "revision": each["model"]["revision"], "is_on_hub": False},
                **{name: each[name] for name in ("inputs", "method", "extra", "settings")},
                "steps": [],
                "evaluations": [],
                "chosen": {"step": 1, "of": 1, "passed_over": []},
                "seconds": 1.0,
                "parameters": 1,
                "trained_rows": len(rows),
                "pairs": len(rows),
                "earlier_pairs": 0,
                "pairs_too_long": 0,
                "world_size": 1,
                "validation": {"displacement": 0.0, "memorisation": 0.0, "loss": 0.5},
                "validation_pairs": held_out,
                "data": each["origin"],
                "step0_loss": 0.5 if each["method"] == "kto" else math.log(2),
                "masks": {name: {"rows": n, "tokens": 4 * n, "loss_tokens": n} for name, n in counted.items() if n},
            }
            (out / "manifest.json").write_text(json.dumps(manifest))
        yield from ()


def vector(text: str) -> list[float]:
    """A unit vector; each word of the text has a direction of its own."""
    total = np.zeros(384)
    for word in text.lower().split():
        total[draw(word) % 384] += 1
    return [float(each) for each in (total / max(float(np.sqrt((total**2).sum())), 1.0)).astype(np.float32)]


def digest(frame: pl.DataFrame) -> str:
    """SHA-256 of the rows in any order; real numbers count with nine digits, so that no processor's rounding shows."""
    rounded = frame.with_columns(pl.col(pl.Float64, pl.Float32).round_sig_figs(9))
    rows = sorted(json.dumps(row, sort_keys=True, default=str, ensure_ascii=False) for row in rounded.to_dicts())
    return hashlib.sha256("\n".join([json.dumps({name: str(kind) for name, kind in frame.schema.items()}), *rows]).encode()).hexdigest()


def watched() -> dict[str, set[str]]:
    """From now on the settings that each step reads, by the step's name."""
    found: dict[str, set[str]] = {}
    get, players = View.__getattr__, View.players

    def read(view: View, name: str) -> Any:
        found.setdefault(view._asset, set()).add(f"{view._path}{name}")
        return get(view, name)

    def played(view: View, role: str) -> Any:
        found.setdefault(view._asset, set()).add(f"models.{role}")
        return players(view, role)

    View.__getattr__, View.players = read, played  # type: ignore[method-assign]
    return found


def scripted(town: Path) -> Engine:
    """An engine that says what assistants of a town's logs have said."""
    messages = pl.read_parquet(town / "wildchat.parquet")["conversation"].explode().struct.unnest()
    return Engine(messages.filter(role="assistant")["content"].unique().sort().to_list())


def all_jobs(chosen: Profile) -> Lake:
    """Run the jobs under a profile in this process, over all months and recipes; whoever calls has put `Workers` in place."""
    loaded, names = definitions.build(chosen), sorted(chosen.arms)
    with knowing(*MONTHS) as made:
        for job, first, last in (("preference_data", *MONTHS), *((job, names[0], names[-1]) for job in ("training", "benchmarks"))):
            loaded.resolve_job_def(job).execute_in_process(instance=made, tags=range_tags(first, last))
    return Lake(root=str(chosen.root / "lake"))


def run(folder: Path, name: str) -> Run:
    """Run both jobs under a profile."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(profile(folder, name)))
    os.environ["RLHI_DATA"] = str(folder / "data")
    pipes.run = Workers(scripted(folder / "town")).run  # type: ignore[assignment]
    read = watched()
    lake = all_jobs(profiles.load(str(file)))
    found = {f"table {each}": digest(lake.scan(each).collect()) for each in sorted(TABLES.keys() - ON_THE_PROCESSOR)}
    manifests = {file.parent: json.loads(file.read_text()) for file in sorted(Path(lake.root).rglob("manifest.json"))}
    trained = {folder: each["inputs"] for folder, each in manifests.items() if each["method"] != "none"}
    found |= {f"inputs {folder.relative_to(lake.root)}": inputs for folder, inputs in trained.items()}
    passed = compared({each: lake.scan(each).collect() for each in TABLES})
    return {"digests": found, "read": {step: sorted(paths) for step, paths in sorted(read.items())}, "passed": passed}


def main() -> None:
    """Print the digests of a profile as JSON, or record those of all."""
    if sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(json.dumps(run(Path(folder), sys.argv[1])) + "\n")
        return
    for name in PROFILES:
        (FOLDER / f"{name}.json").write_text(json.dumps(printed(name)["digests"], indent=1) + "\n")


@functools.cache
def printed(name: str) -> Run:
    """What a process of its own finds under a profile."""
    done = subprocess.run([sys.executable, "-m", "tests.snapshot", name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: Run = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
