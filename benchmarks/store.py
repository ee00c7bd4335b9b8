"""How long the response store takes to say which keys it lacks and to give answers, and how that grows with it, beside a plain scan.

What belongs here: ``missing`` and ``lookup`` of ``ResponseStore``, its index and its compaction, and what Polars does without an index
(``scan_parquet`` of the same segments and a semi join). What does not: a threshold; results are recorded in ``README.md``.
Every look-up runs in a process of its own that knows nothing of the store; files may lie in the system's cache. Run
``python benchmarks/store.py --help``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rlhi_dagster.store.compaction import compact
from rlhi_dagster.store.folding import fold
from rlhi_dagster.store.index import INDEX
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import SCHEMAS, listing

WORDS = np.array(["alpha", "beta", "gamma", "the", "of", "a", "and", "garden", "answer", "because", "however", "tulips", "water", "to"])


@dataclass(frozen=True, slots=True)
class Measured:
    """One look-up in a process of its own: time, the CPU's part of it, and memory above what the process had with the keys."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    before_mb: float
    rows: int

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s ({self.cpu_seconds:.2f}), {self.peak_mb - self.before_mb:,.0f} MB"


def keys(count: int, seed: tuple[int, int]) -> list[str]:
    """Random keys."""
    text = np.random.default_rng(seed).bytes(16 * count).hex()
    return [text[start : start + 32] for start in range(0, 32 * count, 32)]


def answers(rows: int, number: int, pool: str) -> pl.DataFrame:
    """A chunk of made-up answers with replies of 60 to 200 characters."""
    drawn = np.random.default_rng((1, number))
    starts, lengths = drawn.integers(0, len(pool) - 200, rows), drawn.integers(60, 201, rows)
    given = {
        "key": keys(rows, (0, number)),
        "text": [pool[start : start + length] for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)],
        "finish_reason": ["stop"] * rows,
        "prompt_tokens": drawn.integers(50, 500, rows),
        "completion_tokens": lengths // 4,
        "cached_tokens": [0] * rows,
        "cost_usd": [0.0] * rows,
        "is_retryable": [False] * rows,
        "settings": ['{"engine": "vllm bfloat16 8192", "max_new_tokens": 256, "seed": 0, "temperature": 0.6, "top_p": 0.9}'] * rows,
        "system_id": drawn.integers(0, 2**63, rows // 64 + 1).repeat(64)[:rows],
        "history_id": drawn.integers(0, 2**63, rows // 64 + 1).repeat(64)[:rows],
        "message_id": drawn.integers(0, 2**63, rows // 64 + 1).repeat(64)[:rows],
        "sample_index": np.arange(rows) % 64,
        "prompt_characters": drawn.integers(200, 2_000, rows),
    }
    return pl.DataFrame(given).select(
        (pl.col(name) if name in given else pl.lit(None)).cast(dtype).alias(name) for name, dtype in SCHEMAS["chat"].items()
    )


def write(store: ResponseStore, first: int, last: int, chunk: int) -> float:
    """Append chunks; seconds spent in ``append``."""
    pool = " ".join(np.random.default_rng(2).choice(WORDS, 200_000))
    spent = 0.0
    for number in range(first, last):
        frame = answers(chunk, number, pool)
        started = time.perf_counter()
        store.append(frame)
        spent += time.perf_counter() - started
    return spent


def spread(count: int, chunks: int, chunk: int) -> list[str]:
    """Keys of answers all over the store."""
    counts = np.diff(np.linspace(0, count, chunks + 1).astype(int))
    return [key for number, wanted in enumerate(counts) if wanted for key in keys(chunk, (0, number))[: int(wanted)]]


def together(count: int, chunks: int, chunk: int) -> list[str]:
    """Keys of answers that were kept one after the other, as those of an asset are."""
    needed = -(-count // chunk)
    first = (chunks - needed) // 2
    return [key for number in range(first, first + needed) for key in keys(chunk, (0, number))][:count]


def ours_missing(store: ResponseStore, asked: pl.Series) -> int:
    """Through the store."""
    return len(store.missing(asked))


def ours_lookup(store: ResponseStore, asked: pl.Series) -> int:
    """Through the store."""
    return len(store.lookup(asked))


def plain_missing(store: ResponseStore, asked: pl.Series) -> int:
    """What is not in the key column of any segment."""
    wanted = asked.to_frame("key").lazy()
    return len(wanted.join(scan(store).select("key"), on="key", how="anti").collect())


def plain_lookup(store: ResponseStore, asked: pl.Series) -> int:
    """A semi join of all segments, as a store without an index does it."""
    found = scan(store).join(asked.to_frame("key").lazy(), on="key", how="semi")
    return len(found.unique("key", keep="first", maintain_order=True).sort("key").collect())


def scan(store: ResponseStore) -> pl.LazyFrame:
    """All segments."""
    return pl.scan_parquet(sorted(store.folder.glob("segment-*.parquet")))


def peak_mb() -> float:
    """Most memory that this process had so far."""
    # Of the process alone: getrusage would count what its parent had before it was started.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def child(way: Callable[[ResponseStore, pl.Series], int], root: Path, asked: Path, pipe: object) -> None:
    """Time one look-up with a store that was never opened."""
    wanted = pl.read_parquet(asked)["key"]
    before, started, cpu = peak_mb(), time.perf_counter(), time.process_time()
    rows = way(ResponseStore(root, "chat", "m@r"), wanted)
    pipe.send(Measured(time.perf_counter() - started, time.process_time() - cpu, peak_mb(), before, rows))  # type: ignore[attr-defined]


def alone(way: Callable[[ResponseStore, pl.Series], int], root: Path, asked: list[str]) -> Measured:
    """Run a look-up in a process of its own."""
    file = root / "asked.parquet"
    pl.DataFrame({"key": asked}).sample(fraction=1, shuffle=True, seed=0).write_parquet(file)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(way, root, file, theirs))
    process.start()
    while not ours.poll(1):
        if not process.is_alive():
            raise RuntimeError(f"{way.__name__} ended with {process.exitcode}")
    measured: Measured = ours.recv()
    process.join()
    return measured


def look_ups(root: Path, size: int, chunk: int, asks: int, is_plain: bool) -> Iterator[str]:
    """Table cells: each look-up, ours and if wanted the plain one, checked against each other."""
    chunks = size // chunk
    known, few, many = min(asks // 2, size), min(100_000, size), min(1_000_000, size)
    half = [*spread(known, chunks, chunk), *keys(asks - known, (3, 0))]
    for ours, plain, asked, expected in (
        (ours_missing, plain_missing, half, asks - known),
        (ours_lookup, plain_lookup, spread(few, chunks, chunk), few),
        (ours_lookup, plain_lookup, together(few, chunks, chunk), few),
        (ours_lookup, plain_lookup, spread(many, chunks, chunk), many),
    ):
        found = [alone(way, root, asked) for way in ((ours, plain) if is_plain else (ours,))]
        assert {each.rows for each in found} == {expected}, f"{found}, expected {expected:,} rows"
        yield " ; plain ".join(map(str, found))


def row(what: str, root: Path, size: int, chunk: int, asks: int, is_plain: bool) -> None:
    """Print a table row as its cells are measured."""
    print(f"| {size:,} | {what} |", end="", flush=True)
    for cell in look_ups(root, size, chunk, asks, is_plain):
        print(f" {cell} |", end="", flush=True)
    print(flush=True)


def main() -> None:
    """Parse the command line, print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/store.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000], help="answers in the store (default %(default)s)"
    )
    parser.add_argument("--chunk", type=int, default=5_000, help="answers per append; divides the sizes (default %(default)s)")
    parser.add_argument("--asks", type=int, default=1_000_000, help="keys that `missing` is asked for (default %(default)s)")
    parser.add_argument("--only-ours", action="store_true", help="leave the plain way out")
    parser.add_argument(
        "--folder", type=Path, help="where to make the store, about 0.15 GB a million; deleted afterwards (default: a temporary one)"
    )
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=given.folder))
    store = ResponseStore(root, "chat", "m@r")
    print(
        "| answers | files | missing of keys, half known | look-up of 100 k all over | of 100 k kept together | of 1 M all over |",
        flush=True,
    )
    print("|--:|---|---|---|---|---|", flush=True)
    notes, written = [], 0
    try:
        for size in sorted(given.sizes):
            appended = write(store, written // given.chunk, size // given.chunk, given.chunk)
            added, written = size - written, size
            started = time.perf_counter()
            fold(store.folder)
            folded, index = time.perf_counter() - started, (store.folder / INDEX).stat().st_size
            files = listing(store.folder, "segment")
            size_gb = sum((store.folder / name).stat().st_size for name in files) / 1e9
            notes.append(
                f"{size:,}: {added:,} appended in {appended:.1f} s ({added / appended:,.0f}/s), folded in {folded:.1f} s; "
                f"index {index / 1e6:,.1f} MB, segments {size_gb:.2f} GB"
            )
            row(f"{len(files):,}", root, size, given.chunk, given.asks, not given.only_ours)
        started = time.perf_counter()
        compact(store.folder, "chat")
        notes.append(f"compacted in {time.perf_counter() - started:.1f} s, {peak_mb():,.0f} MB at most in all that this process did")
        row(f"{len(listing(store.folder, 'segment')):,} (compacted)", root, size, given.chunk, given.asks, not given.only_ours)
    finally:
        shutil.rmtree(root)
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
