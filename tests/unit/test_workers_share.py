"""What each of several workers has of the machine, and how work is divided among them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.engines.forecast import Limits
from rlhi_dagster.engines.settings import OpenAISettings, TransformersSettings, WorkerSettings
from rlhi_dagster.graph import resources
from rlhi_dagster.graph.resources import TrainingRun, Workers, _evenly
from rlhi_dagster.training.settings import TrainingSettings
from rlhi_dagster.workers import share

LOCAL = TransformersSettings(device="cpu", dtype="float32", batch_size=1, chunk_size=1)


@given(calls=st.lists(st.integers(), min_size=1, max_size=50), processes=st.integers(1, 9))
def test_calls_are_divided_without_loss_in_order_and_evenly(calls: list[int], processes: int) -> None:
    shares = Workers(Path(), settings=WorkerSettings(processes=processes))._shares(calls, LOCAL)
    assert [call for part in shares for call in part] == calls
    assert len(shares) <= processes
    assert all(shares)
    assert max(map(len, shares)) == -(-len(calls) // processes)


def test_a_server_gets_all_calls_of_one_worker() -> None:
    workers = Workers(Path(), settings=WorkerSettings(processes=3))
    assert workers._shares([1, 2, 3], OpenAISettings(base_url="http://localhost/v1", chunk_size=1)) == [[1, 2, 3]]


def test_long_trainings_are_begun_first_and_each_is_in_one_share() -> None:
    def run(name: str, rows: int, epochs: float) -> TrainingRun:
        return TrainingRun(name, "dpo", None, pl.DataFrame({"row": range(rows)}), None, TrainingSettings(epochs=epochs), Path(), {})

    runs = [run("a", 10, 1), run("b", 30, 1), run("c", 10, 2), run("d", 5, 1)]
    assert _evenly([each.name for each in runs], [each.work for each in runs], 2) == [["b", "d"], ["c", "a"]]
    assert _evenly(["a"], [1.0], 2) == [["a"]]


def test_limits_hold_for_all_workers_together() -> None:
    limits = Limits(max_requests=5, max_tokens=None, max_hours=2, max_usd=3).shared(2)
    assert limits == Limits(max_requests=3, max_tokens=None, max_hours=2, max_usd=1.5)


@pytest.mark.parametrize(
    ("visible", "count", "mine"),
    [(None, 4, ["0,2", "1,3"]), ("4,5,6", 3, ["4,6", "5"]), (None, 1, ["0", "0"]), (None, 0, [None, None])],
)
def test_each_worker_sees_its_own_gpus(monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, mine: list[str | None]) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    found = []
    for number in (0, 1):
        monkeypatch.setenv("OMP_NUM_THREADS", "6")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        share.take({share.KEY: {"number": number, "of": 2, "threads": (None, 1)[number]}})
        found.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert found == mine
    assert told == [3, 1]


@pytest.mark.parametrize(("count", "threads"), [(1, [4]), (2, [2, 2]), (3, [2, 2])])
def test_a_training_has_the_threads_of_those_that_are_not_there(count: int, threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(Workers, "_training_job", lambda self, context, run: {"method": run.method})
    monkeypatch.setattr(Workers, "_run", lambda self, context, worker, jobs: started.extend(jobs))
    monkeypatch.setattr(Workers, "_note_references", lambda self, context, runs: None)
    monkeypatch.setattr(resources, "read_manifest", lambda folder: {})
    runs = [TrainingRun(str(each), "dpo", None, pl.DataFrame({"row": [1]}), None, TrainingSettings(), Path(), {}) for each in range(count)]
    Workers(Path(), settings=WorkerSettings(processes=2, threads=2)).train(None, runs)  # type: ignore[arg-type]
    assert [job[share.KEY]["threads"] for job in started] == threads
