"""What a process owns while it lives: files that are being written, and the making of a partition.

An example first. A run that writes ``users/table.parquet`` writes ``users/.table.parquet.4f….partial`` and holds the kernel's lock of
that file (``flock``). If it is killed, the kernel lets go of the lock, so whoever writes the table next can take it, and removes the file.
Nobody has to guess from a process id or an hour whether the writer is still there.

What belongs here: owning and finding what nobody owns any more. What does not: what is written. It holds for processes of one machine, and
for several where their common file system passes locks on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

PARTIAL = ".*.partial"
"""Pattern of the names under which files are written."""
LOCKS = "locks"
"""Of a job (Pipes extras): what its worker holds."""
_SECONDS_BETWEEN_TRIES = 0.5
_SECONDS_BETWEEN_WORDS = 60.0
_WORKING = ".working"
_working: list[IO[Any]] = []
"""Open files of what this worker works for; they close when it ends."""


class Partial:
    """A file beside the one that it is to become, owned by this process until it is closed.

    Attributes:
        path: Where to write.
    """

    def __init__(self, final: Path) -> None:
        """Make it, empty, in the folder of ``final``, which is made if it is missing."""
        final.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = final.with_name(f".{final.name}.{uuid4().hex}.partial")
            self._owner = own(self.path.open("w+b"))
            if _is_at(self.path, self._owner):  # nobody took it for a leftover in the moment before it was owned
                return
            self._owner.close()

    def close(self) -> None:
        """Remove what was not given another name, and own it no more."""
        self.path.unlink(missing_ok=True)
        self._owner.close()


class TemporaryFolder:
    """A folder among the system's temporary ones, gone when this is closed or forgotten; those of processes that were killed go with it.

    Attributes:
        path: The folder.
    """

    def __init__(self, prefix: str) -> None:
        """Make it, with a name that begins with ``prefix``."""
        sweep(Path(tempfile.gettempdir()).glob(f"{prefix}*"))
        while True:
            folder = tempfile.TemporaryDirectory(prefix=prefix)
            self.path = Path(folder.name)
            with contextlib.suppress(FileNotFoundError):  # another process took it for a leftover in the moment before it was owned
                descriptor = os.open(self.path, os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if self.path.is_dir():
                    break
        self._finish = weakref.finalize(self, _finish, folder, descriptor)

    def close(self) -> None:
        """Remove it."""
        self._finish()


def _finish(folder: tempfile.TemporaryDirectory[str], descriptor: int) -> None:
    folder.cleanup()
    os.close(descriptor)


def own(file: IO[Any]) -> IO[Any]:
    """Own a file that is open for as long as it is; the same file."""
    _lock(file, fcntl.LOCK_SH)
    return file


def _lock(file: IO[Any], how: int) -> None:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        told = f"{file.name}: the file system knows no locks ({error.strerror}): set RLHI_DATA to a folder on one that does"
        raise ValueError(told) from error


def sweep(paths: Iterable[Path]) -> int:
    """Remove files and folders that no living process owns; how many."""
    return sum(map(_swept, list(paths)))


def is_left(path: Path) -> bool:
    """Whether no living process owns a file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # gone, or not to be looked at
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _swept(path: Path) -> bool:
    if not is_left(path):
        return False
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return True
    return False


def _is_at(path: Path, file: IO[Any]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


@contextmanager
def alone(files: Sequence[Path], what: str, run: str, say: Callable[[str], None]) -> Iterator[list[str]]:
    """Be the only one who makes something, in this block; whoever comes second waits, and says every minute for whom.

    The workers of a run that was killed finish what they have in hand, and what they hold by ``work_for`` is waited for, too.

    Args:
        files: A lock for each partition, in the same order for everybody.
        what: What is made, for people.
        run: Who makes it, for people.
        say: Where it is said that and for whom this process waits.

    Yields:
        What workers are to hold, as ``LOCKS`` of their jobs.
    """
    with ExitStack() as stack:
        for file in sorted(files):
            file.parent.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(file.open("a+"))
            _wait(held, lambda held=held: f"{what} is being made by {_told(held)}", say)  # type: ignore[misc]
            held.truncate(0)
            held.write(json.dumps({"run": run, "pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
            held.flush()
            with _of_workers(file).open("a+") as left:
                _wait(left, lambda: f"workers of a run of {what} that has ended still finish what they have in hand", say)
        yield [str(_of_workers(file)) for file in files]


def work_for(job: Mapping[str, Any]) -> None:
    """Hold, until this process ends, what its run makes: the next run waits for what is in hand here, or would pay for it again."""
    _working.extend(own(Path(file).open("a+")) for file in job.get(LOCKS, ()))  # noqa: SIM115  # closed by the end of the process


def _of_workers(file: Path) -> Path:
    return file.with_suffix(_WORKING)


def _wait(held: IO[str], why: Callable[[], str], say: Callable[[str], None]) -> None:
    said: float | None = None
    while True:
        try:
            _lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if said is None or time.monotonic() - said >= _SECONDS_BETWEEN_WORDS:
                said = time.monotonic()
                say(f"{why()}: this run waits for it, and then takes what is there")
            time.sleep(_SECONDS_BETWEEN_TRIES)


def _told(held: IO[str]) -> str:
    """Who holds a lock, as they wrote into it."""
    held.seek(0)
    try:
        owner = json.loads(held.read())
        return f"run {owner['run']} (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (ValueError, KeyError, TypeError):  # it has just taken it
        return "another run"


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
