"""How long workers take to start: as fresh processes, and forked from the warm parent.

What belongs here: seconds from asking for a worker until it has imported what its work needs, and the CPU seconds of it. What does not: the
work itself. Run ``python benchmarks/starts.py --help``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlhi_dagster.graph import starting

ROOT = Path(__file__).parents[1]
KINDS = {
    "verify": ("rlhi_dagster.workers.verify",),
    "tokens": ("rlhi_dagster.workers.tokens", "rlhi_dagster.engines.chat_templates", "transformers.models.auto.tokenization_auto"),
    "embed": ("rlhi_dagster.workers.embed", "rlhi_dagster.engines.bert"),
    "generate": ("rlhi_dagster.workers.generate", "rlhi_dagster.engines.transformers"),
    "score": ("rlhi_dagster.workers.score", "rlhi_dagster.engines.rewards"),
    "train_policy": ("rlhi_dagster.workers.train_policy", "rlhi_dagster.workers.train_loop"),
    "train_dpo": ("rlhi_dagster.workers.train_dpo",),
}
"""What each worker has imported when its work begins."""


def be(kind: str, file: Path) -> None:
    """In the worker: import, then write the time and the CPU seconds so far."""
    for name in KINDS[kind]:
        importlib.import_module(name)
    file.write_text(f"{time.monotonic()} {time.process_time()}")


def started(kind: str, *, is_fresh: bool) -> tuple[float, float]:
    """Seconds and CPU seconds of one start."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ready"
        command = [sys.executable, "-m", "benchmarks.starts", "--be", kind, str(file)]
        begun = time.monotonic()
        process: starting.Started
        process = subprocess.Popen(command, cwd=ROOT) if is_fresh else starting.start(command, dict(os.environ), str(ROOT))
        assert process.wait() == 0
        at, spent = map(float, file.read_text().split())
        return at - begun, spent


def _cell(found: list[tuple[float, float]]) -> str:
    seconds, spent = (statistics.median(each) for each in zip(*found, strict=True))
    return f"{seconds:.1f} s ({spent:.1f})"


def main() -> None:
    """Print a table: seconds (CPU seconds), medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="starts of each worker in each way, by turns")
    parser.add_argument("--settle", type=float, default=30, help="seconds for the parent to import everything")
    parser.add_argument("--be", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.be:
        be(given.be[0], Path(given.be[1]))
        return
    first = started("generate", is_fresh=False)
    print(f"the first, beside the parent's imports: generate, {first[0]:.1f} s ({first[1]:.1f})", flush=True)
    time.sleep(given.settle)
    print("| worker | fresh | forked |\n|---|--:|--:|")
    for kind in KINDS:
        ways = {True: list[tuple[float, float]](), False: list[tuple[float, float]]()}
        for _ in range(given.rounds):
            for is_fresh, found in ways.items():
                found.append(started(kind, is_fresh=is_fresh))
        fresh, forked = (_cell(found) for found in ways.values())
        print(f"| `{kind}` | {fresh} | {forked} |", flush=True)


if __name__ == "__main__":
    main()
