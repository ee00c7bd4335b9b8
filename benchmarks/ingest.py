"""How fast a file of WildChat-1M's shape becomes tables, beside the barest rewrite of the same file.

What belongs here: the two ways, each in a process of its own, by turns, with time and peak memory. What does not: a threshold; results are
recorded in ``README.md`` with date and machine. Run ``python benchmarks/ingest.py --help``.

The bare way is ``pl.scan_parquet(file).sink_parquet(copy)``: it decodes and encodes every column once and looks at nothing; a second one
copies only the columns that ingest reads. Ours is what the assets do: judge every row, repair, redact and write ``conversations``, then
``turns``, ``users`` and, from labels that are made up here and not timed, ``reattempt_rates``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from wildchat_shaped import write

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.conversations.ingest import ROWS_AT_ONCE, judge
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, month_counts
from rlhi_dagster.conversations.splits import SplitSettings
from rlhi_dagster.conversations.turns import turns
from rlhi_dagster.conversations.users import users
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.rates.shares import reattempt_rates

SALT = "benchmark"
READ = ("conversation_hash", "model", "timestamp", "conversation", "language", "toxic", "hashed_ip", "header")

Measured = dict[str, float]
"""Seconds of each stage, and ``peak_gb``."""


def rewrite(file: Path, folder: Path) -> Measured:
    """Copy the file."""
    return {"all columns": _seconds(lambda: pl.scan_parquet(file).sink_parquet(folder / "copy.parquet", compression="zstd"))}


def rewrite_read_columns(file: Path, folder: Path) -> Measured:
    """Copy the columns that ingest reads."""
    rows = pl.scan_parquet(file).select(READ)
    return {"columns read": _seconds(lambda: rows.sink_parquet(folder / "copy.parquet", compression="zstd"))}


def tables(file: Path, folder: Path) -> Measured:
    """Make the tables; raises AssertionError if a row got lost."""
    source = SourceSettings(name="shaped", kind=SourceKind.WILDCHAT, location=str(file), assumed_start=datetime(2023, 4, 1, tzinfo=UTC))
    lake = Lake(root=str(folder / "lake"))
    months = list(month_counts(source))

    def make_conversations() -> None:
        judged = judge(source, months, SALT)
        with lake.writer("conversations", months) as writer:
            for piece in judged.conversations():
                writer.append(piece)
            accepted = lake.publish(writer.finish())
        lake.write("quarantine", judged.quarantine, months)
        assert sum(each.rows for each in accepted) + len(judged.quarantine) == sum(judged.rows_in.values())

    def make_turns() -> None:
        with lake.writer("turns", months) as writer:
            for piece in lake.scan("conversations").collect_batches(chunk_size=ROWS_AT_ONCE, engine="streaming"):
                writer.append(turns(piece))
            lake.publish(writer.finish())

    stages: dict[str, Callable[[], object]] = {
        "conversations": make_conversations,
        "turns": make_turns,
        "users": lambda: lake.write("users", users(lake.scan("conversations"), SplitSettings(tuning=0.05, test=0.05))),
    }
    measured = {name: _seconds(stage) for name, stage in stages.items()}
    labels = _labels(lake.scan("turns"))
    return measured | {
        "reattempt_rates": _seconds(lambda: lake.write("reattempt_rates", reattempt_rates(lake.scan("conversations"), labels)))
    }


def _labels(turns: pl.LazyFrame) -> pl.LazyFrame:
    """A label for every follow-up, drawn by the digest of its id."""
    names = pl.Series([label.value for label in Feedback])
    follow_ups = turns.filter(pl.col("turn") > 1).select("turn_id", "conversation_id", "turn").collect()
    drawn = follow_ups["turn_id"].hash(seed=0) % len(names)
    return follow_ups.with_columns(label=names.gather(drawn)).lazy()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _measure(way: Callable[[Path, Path], Measured], file: Path) -> Measured:
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        return _in_process(_with_peak, way, file, Path(folder))


def _with_peak(way: Callable[[Path, Path], Measured], file: Path, folder: Path) -> Measured:
    return way(file, folder) | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def _in_process(work: Callable[..., Any], *arguments: object) -> Any:
    """Call ``work`` in a fresh process. This one stays small: a child's peak memory counts from that of its parent."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    """Parse the command line, measure each size, print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/ingest.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--conversations", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="rows of the files (default %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where files are made and kept (default: a temporary folder; 1,000,000 rows take 10 GB)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="times each way is run, by turns; the fastest counts (default %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for size in given.conversations:
            file = folder / f"wildchat-{size}.parquet"
            if not file.is_file():
                _in_process(write, file, size)
            ways = (rewrite, rewrite_read_columns, tables)
            rounds = [[_measure(way, file) for way in ways] for _ in range(given.rounds)]
            best = [min(each, key=_total) for each in zip(*rounds, strict=True)]
            print(f"\n{size:,} conversations, {file.stat().st_size / 1e9:.2f} GB")
            for measured in best:
                print(_row(measured))
            ratios = ", ".join(f"{_total(best[-1]) / _total(bare):.2f}" for bare in best[:-1])
            print(f"time of the tables in that of a rewrite (all columns, columns read): {ratios}", flush=True)


def _total(measured: Measured) -> float:
    return sum(seconds for name, seconds in measured.items() if name != "peak_gb")


def _row(measured: Measured) -> str:
    stages: dict[str, Any] = {name: round(seconds, 1) for name, seconds in measured.items() if name != "peak_gb"}
    return f"{_total(measured):8.1f} s, peak {measured['peak_gb']:5.2f} GB  {json.dumps(stages)}"


if __name__ == "__main__":
    main()
