"""Files that a process owns while it lives, and the making of a partition: killed owners are told from living ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.base import owned
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import USERS
from rlhi_dagster.conversations.sources.rows import SourceRows  # noqa: F401  # the folder of spilled rows is named there
from rlhi_dagster.graph import declare
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.store.responses import ResponseStore

ROOT = Path(__file__).parents[2]


@contextmanager
def another(program: str, *given: object) -> Iterator[subprocess.Popen[str]]:
    """Another process, once it has said that it is there; killed in the end."""
    command = [sys.executable, "-c", f"import sys, time\nfrom pathlib import Path\n{program}", *map(str, given)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_a_killed_writer_of_a_table_left_goes_with_the_next_write_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    lake = Lake(root=str(tmp_path / "lake"))
    program = """
from rlhi_dagster.base.lake import Lake
writer = Lake(root=sys.argv[1]).writer("users")
print("there", flush=True)
time.sleep(99)
"""
    folder = lake.table_path("users").parent
    with another(program, lake.root) as first, another(program, lake.root):
        left = set(folder.iterdir())
        assert len(left) == 2
        first.kill()
        first.wait()
        lake.write("users", USERS.empty())
        (still,) = left & set(folder.iterdir())
        assert not owned.is_left(still)
    lake.write("users", USERS.empty())
    assert [file.name for file in folder.iterdir()] == ["table.parquet"]


def test_a_killed_writer_of_answers_leaves_nothing_for_long(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "chat", "m@r1")
    program = """
from rlhi_dagster.store.segments import published
with published(Path(sys.argv[1])) as stream:
    stream.write(b"words of a user")
    stream.flush()
    print("there", flush=True)
    time.sleep(99)
"""
    with another(program, store.folder / "segment-1-2.parquet"):
        assert store.sweep() == 0
        assert len(list(store.folder.iterdir())) == 1
    assert store.sweep() == 1
    assert list(store.folder.iterdir()) == []


def test_rows_that_a_killed_process_spilled_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = """
import tempfile
tempfile.tempdir = sys.argv[1]
from rlhi_dagster.base.owned import TemporaryFolder
folder = TemporaryFolder("rlhi-rows-")
(folder.path / "rows").write_text("words of a user")
print("there", flush=True)
time.sleep(99)
"""
    with another(program, tmp_path):
        folder = owned.TemporaryFolder("rlhi-rows-")
        assert len(list(tmp_path.iterdir())) == 2
        folder.close()
        assert len(list(tmp_path.iterdir())) == 1
    folder = owned.TemporaryFolder("rlhi-rows-")
    assert list(tmp_path.iterdir()) == [folder.path]
    del folder
    assert list(tmp_path.iterdir()) == []


HOLDS = """
from rlhi_dagster.base import owned
with owned.alone([Path(sys.argv[1])], "checkpoints of dpo", "run1", print):
    print("there", flush=True)
    time.sleep(float(sys.argv[2]))
"""
WORKS = """
from rlhi_dagster.base import owned
owned.work_for({"locks": sys.argv[1:]})
print("there", flush=True)
time.sleep(99)
"""


def test_who_comes_second_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    with another(HOLDS, tmp_path / "dpo.lock", 1.5) as first:
        started = time.monotonic()
        with owned.alone([tmp_path / "dpo.lock"], "checkpoints of dpo", "run2", said.append):
            assert time.monotonic() - started > 0.5
            assert first.wait(30) == 0
    [line] = said
    assert line.startswith(f"checkpoints of dpo is being made by run run1 (process {first.pid} on ")
    assert line.endswith("): this run waits for it, and then takes what is there")


def test_the_lock_of_a_killed_run_is_taken_over_and_its_workers_are_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "dpo.lock"
    with another(HOLDS, file, 99) as first, another(WORKS, file.with_suffix(".working")) as worker:
        first.kill()
        first.wait()

        def say(line: str) -> None:
            said.append(line)
            worker.kill()

        with owned.alone([file], "checkpoints of dpo", "run2", say) as locks:
            assert worker.wait(30) == -signal.SIGKILL
            assert locks == [str(file.with_suffix(".working"))]
    assert said == [
        "workers of a run of checkpoints of dpo that has ended still finish what they have in hand: "
        "this run waits for it, and then takes what is there"
    ]


def test_partitions_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with another(HOLDS, tmp_path / "dpo.lock", 99), owned.alone([tmp_path / "kto.lock"], "", "", lambda line: pytest.fail(line)):
        pass


def test_a_step_is_made_by_one_run_at_a_time_and_a_plan_waits_for_nobody(tmp_path: Path) -> None:
    file = tmp_path / "lake" / ".locks" / "users" / "table.lock"
    seen: list[tuple[Sequence[str], bool]] = []

    def body(context: dg.AssetExecutionContext, workers: dg.ResourceParam[Workers]) -> dg.MaterializeResult[pl.DataFrame]:
        """One row is a user."""
        seen.append((workers.locks, file.is_file() and not owned.is_left(file)))
        return dg.MaterializeResult(value=USERS.empty())

    # Dagster reads them as they are, and here they are texts.
    body.__annotations__ = {"context": dg.AssetExecutionContext, "workers": dg.ResourceParam[Workers]}
    users = declare.asset("users", "conversations", set())(body).build(declare.Place(profiles.current()))
    planner = type("Planner", (Workers,), {"plans": True})
    for workers in (Workers(tmp_path), planner(tmp_path)):
        given = {"workers": workers, "io_manager": TableIOManager(root=str(tmp_path / "lake"))}
        assert dg.materialize([users], resources=given).success
        assert owned.is_left(file), "nobody holds it any more"
    assert seen == [((str(file.with_suffix(".working")),), True), ((), False)]


def test_a_partial_that_is_given_its_name_stays_and_another_one_goes(tmp_path: Path) -> None:
    for is_renamed in (True, False):
        partial = owned.Partial(tmp_path / "file")
        partial.path.write_text("x")
        assert not owned.is_left(partial.path)
        if is_renamed:
            os.replace(partial.path, tmp_path / "file")  # noqa: PTH105
        partial.close()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
