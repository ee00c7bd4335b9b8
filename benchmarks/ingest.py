"""How fast conversations are ingested, beside the plainest loop over the same file.

What belongs here: the two ways timed by turns in one process, and their ratio. What does not: a threshold; results are recorded in
``README.md`` with date and machine. Run ``python benchmarks/ingest.py --help``.

The plain loop reads the Parquet file into dictionaries and walks every message. It checks, repairs and stores nothing, so it is a floor
for what any row-by-row Python ingest would cost, not an equal.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from rlhi_dagster.conversations.ingest import ingest
from rlhi_dagster.conversations.sources import SourceSettings, month_counts
from rlhi_dagster.profiles import load, project_path

SALT = "benchmark"


def repeated(sample: Path, copies: int) -> pl.DataFrame:
    """The sample ``copies`` times, each copy with ids and connections of its own, so that copies are not rejected as duplicates."""
    rows = pl.read_parquet(sample)
    renamed = (
        rows.with_columns((pl.col(name) + f"-{copy}").alias(name) for name in ("conversation_hash", "hashed_ip")) for copy in range(copies)
    )
    return pl.concat(renamed)


def plain_loop(file: Path) -> int:
    """Walk every message of every row as dictionaries; return the number of rows."""
    rows = pl.read_parquet(file).to_dicts()
    characters = 0
    for row in rows:
        for message in row["conversation"] or []:
            characters += len(message["content"] or "")
    return len(rows)


def full_ingest(settings: SourceSettings) -> int:
    """Judge, repair and deliver all months; return the rows that came out, accepted or quarantined."""
    found = ingest(settings, list(month_counts(settings)), SALT)
    return len(found.conversations) + len(found.quarantine)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of calling ``work``."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Parse the command line, time both ways by turns, print the table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/ingest.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--copies", type=int, default=10, help="how often the sample is repeated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times each way is run, by turns; the median counts (default %(default)s)")
    given = parser.parse_args()
    source = load("sample").source
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "repeated.parquet"
        rows = repeated(project_path(source.location), given.copies)
        rows.write_parquet(file, compression="zstd")
        settings = source.model_copy(update={"location": str(file)})
        lost = len(rows) - full_ingest(settings)  # also warms up
        plain_loop(file)
        timed = [(seconds(lambda: plain_loop(file)), seconds(lambda: full_ingest(settings))) for _ in range(given.rounds)]
    plain, full = (statistics.median(column) for column in zip(*timed, strict=True))
    print(f"{len(rows):,} rows ({given.copies} copies of the sample), median of {given.rounds} rounds; rows lost by ingest: {lost}")
    print(f"{'plain loop':<12}{plain:>8.2f} s{len(rows) / plain:>12,.0f} conversations/s")
    print(f"{'ingest':<12}{full:>8.2f} s{len(rows) / full:>12,.0f} conversations/s")
    print(f"ratio (ingest / plain loop, conversations per second): {plain / full:.2f}")


if __name__ == "__main__":
    main()
