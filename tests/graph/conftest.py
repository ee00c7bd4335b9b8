"""A miniature of the sample: the same jobs on a small town with a very small policy, launched as people launch them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import yaml
from filelock import FileLock

from rlhi_dagster import profiles
from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.simulation.town.__main__ import write
from rlhi_dagster.simulation.town.logs import TownSettings
from tests.built import town_settings

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Run:
    """One data root with the environment that leads to it."""

    env: dict[str, str]
    lake: Lake

    def launch(self, job: str, partitions: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(job, partitions), env=self.env, capture_output=True, text=True, check=False)

    def launch_and_kill(self, job: str, partitions: str, when: Callable[[], bool], within: float = 240.0) -> None:
        """Start a job in a process group of its own and kill all of it with SIGKILL as soon as ``when`` holds."""
        process = subprocess.Popen(
            self._command(job, partitions), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + within
        while not when():
            assert process.poll() is None, f"{job} ended before it could be killed"
            assert time.monotonic() < deadline, f"{job} did not get far enough to be killed"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def copied(self, folder: Path) -> Run:
        """The run with everything that it made, in a folder of its own."""
        origin = Path(self.env["RLHI_PROFILE"]).parent
        shutil.copytree(origin, folder)
        moved = {name: value.replace(str(origin), str(folder)) for name, value in self.env.items()}
        # Another path of the profile, another folder of outputs.
        root = profiles.data_root(moved)
        Path(moved["DAGSTER_HOME"]).parent.rename(root)
        return Run(moved | {"DAGSTER_HOME": str(root / "dagster_home")}, Lake(root=str(root / "lake")))

    def months(self) -> str:
        return subprocess.run([BIN / "rlhi", "months"], env=self.env, capture_output=True, text=True, check=True).stdout.strip()

    def recipes(self) -> str:
        return subprocess.run([BIN / "rlhi", "recipes"], env=self.env, capture_output=True, text=True, check=True).stdout.strip()

    def fingerprints(self) -> dict[str, str]:
        return {name: fingerprint(self.lake.scan(name).collect()) for name in TABLES if self.has(name)}

    def has(self, name: str) -> bool:
        return any(Path(self.lake.root, name).glob("*.parquet"))

    def table(self, name: str) -> pl.DataFrame:
        return self.lake.scan(name).collect()

    @staticmethod
    def _command(job: str, partitions: str) -> list[str]:
        return [str(BIN / "dg"), "launch", "--job", job, "--partition-range", partitions]


def miniature(folder: Path, source: str | None = None) -> Run:
    """A run of the miniature in ``folder``; its profile is the sample's with small numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    town = folder / "town"
    if not town.exists():
        # Of the corrections few are right, and one recipe trains on them.
        write(town, TownSettings(users=40, months=2), dialogues=800, problems=160)
    settings = town_settings()
    quick = {"epochs": 1, "batch_size": 16, "micro_batch_size": 16, "save_steps": 2, "logging_steps": 1}
    settings["name"] = "miniature"
    settings["source"]["location"] = str(town / "wildchat*.parquet")
    settings["truth"] = str(town / "truth")
    settings["reasoning"]["prm800k"] = str(town / "prm800k.jsonl")
    settings["engine"] |= {"chunk_size": 64, "batch_size": 64}
    settings["sampling"]["max_new_tokens"] = 48
    settings["policy"]["town"] |= {"layers": 1, "width": 64, "feed_forward_width": 128, "heads": 2}
    settings["policy"]["corpus"] = str(town / "corpus.parquet")
    settings["policy"]["training"] |= {"epochs": 4, "batch_size": 8, "micro_batch_size": 8, "logging_steps": 20, "save_steps": 100}
    settings["reward"]["training"] |= quick
    settings["sft"] |= quick
    settings["dpo"] |= quick
    settings["sdpo"] |= quick
    settings["dpo_on_rewards"] |= quick
    # So small a policy writes much broken text: what counts here is that everything runs and nothing is lost.
    # Broken text meets no feedback.
    settings["rewrites"] |= {"min_feedback_probability": 0.3, "inapplicable": "keep", "filters": {"min_meets_feedback": None}}
    settings["candidates"] |= {"count": 4, "max_requests": 8, "min_margin": 0.0}
    settings["max_pairs"] = settings["reward"]["max_pairs"] = 32
    # One of each method and source; the others differ from these in what they draw.
    settings["project_recipes"] = ["sft_rewrites", "dpo_rewrites", "dpo_rewrites_no_persona", "dpo_rewards", "dpo_rewards_online"]
    settings["project_recipes"] += ["dpo_reasoning", "dpo_edits", "kto_thumbs", "sdpo_follow_ups"]
    settings["evaluation"] |= {"requests_per_user": 1, "arithmetic_problems": 4}
    profile = folder / "miniature.yaml"
    profile.write_text(yaml.safe_dump(settings))
    data = folder / "data"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RLHI_", "DAGSTER_"))}
    env |= {"RLHI_PROFILE": str(profile), "RLHI_DATA": str(data), "PYTHONWARNINGS": "ignore"}
    env |= {"RLHI_SOURCE": source} if source else {}
    home = subprocess.check_output([BIN / "rlhi", "home"], env=env, text=True).strip()
    return Run(env | {"DAGSTER_HOME": home}, Lake(root=str(Path(home).parent / "lake")))


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both jobs, run once from nothing; test processes that run abreast share the run, so nobody writes to it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "undisturbed"
    is_done = shared / "done"
    with FileLock(f"{shared}.lock"):
        run = miniature(shared)
        if not is_done.exists():
            for job, partitions in (("preference_data", run.months()), ("training", run.recipes())):
                done = run.launch(job, partitions)
                assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            is_done.touch()
    return run


@pytest.fixture(scope="session")
def undisturbed(origin: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the run of both jobs, for everybody who does not change it."""
    return origin.copied(tmp_path_factory.mktemp("copy") / "run")


@pytest.fixture
def fresh(tmp_path: Path) -> Run:
    """A run of the miniature with nothing materialized."""
    return miniature(tmp_path)


@pytest.fixture
def trained(origin: Run, tmp_path: Path) -> Callable[..., Run]:
    """Makes a run of the miniature with a policy, a reward model and vectors, and nothing else; ``source`` replaces its conversations."""

    def made(source: str | None = None) -> Run:
        shutil.copytree(Path(origin.env["RLHI_PROFILE"]).parent / "town", tmp_path / "town")
        run = miniature(tmp_path, source)
        for name in ("lake/policy", "lake/reward_model", "responses/embedding"):
            shutil.copytree(Path(origin.lake.root).parent / name, Path(run.lake.root).parent / name)
        return run

    return made
