"""Which failures can be expected, and the one sentence in which each is told; all others keep their stack trace.

What belongs here: telling the two apart, the sentences for memory and disks, which fail in many places, the command that makes what is
missing, which failures may pass by themselves, and how an asset fails. What does not: the sentences that the project's own errors carry,
how a worker hands one over (``workers/expected.py``, ``graph/pipes.py``), and trying again (``graph/recovery.py``).
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rlhi_dagster.base import escapes

_PACKAGES = {"rlhi_dagster", "assets", "__main__"}
_KINDS = (ValueError, RuntimeError, LookupError)
"""What the project's own errors for people are; its other ones are signals between its parts."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL_TEXTS = ("no space left on device", "disk quota exceeded", "file too large", "failed writing file", "unexpected pos ")
"""Of operating systems, and of torch, which does not say why a write failed."""
_OF_HUB = ("huggingface_hub", "httpx", "httpcore")
"""How the packages are called that talk to the Hugging Face Hub."""
_LOST = {"TransportError", "ConnectionError", "gaierror"}
"""Of a connection that broke, or was not let in."""
_OFFLINE = {"OfflineModeIsEnabled"}
"""The Hub is not to be asked."""
_UNREACHED = {"LocalEntryNotFoundError", *_LOST, *_OFFLINE}
_UNREADABLE = "a table could not be read to its end"
_MEMORY_TEXTS = ("can't allocate memory", "cannot allocate memory", "out of memory")


class ToMakeError(ValueError):
    """Something that an asset makes has to be made. Whoever tells it adds what makes it, by ``message``.

    Attributes:
        made: Name of the asset, or the folder of its artefact.
        partitions: Those to make.
    """

    def __init__(self, told: str, made: str | Path, partitions: Sequence[str] = ()) -> None:
        super().__init__(told)
        self.made, self.partitions = made, partitions


class PassingError(RuntimeError):
    """Something failed that may well succeed a little later, such as a server that cannot be reached; it is tried again by itself."""


class NotMadeError(ToMakeError):
    """It is not there."""


class DamagedError(ToMakeError):
    """It is there, but not as it was written. Nobody goes on without it, as one may without what is not there."""


def message(error: BaseException) -> str:
    """What an error says; of what has to be made also the command that makes it."""
    if not isinstance(error, ToMakeError):
        return str(error)
    from rlhi_dagster.base import launching  # here, because workers read sentences without Dagster

    made = error.made
    run = launching.command_of_artefact(made) if isinstance(made, Path) else launching.command(made, error.partitions)
    return f"{error}; run: {run}"


@contextmanager
def told() -> Iterator[None]:
    """Turn failures that can be expected into ``dagster.Failure``; only what may pass allows retries, for all else would come again."""
    import dagster as dg  # here, because workers read sentences without it

    try:
        yield
    except BaseException as error:
        if (found := sentence(error)) is None:
            raise
        raise dg.Failure(found, allow_retries=may_pass(error)) from error


def sentence(error: BaseException) -> str | None:
    """What to tell of an error; ``None`` if it is not one that can be expected.

    Expected are full disks and memory, errors of the project's own kinds, ValueErrors and FileNotFoundErrors that it raises itself, those
    of the Hugging Face Hub, files that must not be written, and Parquet files that Polars cannot read.
    """
    if _is_unreadable(error):
        return f"{_UNREADABLE} ({_line(error)}): `rlhi verify` says which file is damaged, and what makes it again"
    if not isinstance(error, Exception):
        return None
    causes = chain(error)
    if any(map(_is_full_disk, causes)):
        return (
            "no space is left on the device of the outputs: free some or set RLHI_DATA to another disk, then launch again; "
            "answers, finished artefacts and whole snapshots are kept"
        )
    if any(map(_is_full_memory, causes)):
        return (
            f"out of memory ({_line(error)}): lower micro_batch_size of the training or batch_size of the engine, "
            "or train with gradient_checkpointing or lora"
        )
    if _is_own(error):
        return _line(error)
    if isinstance(error, OSError) and error.errno in _FORBIDDEN and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}: whoever runs this must be allowed to write there; RLHI_DATA moves the outputs to another "
            "folder"
        )
    if any(map(_is_of_hub, causes)):
        kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
        told = "cannot be reached" if kinds & _UNREACHED else "does not give what it was asked for"
        return f"the Hugging Face Hub {told} ({_line(error)}): check the name and the network, or download the files and give their folder"
    return None


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed a little later: an error of the project says so itself, and of the Hub's it is a lost connection."""
    if _package(type(error).__module__) == "rlhi_dagster":
        return isinstance(error, PassingError)
    kinds = {kind.__name__ for cause in chain(error) for kind in type(cause).__mro__}
    return bool(kinds & _LOST and not kinds & _OFFLINE)


def _is_unreadable(error: BaseException) -> bool:
    """Whether Polars met a Parquet file that it cannot read; where it panics, which it does on some, the error is no ``Exception``."""
    name = type(error).__name__
    return name == "PanicException" or (name == "ComputeError" and "parquet" in str(error).lower())


def _is_own(error: Exception) -> bool:
    if _package(type(error).__module__) == "rlhi_dagster":
        return isinstance(error, _KINDS)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_raised_here = _package(frame.f_globals.get("__name__", "")) in _PACKAGES
    return is_raised_here and (isinstance(error, ValueError) or (isinstance(error, FileNotFoundError) and error.errno is None))


def _is_of_hub(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [type(error).__module__, *(str(frame.f_globals.get("__name__", "")) for frame in frames[-1:])]
    return any(_package(module).startswith(_OF_HUB) for module in modules)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(text in str(error).lower() for text in _FULL_TEXTS)


def _is_full_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)


def chain(error: BaseException) -> list[BaseException]:
    """The error, what caused it, what caused that, and so on."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _line(error: BaseException) -> str:
    """The message in one line, not endless."""
    text = escapes.line(" ".join(message(error).split())) or type(error).__name__
    return text if len(text) <= 600 else f"{text[:600]}…"
