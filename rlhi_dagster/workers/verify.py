"""Worker: compare the final answers of solutions with the known ones, so that no expression can hang or kill a run.

Job (Pipes extras): ``items`` (Parquet of ``key`` and ``math_answers.SOLUTION_SCHEMA``). Reports custom messages that map keys to
``math_answers.Grade``. Grades are cheap and the same every time, so they are not kept.

math-verify's time-outs rest on SIGALRM: they work in a main thread only, and not while a call into C code lasts. So each comparison is made
in the main thread of a child process with bounded memory, which is replaced when it does not answer in time or dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
from multiprocessing.connection import Connection

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.base.owned import work_for
from rlhi_dagster.base.progress import Progress
from rlhi_dagster.engines.ask import StoppedError
from rlhi_dagster.reasoning.math_answers import SOLUTION_SCHEMA, Grade, Solution, grade
from rlhi_dagster.workers.answering import Stop
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.parent import end_with_parent

SECONDS = 20.0
"""Most time for one comparison. math-verify itself gives up a step of it (two readings, one comparison) after 5 s."""
_START_SECONDS = 60.0
_MEMORY_BYTES = 4 * 2**30
_PER_MESSAGE = 500


class Grader:
    """A child process that grades; use as a context manager.

    Args:
        seconds: Most time for one comparison.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._start()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def __call__(self, item: Solution) -> Grade:
        """See ``math_answers.grade``; undecided where the child takes too long or dies."""
        if not self._child.is_alive():
            self._end()
            self._start()
        with contextlib.suppress(EOFError, OSError):
            self._line.send(item)
            if self._line.poll(self.seconds):
                return Grade(self._line.recv())
        self._end()
        self._start()
        return Grade.UNDECIDED

    def _start(self) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._line, other = spawning.Pipe()
        self._child = spawning.Process(target=_serve, args=(other,), daemon=True)
        self._child.start()
        other.close()
        if not self._line.poll(_START_SECONDS):
            self._end()
            raise TimeoutError(f"the process that runs math-verify did not start within {_START_SECONDS:.0f} s")
        self._line.recv()

    def _end(self) -> None:
        self._child.kill()
        self._child.join()
        self._line.close()


def _serve(line: Connection) -> None:
    """The child: grade what comes in until nothing comes any more."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    grade(Solution("1", "1"))  # loads math-verify before the clock runs
    line.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            line.send(grade(line.recv()).value)


def main() -> None:
    """Run the job that Pipes hands over."""
    end_with_parent()
    with open_dagster_pipes(), told():
        pipes = PipesContext.get()
        work_for(pipes.extras)
        items, stop = pl.read_parquet(pipes.extras["items"]), Stop(pipes.log.warning)
        report, done = Progress(pipes.log.info, "verification"), 0
        with Grader() as grader:
            for chunk in items.iter_slices(_PER_MESSAGE):
                grades = {}
                for key, *item in chunk.select("key", *SOLUTION_SCHEMA).iter_rows():
                    if stop():
                        raise StoppedError(f"stopped: {done:,} of {len(items):,} solutions verified; launch again for all of them")
                    grades[key] = grader(Solution(*item))
                    done += 1
                    report(done, len(items))
                pipes.report_custom_message(grades)


if __name__ == "__main__":
    main()
