"""How long the response store takes to say which keys it lacks and to give answers, beside a plain join and another version of the store.

What belongs here: ``missing`` and ``lookup`` of ``ResponseStore`` on as many answers as wanted, as they were appended and compacted, beside
what Polars does with the same segments in one join, and beside the same store read by another version's code (``--beside``). What does
not: a threshold; results are recorded in ``README.md``. Every look-up runs in a process of its own that knows nothing of the store; the
ways take turns; files may lie in the system's cache. Run ``python benchmarks/store.py --help``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rlhi_dagster.store.compaction import compact
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import SCHEMAS, listing

HERE = Path(__file__).parents[1]
MODEL = "m@r"
WORDS = np.array(["alpha", "beta", "gamma", "the", "of", "a", "and", "garden", "answer", "because", "however", "tulips", "water", "to"])


@dataclass(frozen=True, slots=True)
class Measured:
    """One look-up in a process of its own: time, the CPU's part of it, and memory above what the process had with the keys."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    before_mb: float
    rows: int

    @property
    def own_mb(self) -> float:
        """Memory of the look-up."""
        return self.peak_mb - self.before_mb


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


def stored_missing(root: Path, asked: pl.Series) -> int:
    """Through the store."""
    return len(ResponseStore(root, "chat", MODEL).missing(asked))


def stored_lookup(root: Path, asked: pl.Series) -> int:
    """Through the store."""
    return len(ResponseStore(root, "chat", MODEL).lookup(asked))


def plain_missing(root: Path, asked: pl.Series) -> int:
    """What is not in the key column of any segment."""
    return len(asked.to_frame("key").lazy().join(scan(root).select("key"), on="key", how="anti").collect())


def plain_lookup(root: Path, asked: pl.Series) -> int:
    """A semi join of all segments."""
    found = scan(root).join(asked.to_frame("key").lazy(), on="key", how="semi").collect()
    return len(found.unique("key", keep="first", maintain_order=True).sort("key"))


WAYS: dict[str, Callable[[Path, pl.Series], int]] = {
    each.__name__: each for each in (stored_missing, stored_lookup, plain_missing, plain_lookup)
}


def scan(root: Path) -> pl.LazyFrame:
    """All segments."""
    return pl.scan_parquet(sorted(ResponseStore(root, "chat", MODEL).folder.glob("segment-*.parquet")))


def peak_mb() -> float:
    """Most memory that this process had so far."""
    # Of the process alone: getrusage would count what its parent had before it was started.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def look(way: str, root: Path, asked: Path) -> Measured:
    """One look-up, here and now."""
    wanted = pl.read_parquet(asked)["key"]
    before, started, cpu = peak_mb(), time.perf_counter(), time.process_time()
    rows = WAYS[way](root, wanted)
    return Measured(time.perf_counter() - started, time.process_time() - cpu, peak_mb(), before, rows)


def alone(way: str, root: Path, asked: Path, package: Path) -> Measured:
    """One look-up in a process of its own, by the version of the package in the folder ``package``."""
    command = [sys.executable, __file__, "--look", way, str(root), str(asked)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(package)}, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def cell(found: Sequence[Measured]) -> str:
    """Medians: seconds (CPU seconds), memory."""
    seconds, cpu, memory = (statistics.median(getattr(each, name) for each in found) for name in ("seconds", "cpu_seconds", "own_mb"))
    return f"{seconds:.2f} s ({cpu:.2f}), {memory:,.0f} MB"


def ratio(found: Sequence[Measured], other: Sequence[Measured]) -> str:
    """Time over that of another way: the median of the turns, and the least and the greatest."""
    ratios = [one.seconds / two.seconds for one, two in zip(found, other, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def questions(size: int, chunk: int, asks: int) -> Iterator[tuple[str, str, list[str], int]]:
    """What is looked up: a name, the kind of look-up, its keys, and how many rows it has to give."""
    chunks = size // chunk
    known, few, many = min(asks // 2, size), min(100_000, size), min(1_000_000, size)
    yield (
        f"`missing` of {asks:,}, {known:,} of them known",
        "missing",
        [*spread(known, chunks, chunk), *keys(asks - known, (3, 0))],
        asks - known,
    )
    yield f"`lookup` of {few:,} all over", "lookup", spread(few, chunks, chunk), few
    yield f"`lookup` of {few:,} kept together", "lookup", together(few, chunks, chunk), few
    yield f"`lookup` of {many:,} all over", "lookup", spread(many, chunks, chunk), many


def measure(what: str, root: Path, given: argparse.Namespace, size: int) -> None:
    """Print a row of the table for each look-up, as it is measured."""
    versions = {"store": ("stored", HERE), "plain": ("plain", HERE), **({"beside": ("stored", given.beside)} if given.beside else {})}
    if given.beside:
        # Whatever that version writes at first use is not part of the table.
        file = root / "nothing.parquet"
        pl.DataFrame({"key": keys(1, (4, 0))}).write_parquet(file)
        print(
            f"the other version's first `missing`: {cell([alone('stored_missing', root, file, given.beside)])}", file=sys.stderr, flush=True
        )
    for name, kind, asked, expected in questions(size, given.chunk, given.asks):
        file = root / "asked.parquet"
        pl.DataFrame({"key": asked}).sample(fraction=1, shuffle=True, seed=0).write_parquet(file)
        found: dict[str, list[Measured]] = {version: [] for version in versions}
        for _ in range(given.rounds):
            for version, (way, package) in versions.items():
                found[version].append(alone(f"{way}_{kind}", root, file, package))
        assert {each.rows for of_version in found.values() for each in of_version} == {expected}, f"{found}, expected {expected:,} rows"
        cells = [cell(of_version) for of_version in found.values()]
        cells += [ratio(found["store"], found[version]) for version in versions if version != "store"]
        print(f"| {size:,} | {what} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Parse the command line, print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/store.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000], help="answers in the store (default %(default)s)")
    parser.add_argument("--chunk", type=int, default=5_000, help="answers per append; divides the sizes (default %(default)s)")
    parser.add_argument("--asks", type=int, default=1_000_000, help="keys that `missing` is asked for (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (default %(default)s)")
    parser.add_argument(
        "--beside", type=Path, help="folder with another version of the package: git archive COMMIT rlhi_dagster | tar -x -C FOLDER"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to make the store, about 0.1 GB a million; deleted afterwards (default: a temporary one)"
    )
    parser.add_argument("--look", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.look:
        way, root, asked = given.look
        print(json.dumps(asdict(look(way, Path(root), Path(asked)))))
        return
    root = Path(tempfile.mkdtemp(dir=given.folder))
    store = ResponseStore(root, "chat", MODEL)
    print("| answers | files | | store | plain | beside | store / plain | store / beside |", flush=True)
    print("|--:|---|---|--:|--:|--:|--:|--:|", flush=True)
    notes, written = [], 0
    try:
        for size in sorted(given.sizes):
            appended = write(store, written // given.chunk, size // given.chunk, given.chunk)
            added, written = size - written, size
            files = listing(store.folder, "segment")
            size_gb = sum((store.folder / name).stat().st_size for name in files) / 1e9
            notes.append(f"{size:,}: {added:,} appended in {appended:.1f} s ({added / appended:,.0f}/s); segments {size_gb:.2f} GB")
            measure(f"{len(files):,}", root, given, size)
        started, before = time.perf_counter(), peak_mb()
        compact(store.folder, "chat")
        notes.append(f"compacted in {time.perf_counter() - started:.1f} s; peak memory {before:,.0f} MB before, {peak_mb():,.0f} MB after")
        measure(f"{len(listing(store.folder, 'segment')):,} (compacted)", root, given, written)
    finally:
        shutil.rmtree(root)
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
