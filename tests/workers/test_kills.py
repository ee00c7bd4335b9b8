"""Generation killed at random points, and told to stop: the answers are those of an undisturbed run, and little is asked twice."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.engines.requests import chat_rows
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.store.responses import ResponseStore
from tests import forked

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
SAMPLING = Sampling(0.6, 0.9, 16, 7)
CHUNK = 8
SETTINGS = TransformersSettings(device="cpu", dtype="float32", batch_size=4, chunk_size=CHUNK)
KILLS = 20

# One process loads the libraries and forks a child for each run: only the children are killed.
PROGRAM = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from rlhi_dagster.engines.base import Sampling
from rlhi_dagster.engines.transformers import TransformersChatEngine
from rlhi_dagster.workers.answering import Desk, Stop
from rlhi_dagster.workers.generate import run_batch

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
chunk = TransformersChatEngine._chunk

def logged(self, calls, sampling):
    with open(given["asked"], "a") as file:
        file.write("".join(key + "\\n" for key, _ in calls))
    return chunk(self, calls, sampling)

TransformersChatEngine._chunk = logged

def work(store):
    log = lambda line: print(line, flush=True)
    desk = Desk({**given["job"], "store": store}, log, Stop(log))
    run_batch(given["batch"], Sampling(**given["sampling"]), desk)

def child(store):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(store)
            code = 0
        finally:
            os._exit(code)
    return pid
"""
KILL = """
started = time.monotonic()
assert os.waitpid(child(given["undisturbed"]), 0)[1] == 0
duration, drawn, hits = time.monotonic() - started, random.Random(3), 0
Path(given["asked"]).unlink()
while hits < given["kills"]:
    pid = child(given["store"])
    time.sleep(drawn.uniform(0, duration / 8))
    os.kill(pid, signal.SIGKILL)
    if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
        hits += 1
    else:
        shutil.rmtree(given["store"])
        Path(given["asked"]).unlink()
print(json.dumps({"stored": len(list(Path(given["store"]).rglob("segment-*.parquet")))}), flush=True)
assert os.waitpid(child(given["store"]), 0)[1] == 0
"""
STOP = """
work(given["store"])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> ModelRef:
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llama(folder, TEXTS, max_position_embeddings=160, initializer_range=0.4)
    return ModelRef("tiny", "r1", str(folder))


class Job:
    """Requests of a model, and where a run of them leaves its traces."""

    def __init__(self, folder: Path, model: ModelRef, count: int) -> None:
        self.folder, self.model = folder, model
        requests = [ChatRequest([{"role": "user", "content": TEXTS[n % 3] * (1 + n % 4)}], n) for n in range(count)]
        keyed = {request.key(model, SAMPLING, SETTINGS.identity): request for request in requests}
        self.keys = list(keyed)
        chat_rows(keyed).write_parquet(folder / "requests.parquet")
        self.asked = folder / "asked"

    def program(self, rest: str) -> list[str]:
        given = {
            "job": {"engine": SETTINGS.model_dump(), "limits": {}},
            "batch": {"model": self.model.to_dict(), "requests": str(self.folder / "requests.parquet")},
            "sampling": {"temperature": 0.6, "top_p": 0.9, "max_new_tokens": 16, "seed": 7},
            "store": str(self.folder / "store"),
            "undisturbed": str(self.folder / "undisturbed"),
            "asked": str(self.asked),
            "kills": KILLS,
        }
        return [PROGRAM + rest, json.dumps(given)]

    def store(self, name: str = "store") -> ResponseStore:
        return ResponseStore(self.folder / name, "chat", self.model.identity)

    def rows(self, name: str = "store") -> pl.DataFrame:
        return self.store(name).lookup(pl.Series("key", self.keys))

    def stored(self, name: str = "store") -> int:
        """Rows of all segments, repeated ones counted."""
        files = list(self.store(name).folder.glob("segment-*.parquet"))
        return sum(pl.scan_parquet(file).select(pl.len()).collect().item() for file in files)


@pytest.mark.slow
def test_twenty_kills_at_random_points_leave_the_table_of_an_undisturbed_run(tmp_path: Path, model: ModelRef) -> None:
    job = Job(tmp_path, model, 240)
    done = forked.run(*job.program(KILL))
    assert done.returncode == 0, done.stderr[-3000:]
    assert job.rows().equals(job.rows("undisturbed"))
    assert job.stored() == job.stored("undisturbed") == len(job.keys), "a kept answer was asked again"
    asked = job.asked.read_text().split()
    assert set(asked) == set(job.keys)
    assert len(asked) <= len(job.keys) + KILLS * CHUNK, "a kill cost more than its open chunk"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_open_chunk_and_says_how_to_go_on(tmp_path: Path, model: ModelRef, number: signal.Signals) -> None:
    job = Job(tmp_path, model, 400)
    with forked.started(*job.program(STOP)) as (process, ended):
        deadline = time.monotonic() + 120
        while not job.asked.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        stopped = ended()
    assert stopped.returncode == 1
    assert f"{number.name}: finishing the requests in hand" in stopped.stdout
    asked = job.asked.read_text().split()
    assert f"stopped: {len(asked)} of 400 requests answered and kept; launch again to continue" in stopped.stderr
    assert 0 < len(asked) < 400
    assert job.stored() == len(asked) == len(set(asked)), "what was in hand is kept"
    again = forked.run(*job.program(STOP))
    assert again.returncode == 0, again.stderr[-3000:]
    asked = job.asked.read_text().split()
    assert sorted(asked) == sorted(job.keys), "every request was asked once"
    assert [answer.error for answer in read_chat(job.keys, job.store())] == [None] * 400
