"""Kills of a stage: three moments of reading logs, and who is killed of a run with workers."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import kills


@pytest.mark.slow
def test_reading_logs_that_is_killed_three_times_gives_what_an_undisturbed_run_gives(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "How tall are tulips?"}, {"role": "assistant", "content": "About 40 cm, as most say."}]
    rows = [{"id": f"c{n}", "user": f"u{n % 9}", "created_at": "2023-04-02T10:00:00Z", "messages": said} for n in range(400)]
    (tmp_path / "logs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    given = {
        "RLHI_DATA": str(tmp_path / "data"),
        "RLHI_SOURCE": str(tmp_path / "logs.jsonl"),
        "RLHI_SALT": "0f1c8a5be27d4936b1c07e9d53a8f642",
    }
    outputs = kills.Outputs.of({**os.environ, **given})
    row = kills.tried(outputs, "conversations", 3, "both", random.Random(0))
    assert row.startswith("| conversations | both | ")
    assert row.endswith("| 0 | 0 |"), "nothing is left, nothing was paid"
    assert outputs.made("conversations").keys() == {"conversations", "quarantine", "superseded", "explicit_feedback"}


def test_workers_and_their_run_are_told_apart() -> None:
    def process(pid: int, parent: int, command: str) -> Any:
        return SimpleNamespace(pid=pid, ppid=lambda: parent, cmdline=command.split)

    run = process(1, 0, "python dg launch")
    step = process(2, 1, "python -m dagster api")
    warm = process(3, 2, "python -m rlhi_dagster.workers.parent 7")
    forked, fresh = process(4, 3, "python -m rlhi_dagster.workers.parent 7"), process(5, 2, "python -m rlhi_dagster.workers.generate")
    run.children = lambda recursive: [step, warm, forked, fresh]
    assert [each.pid for each in kills.processes(run, "worker")] == [4, 5]
    assert [each.pid for each in kills.processes(run, "parent")] == [1, 2]
    assert [each.pid for each in kills.processes(run, "both")] == [1, 2, 3, 4, 5]
