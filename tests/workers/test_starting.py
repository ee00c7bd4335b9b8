"""Workers from a warm parent: a forked one is what a fresh one would be, ends with whoever asked for it, and nothing starts unasked."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from rlhi_dagster.graph import starting
from rlhi_dagster.workers import parent

ROOT = Path(__file__).parents[2]
MODULES = {
    # What a program can see of how it was started; ``late`` waits for the parent to have imported everything.
    "seen": """
        import atexit, json, logging, os, random, signal, sys
        atexit.register(print, "left by the door")
        loaded = {name: name in sys.modules for name in ("polars", "trl")}
        import numpy, torch
        print(json.dumps({
            "loaded": loaded,
            "threads": sorted({open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")[1:]}),
            "drawn": [random.random(), float(numpy.random.random()), torch.initial_seed(), os.getpid()],
            "parent": os.getppid(),
            "same": {
                "argv": sys.argv,
                "main": [__name__, __spec__.name, sys.modules["__main__"].argument],
                "environment": dict(sorted(os.environ.items())),
                "folder": [os.getcwd(), sys.path],
                "group": [os.getpgrp(), os.getsid(0)],
                "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
                "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
                "logging": [logging.root.level, len(logging.root.handlers)],
                "torch": [torch.get_num_threads(), torch.get_num_interop_threads(), torch.cuda.is_initialized()],
                "input": sys.stdin.read(),
                "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering],
            },
        }), flush=True)
        print("to stderr", file=sys.stderr)
        sys.exit(int(sys.argv[1]))
    """,
    "ends": """
        import json, os, signal, sys, time
        how = sys.argv[1]
        if how == "raise":
            json.loads("{")
        if how == "told":
            raise SystemExit("one sentence")
        if how == "wait":
            open(sys.argv[2], "w").write(str(os.getpid()))
            signal.signal(signal.SIGTERM, lambda *given: sys.exit(open(sys.argv[2] + ".stopped", "w").close()))
            time.sleep(60)
        if how == "interrupted":
            signal.signal(signal.SIGINT, lambda *given: sys.exit(5))
            open(sys.argv[2], "w").write(str(os.getpid()))
            time.sleep(60)
        os.kill(os.getpid(), int(how))
    """,
}
ASKS = """
import os, sys
from rlhi_dagster.graph import starting
started = starting.start([sys.executable, "-m", "ends", "wait", sys.argv[1]], dict(os.environ), os.getcwd())
sys.exit(started.wait())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of programs that find ``MODULES``."""
    folder = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text("argument = 7\n" + textwrap.dedent(text))
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} | {"PYTHONPATH": ":".join(paths)}


@pytest.fixture(scope="module", autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    if starting._latest:
        starting._latest.end()
        starting._latest = None


@contextmanager
def streams(folder: Path) -> Iterator[Callable[[], tuple[str, str]]]:
    """The standard streams of this process are files; reads what has been written to the last two since the last time."""
    kept = [os.dup(number) for number in range(3)]
    files = [folder / name for name in ("input", "output", "errors")]
    files[0].write_text("given")

    def written() -> tuple[str, str]:
        found = files[1].read_text(), files[2].read_text()
        _open(files)
        return found

    _open(files)
    try:
        yield written
    finally:
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
            os.close(copy)


def _open(files: list[Path]) -> None:
    flags = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2)
    for number, (file, flag) in enumerate(zip(files, flags, strict=True)):
        opened = os.open(file, flag)
        os.dup2(opened, number)
        os.close(opened)


def imported() -> None:
    """Wait until the parent has imported everything, which is when it sleeps until it is asked."""
    assert starting._latest
    process = psutil.Process(starting._latest._process.pid)
    deadline, before = time.monotonic() + 120, -1.0
    while before != (before := sum(process.cpu_times()[:2])) or not _maps(process.pid, "torch"):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _maps(pid: int, library: str) -> bool:
    return library in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.slow
def test_a_forked_worker_is_what_a_fresh_one_would_be(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "seen", "3"]
    own = {"DAGSTER_PIPES_CONTEXT": "c", "DAGSTER_PIPES_MESSAGES": "m"}
    found = []
    with streams(tmp_path) as written:
        for order in range(4):
            if order == 0:
                started: starting.Started = subprocess.Popen(command, env=environment | own, cwd=ROOT)
            else:
                started = starting.start(command, environment | own, str(ROOT))
            assert started.wait() == 3
            output, errors = written()
            assert output.splitlines()[1:] == ["left by the door"]
            assert errors == "to stderr\n"
            found.append(json.loads(output.splitlines()[0]))
            if order == 1:
                imported()
    fresh, *forked = found
    assert fresh["loaded"] == {"polars": False, "trl": False}
    for warm in forked:
        assert warm["same"] == fresh["same"]
    for warm in forked[1:]:
        assert warm["loaded"] == {"polars": False, "trl": True}
        assert set(warm["threads"]) <= {"jemalloc_bg_thd", "python"}, "nothing but what restarts in a child"
    assert len({warm["parent"] for warm in forked}) == 1
    for drawn in zip(*(each["drawn"] for each in found), strict=True):
        assert len(set(drawn)) == len(found), "two workers drew the same"


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [("raise", 1, "json.decoder.JSONDecodeError: Expecting property name"), ("told", 1, "one sentence\n"), ("9", -9, ""), ("15", -15, "")],
)
def test_it_ends_as_a_fresh_one_ends(environment: dict[str, str], tmp_path: Path, how: str, status: int, said: str) -> None:
    with streams(tmp_path) as written:
        started = starting.start([sys.executable, "-m", "ends", how], environment, str(ROOT))
        assert started.wait() == started.wait() == status
        assert said in written()[1]


def test_a_signal_reaches_it_and_patience_ends(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ends", "interrupted", str(tmp_path / "pid")]
    for program in (command, ["env", *command]):
        started = starting.start(program, environment, str(ROOT))
        with pytest.raises((TimeoutError, subprocess.TimeoutExpired)):
            started.wait(0.1)
        _until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "")
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 5
        started.send_signal(signal.SIGINT)
        (tmp_path / "pid").unlink()


def test_it_is_told_to_stop_when_the_run_is_killed(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "pid"
    run = subprocess.Popen([sys.executable, "-c", ASKS, str(file)], env=environment, cwd=ROOT)
    _until(lambda: file.is_file() and file.read_text() != "")
    worker = psutil.Process(int(file.read_text()))
    forks = worker.parent()
    assert forks
    assert forks.ppid() == run.pid
    run.send_signal(signal.SIGKILL)
    run.wait()
    psutil.wait_procs([worker, forks], timeout=30)
    assert not worker.is_running()
    assert not forks.is_running()
    assert (tmp_path / "pid.stopped").is_file(), "it was told, not killed"


def test_a_fresh_worker_whose_run_was_killed_while_it_was_imported_ends(environment: dict[str, str]) -> None:
    program = """
import os, sys
from rlhi_dagster.graph import starting
sys.platform = "elsewhere"  # so that nothing is forked
worker = "import os; from rlhi_dagster.workers import parent; print(os.environ[parent.STARTED_BY], os.getppid(), flush=True);"
worker += "os.environ[parent.STARTED_BY] = os.environ.get('DEAD', os.environ[parent.STARTED_BY]); parent.end_with_parent(); print('works')"
sys.exit(starting.start([sys.executable, "-c", worker], dict(os.environ), os.getcwd()).wait())
"""
    for dead in ({}, {"DEAD": "1"}):
        run = subprocess.run([sys.executable, "-c", program], env=environment | dead, cwd=ROOT, capture_output=True, text=True, timeout=120)
        told, *rest = run.stdout.splitlines()
        assert len(set(told.split())) == 1, "it knows who started it"
        assert (run.returncode, rest) == ((1, []) if dead else (0, ["works"])), run.stderr
        assert ("the run that started this worker has ended" in run.stderr) == bool(dead)


def test_every_program_of_a_worker_ends_with_its_run() -> None:
    for file in sorted((ROOT / "rlhi_dagster" / "workers").glob("*.py")):
        mains = [each for each in ast.parse(file.read_text()).body if isinstance(each, ast.FunctionDef) and each.name == "main"]
        for main in mains if file.stem not in {"parent"} else ():
            first = ast.unparse(main.body[1])
            assert first == "end_with_parent()" or file.stem.startswith("train_"), f"{file.name}: main does {first} first"


def test_a_parent_that_was_killed_is_told_by_how_it_ended_and_another_takes_its_place(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "pid"
    started = starting.start([sys.executable, "-m", "ends", "wait", str(file)], environment, str(ROOT))
    _until(lambda: file.is_file() and file.read_text() != "")
    first = starting._latest
    assert first
    first._process.kill()
    assert started.wait(30) == -signal.SIGKILL
    assert starting.start([sys.executable, "-m", "ends", "told"], environment, str(ROOT)).wait() == 1
    assert starting._latest is not first


def test_another_environment_has_another_parent(environment: dict[str, str]) -> None:
    first = starting._parent(environment, str(ROOT))
    assert starting._parent(environment | {"DAGSTER_PIPES_CONTEXT": "other"}, str(ROOT)) is first
    second = starting._parent(environment | {"HF_HUB_OFFLINE": "1"}, str(ROOT))
    assert second is not first
    assert not first.is_alive
    assert second.is_alive


@pytest.mark.parametrize(("platform", "python"), [("darwin", sys.executable), ("linux", "/usr/bin/env")])
def test_fresh_where_forking_is_unsafe_and_with_another_interpreter(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, platform: str, python: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(starting, "_parent", lambda *given: pytest.fail("a parent was asked"))
    command = [python, *([sys.executable] if python != sys.executable else []), "-m", "ends", "9"]
    started = starting.start(command, environment, str(ROOT))
    assert isinstance(started, subprocess.Popen)
    assert started.wait() == -9


def test_a_parent_with_a_device_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    parent.check_no_device()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="has initialised CUDA"):
        parent.check_no_device()


def _until(holds: Callable[[], bool], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
