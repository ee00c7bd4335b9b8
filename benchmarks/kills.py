"""SIGKILL at random moments of long stages: what comes out after another launch, what is left, and what is paid again.

What belongs here: undoing a stage of finished outputs, killing its run, its workers or both, launching again, and comparing with the run
that nobody disturbed. What does not: a threshold; results are recorded in ``README.md``. It needs finished outputs of the profile that the
environment names (``make demo``), works on a copy of them, and stops at the first difference. Run ``python benchmarks/kills.py --help``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil

from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.launching import TOGETHER, partition_column
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.models import read_manifest
from rlhi_dagster.store import erase, uses
from rlhi_dagster.training.artefacts import is_empty

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
STAGES = {
    "ingest": "conversations",
    "chat": "candidates",
    "scoring": "candidate_rewards",
    "embedding": "feedback_labels",
    "policy": "policy",
    "reward model": "reward_model",
    "training": "checkpoints",
    "online rounds": "online_pairs",
    "evaluation": "judgements",
}
"""The asset that each stage makes."""
WHO = ("parent", "worker", "both")
_WORKERS, _WARM_PARENT = "rlhi_dagster.workers", "rlhi_dagster.workers.parent"


@dataclass(frozen=True, slots=True)
class Outputs:
    """A folder of outputs and the environment that leads to it."""

    root: Path
    environment: Mapping[str, str]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Outputs:
        """The outputs that an environment leads to."""
        home = subprocess.run([BIN / "rlhi", "home"], env=environment, capture_output=True, text=True, check=True).stdout.strip()
        return cls(Path(home).parent, environment)

    @property
    def lake(self) -> Lake:
        """Tables and artefacts."""
        return Lake(root=str(self.root / "lake"))

    def asked(self, command: str) -> str:
        """What ``rlhi`` says."""
        return subprocess.run([BIN / "rlhi", command], env=self.environment, capture_output=True, text=True, check=True).stdout.strip()

    def launched(self, asset: str) -> subprocess.Popen[str]:
        """A run that makes an asset, in a process group of its own; its words go to ``kills.log`` in the outputs."""
        column = partition_column(asset)
        cut = ["--partition-range", self.asked("months" if column == "month" else "recipes")] if column else []
        home = {"DAGSTER_HOME": str(self.root / "dagster_home")}
        with (self.root / "kills.log").open("a") as log:
            command = [BIN / "dg", "launch", "--assets", ",".join(_together(asset)), *cut]
            return subprocess.Popen(
                command, env={**self.environment, **home}, stdout=log, stderr=log, start_new_session=True, text=True, cwd=ROOT
            )

    def undo(self, asset: str) -> None:
        """Take away what a stage made, and the answers that it rests on."""
        for name in _together(asset):
            _, used = uses.last_run(self.root / "responses", name)
            erase.remove(self.root / "responses", used["key"].to_list())
            shutil.rmtree(self.root / "lake" / name, ignore_errors=True)

    def made(self, asset: str) -> dict[str, str]:
        """What tells what a stage made: digests of tables and weights."""
        found = {}
        for name in _together(asset):
            if name in TABLES:
                found[name] = fingerprint(self.lake.scan(name).collect())
                continue
            for manifest in sorted((self.root / "lake" / name).glob("**/manifest.json")):
                folder = manifest.parent
                found[str(folder)] = "" if is_empty(folder) else read_manifest(folder)["model"]["revision"]
        return found

    def repeated(self) -> int:
        """Answers in the store whose key an older one has: paid twice."""
        files = list(self.root.glob("responses/*/*/segment-*.parquet"))
        keys = [pl.read_parquet(file, columns=["key"])["key"] for file in files]
        return sum(map(len, keys)) - (pl.concat(keys).n_unique() if keys else 0)

    def leftovers(self) -> list[Path]:
        """What nobody works on any more and nobody will."""
        hidden = [*self.root.glob("lake/**/.*.partial"), *self.root.glob("lake/**/.*.training"), *self.root.glob("responses/**/*.partial")]
        job_files = [file for file in self.root.glob("work/**/*") if file.is_file() and file.suffix != ".tokens"]
        return [*hidden, *job_files, *Path(tempfile.gettempdir()).glob("rlhi-rows-*")]


def _together(asset: str) -> Sequence[str]:
    return next((names for names in TOGETHER if asset in names), (asset,))


def processes(run: psutil.Process, who: str) -> list[psutil.Process]:
    """The processes of a run to kill: its own, those of its workers, or all. A forked worker is a child of the warm parent."""
    tree = [run, *run.children(recursive=True)]
    commands = {process.pid: " ".join(process.cmdline()) for process in tree}
    of_workers = [each for each in tree if _WORKERS in commands[each.pid]]
    warm = {each.pid for each in of_workers if _WARM_PARENT in commands[each.pid] and _WARM_PARENT not in commands.get(each.ppid(), "")}
    workers = [each for each in of_workers if each.pid not in warm]
    if who == "worker":
        return workers
    own = [each for each in tree if each not in of_workers]
    return own if who == "parent" else tree


def killed(outputs: Outputs, asset: str, who: str, after: float) -> bool:
    """Launch a stage and kill it after some seconds; whether it was still running, and there was somebody to kill."""
    run = outputs.launched(asset)
    deadline, hit = time.monotonic() + after, False
    while time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in processes(psutil.Process(run.pid), who):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                hit = True
    if who == "worker":
        run.wait()  # it tells that its worker was killed, and ends
    elif hit:
        run.kill()
        run.wait()
    return hit


def tried(outputs: Outputs, asset: str, moments: int, who: str, drawn: random.Random) -> str:
    """A row of the table: a stage killed at random moments.

    Raises:
        RuntimeError: What came out differs from the undisturbed run, or something is left.
    """
    outputs.undo(asset)
    started = time.monotonic()
    if outputs.launched(asset).wait():
        raise RuntimeError(f"{asset}: the undisturbed run failed, see {outputs.root / 'kills.log'}")
    seconds, expected = time.monotonic() - started, outputs.made(asset)
    hits = repeated = 0
    for _ in range(moments):
        outputs.undo(asset)
        before = outputs.repeated()
        hits += killed(outputs, asset, who, drawn.uniform(0.1, 1.0) * seconds)
        if outputs.launched(asset).wait():
            raise RuntimeError(f"{asset}: the launch after a kill failed, see {outputs.root / 'kills.log'}")
        if (found := outputs.made(asset)) != expected:
            raise RuntimeError(f"{asset}, {who} killed: {found} came out instead of {expected}")
        if left := outputs.leftovers():
            raise RuntimeError(f"{asset}, {who} killed: left {', '.join(map(str, left[:5]))}")
        repeated += outputs.repeated() - before
    return f"| {asset} | {who} | {seconds:.0f} | {hits} of {moments} | {hits} | 0 | {repeated} |"


def main() -> None:
    """Print a table: kills that met a running stage, equal results, leftovers, and answers paid twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outputs", type=Path, help="finished outputs: the value of RLHI_DATA that they were made with")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--who", nargs="+", choices=WHO, default=list(WHO))
    parser.add_argument("--moments", type=int, default=20, help="kills of each stage and kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        shutil.copytree(given.outputs, data)
        outputs = Outputs.of({**os.environ, "RLHI_DATA": str(data)})
        heads = ("stage", "killed", "s undisturbed", "kills met it", "equal results", "left over", "answers paid twice")
        print(f"| {' | '.join(heads)} |\n|---|---|{'--:|' * 5}")
        for stage in given.stages:
            for who in given.who:
                print(tried(outputs, STAGES[stage], given.moments, who, random.Random(given.seed)), flush=True)


if __name__ == "__main__":
    main()
