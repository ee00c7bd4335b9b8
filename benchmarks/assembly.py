"""How fast a log of requests, each with its whole history, becomes conversations, beside barely parsing the same file.

What belongs here: the ways, each in a process of its own, by turns, with time and peak memory. What does not: a threshold; results are
recorded in ``README.md`` with date and machine. Run ``python benchmarks/assembly.py --help``.

The log is made up: rows as LiteLLM writes them, conversations of ten turns with lengths as WildChat-1M has them, so ten rows and 110
messages a conversation; a hundred conversations go on at the same time. The bare ways parse every line and keep nothing: with Python's
``json``, and with Polars into a Parquet file. Ours is what every use of a source begins with: rows, read once, put together and sorted out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
from wildchat_shaped import MAX_LENGTH, REPLY_LENGTH, USER_LENGTH, _pool

from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings
from rlhi_dagster.conversations.sources.settings import PLAUSIBLE_FROM

TURNS, AT_ONCE = 10, 100
MESSAGES = TURNS * (TURNS + 1)
"""Of the ten rows of a conversation together."""
CONVERSATIONS_PER_USER = 5
FIRST = 1_780_000_000
SECONDS_PER_TURN = 60

Measured = dict[str, float]


def write(file: Path, conversations: int, seed: int = 0) -> None:
    """Write the log of some ``conversations``, a multiple of `AT_ONCE`."""
    generator = np.random.default_rng(seed)
    text = _pool(generator)
    with file.open("w") as out:
        for start in range(0, conversations, AT_ONCE):
            said = [list(_messages(generator, text)) for _ in range(AT_ONCE)]
            for turn in range(TURNS):
                out.writelines(
                    json.dumps(_row(start + number, turn, messages[: 2 * turn + 2])) + "\n" for number, messages in enumerate(said)
                )


def _messages(generator: np.random.Generator, text: str) -> Iterator[dict[str, str]]:
    for position in range(2 * TURNS):
        length = int(np.clip(np.exp(generator.normal(*(REPLY_LENGTH if position % 2 else USER_LENGTH))), 3, MAX_LENGTH))
        at = int(generator.integers(0, len(text) - MAX_LENGTH))
        yield {"role": "assistant" if position % 2 else "user", "content": text[at : at + length]}


def _row(conversation: int, turn: int, messages: list[dict[str, str]]) -> dict[str, Any]:
    began = FIRST + conversation + SECONDS_PER_TURN * turn
    name = f"chatcmpl-{conversation}-{turn}"
    choice = {"index": 0, "finish_reason": "stop", "message": messages[-1]}
    return {
        "id": name,
        "trace_id": name,
        "session_id": f"session-{conversation}",
        "call_type": "acompletion",
        "status": "success",
        "startTime": began,
        "endTime": began + 3,
        "model": "m",
        "end_user": f"user-{conversation // CONVERSATIONS_PER_USER}",
        "messages": messages[:-1],
        "response": {"id": name, "object": "chat.completion", "created": began + 3, "model": "m", "choices": [choice]},
        "metadata": {"user_api_key_user_id": "owner"},
        "error_str": None,
    }


def parse(file: Path) -> None:
    """Parse every line with ``json``."""
    with file.open("rb") as lines:
        for line in lines:
            json.loads(line)


def rewrite(file: Path) -> None:
    """Parse the file with Polars, in pieces, and write what it holds."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        pl.scan_ndjson(file).sink_parquet(Path(folder) / "copy.parquet", compression="zstd")


def conversations(file: Path) -> None:
    """Put the requests together; raises AssertionError if a row is not what it should be."""
    source = SourceRows(SourceSettings(name="log", kind=SourceKind.LITELLM, location=str(file), assumed_start=PLAUSIBLE_FROM))
    counted = pl.col("superseded").is_null().sum().alias("conversations"), pl.len().alias("rows"), pl.col("messages").list.len().sum()
    found = source.collect(lambda rows: rows.select(*counted)).row(0, named=True)
    assert found["rows"] == TURNS * found["conversations"], found
    assert found["messages"] == 2 * TURNS * found["conversations"], found


def _measure(way: Callable[[Path], None], file: Path) -> Measured:
    """Time and peak memory, in a fresh process. This one stays small: a child's peak memory counts from that of its parent."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (way, file))


def _measured(way: Callable[[Path], None], file: Path) -> Measured:
    started, worked = time.perf_counter(), time.process_time()
    way(file)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    return {"seconds": seconds, "cpu": cpu, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def _fits_polars(file: Path) -> bool:
    """Whether this machine has the memory that Polars needs to parse the file: some 3.5 times its size, measured at 1.3 GB."""
    fits = 4 * file.stat().st_size < psutil.virtual_memory().available
    if not fits:
        print(f"Polars is left out: parsing {file.stat().st_size / 1e9:.1f} GB of JSON lines may take more memory than is free")
    return fits


def _make(file: Path, conversations: int) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(write, (file, conversations))


def main() -> None:
    """Parse the command line, measure each size, print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/assembly.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--conversations", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="sizes of the logs (default %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where logs are made and kept (default: a temporary folder; 100,000 take 12 GB)")
    parser.add_argument("--rounds", type=int, default=1, help="times each way is run, by turns; the fastest counts (default %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for size in given.conversations:
            file = folder / f"requests-{size}.jsonl"
            if not file.is_file():
                _make(file, size)
            ways = [way for way in (parse, rewrite, conversations) if way is not rewrite or _fits_polars(file)]
            rounds = [[_measure(way, file) for way in ways] for _ in range(given.rounds)]
            gigabytes, millions = file.stat().st_size / 1e9, size * MESSAGES / 1e6
            print(f"\n{size * TURNS:,} requests, {millions:.2f} million messages, {gigabytes:.2f} GB, load {os.getloadavg()[0]:.1f}")
            best = [min(each, key=lambda measured: measured["seconds"]) for each in zip(*rounds, strict=True)]
            for way, measured in zip(ways, best, strict=True):
                seconds, cpu, peak = measured["seconds"], measured["cpu"], measured["peak_gb"]
                print(
                    f"{way.__name__:>13} {seconds:8.1f} s, {cpu:8.1f} s of CPU: {cpu / millions:6.1f} s per million messages,"
                    f" {cpu / gigabytes:6.1f} s per GB; peak {peak:5.2f} GB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
