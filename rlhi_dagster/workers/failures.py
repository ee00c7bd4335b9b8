"""How a worker fails: what can be expected to go wrong is told in one sentence, everything else keeps its stack trace.

What belongs here: telling the two apart, and the sentences for memory and disks, which fail in many places. What does not: the sentences
that the project's own errors carry, and what the asset makes of them (``rlhi_dagster/pipes.py``).
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS = ("no space left on device", "disk quota exceeded", "file too large", "failed writing file", "unexpected pos ")
"""Of operating systems, and of torch, which does not say why a write failed."""
_MEMORY_TEXTS = ("can't allocate memory", "cannot allocate memory", "out of memory")


class ExpectedError(SystemExit):
    """A failure that one sentence explains; ends the process with that sentence on stderr and exit status 1."""


@contextmanager
def told() -> Iterator[None]:
    """Turn failures that can be expected into ``ExpectedError``; to be used inside ``open_dagster_pipes``, which hands it to the asset.

    Expected are full disks and memory, errors of this project's own kinds, and ValueErrors that it raises itself.
    """
    try:
        yield
    except Exception as error:
        found = sentence(error)
        if found is None:
            raise
        raise ExpectedError(found) from error


def sentence(error: Exception) -> str | None:
    """What to tell of an error; ``None`` if it is not one that can be expected."""
    chain = _chain(error)
    if any(map(_is_full_disk, chain)):
        return (
            "no space is left on the device of the outputs: free some or set RLHI_DATA to another disk, then launch again; "
            "answers, finished artefacts and whole snapshots are kept"
        )
    if any(map(_is_full_memory, chain)):
        return (
            f"out of memory ({_line(error)}): lower micro_batch_size of the training or batch_size of the engine, "
            "or train with gradient_checkpointing or lora"
        )
    return _line(error) if _is_own(error) else None


def _is_own(error: Exception) -> bool:
    package = __name__.partition(".")[0]
    if type(error).__module__.partition(".")[0] == package:
        return True
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, ValueError) and raised_in[-1].partition(".")[0] in {package, "__main__"}


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(text in str(error).lower() for text in _FULL_TEXTS)


def _is_full_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)


def _chain(error: BaseException) -> list[BaseException]:
    """The error, what caused it, what caused that, and so on."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _line(error: BaseException) -> str:
    """The message in one line, not endless."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 600 else f"{text[:600]}…"
