"""Programs of tests in a child of a warm process: what ``python -c`` would do, without seconds of imports for each."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from rlhi_dagster.graph import starting

ROOT = Path(__file__).parents[1]


@contextmanager
def started(program: str, *arguments: str) -> Iterator[tuple[starting.Started, Any]]:
    """A child that runs the text of a program with ``sys.argv[1:]`` as given, and what waits for its end."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("output", "errors")]
        for file in files:
            file.touch()
        command = [sys.executable, "-m", "tests.forked", *map(str, files), program, *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        child = starting.start(command, environment, str(ROOT))
        yield child, lambda: CompletedProcess(command, child.wait(), *(file.read_text() for file in files))


def run(program: str, *arguments: str) -> CompletedProcess[str]:
    """Run the text of a program to its end; its exit status and what it said."""
    with started(program, *arguments) as (_, ended):
        done: CompletedProcess[str] = ended()
        return done


def main(output: str, errors: str, program: str, *arguments: str) -> None:
    """Be the program, with files as its standard streams."""
    for number, file in enumerate((output, errors), 1):
        with Path(file).open("a") as opened:
            os.dup2(opened.fileno(), number)
    sys.argv = ["-c", *arguments]
    exec(program, {"__name__": "__main__"})


if __name__ == "__main__":
    main(*sys.argv[1:])
