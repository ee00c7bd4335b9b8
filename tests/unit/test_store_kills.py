"""Several processes on one store, and processes killed in the middle of their work: nothing is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.store.compaction import compact
from rlhi_dagster.store.integrity import verify
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import SCHEMAS, listing

ROOT = Path(__file__).parents[2]
SMALL = """
import sys
from pathlib import Path
import polars as pl
from rlhi_dagster.store import compaction
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.store.responses import ResponseStore

# So small that there is something to merge all the time.
compaction.MAX_ROWS = 400
root = Path(sys.argv[1])
store = ResponseStore(root, "chat", "m@r1")

def keys(first, last):
    return [digest_of(number) for number in range(first, last)]

def rows(keys, text, is_error=False):
    given = {"key": keys, "text": [text] * len(keys), "is_retryable": [is_error] * len(keys)}
    schema = store.schema
    return pl.DataFrame(given).select((pl.col(n) if n in given else pl.lit(None)).cast(t).alias(n) for n, t in schema.items())
"""
WRITER = """
number = int(sys.argv[2])
written = []
for chunk in range(40):
    # Neighbours write some of the same keys, and errors that the next chunk answers.
    first = 1000 * number + 20 * chunk
    store.append(rows(keys(first, first + 20), f"w{number}"))
    store.append(rows(keys(900 + 20 * chunk, 910 + 20 * chunk), f"shared"))
    store.append(rows(keys(first + 20, first + 40), "", is_error=True))
    written += keys(first, first + 20)
    asked = pl.Series("key", written)
    missing = store.missing(asked)
    assert not len(missing), f"writer {number}, chunk {chunk}: {len(missing)} missing"
    found = store.lookup(asked)
    assert len(found) == len(written), f"writer {number}, chunk {chunk}: {len(found)} of {len(written)} found"
    errors = store.lookup(pl.Series("key", keys(first + 20, first + 40)))
    assert len(errors) == 20, f"writer {number}, chunk {chunk}: {len(errors)} of 20 errors or answers"
print("done")
"""
COMPACTER = """
import time
# A slow disk, so that kills hit a segment that is being written.
replace = Path.replace
Path.replace = lambda partial, file: (time.sleep(0.05), replace(partial, file))
for round_ in range(int(sys.argv[2])):
    compaction.compact(store.folder, "chat")
    print(round_, flush=True)
"""


def start(program: str, *given: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SMALL + program, *map(str, given)]
    # One thread of Polars each: there are many processes.
    env = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def fill(store: ResponseStore, first: int, chunks: int) -> pl.DataFrame:
    """Append answers, some of them twice, and errors of the moment, which are answered; what is to be found then."""
    every = []
    for chunk in range(first, first + chunks):
        # The next chunk of this call answers the last three keys of this one again.
        numbers = range(chunk * 30, (chunk + 1) * 30 + (3 if chunk < first + chunks - 1 else 0))
        given = pl.DataFrame({"key": [digest_of(number) for number in numbers], "text": [f"{chunk}: {number}" for number in numbers]})
        every.append(given)
        frame = given.select(pl.col(n) if n in given.columns else pl.lit(None).cast(t).alias(n) for n, t in SCHEMAS["chat"].items())
        store.append(frame)
        store.append(frame.tail(10).with_columns(text=pl.lit(None, pl.String()), error=pl.lit("timeout"), is_retryable=pl.lit(value=True)))
    return pl.concat(every).unique("key", keep="first", maintain_order=True)


def assert_whole(store: ResponseStore, expected: pl.DataFrame) -> None:
    expected = expected.sort("key")
    fresh = ResponseStore(store.root, store.kind, store.model)
    assert len(fresh.missing(expected["key"])) == 0
    assert fresh.lookup(expected["key"]).select("key", "text").equals(expected)
    assert verify("chat", store.folder) == []


def wait_for_a_write(folder: Path) -> None:
    """Return as soon as another process is writing a segment, or after five seconds in which none was seen to."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not any(folder.glob("*.partial")):
        pass


@pytest.mark.slow
def test_writers_readers_and_a_compaction_at_once_lose_nothing(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "chat", "m@r1")
    fill(store, 0, 3)
    writers = [start(WRITER, tmp_path, number) for number in (1, 2, 3)]
    compacter = start(COMPACTER, tmp_path, 10_000)
    try:
        for writer in writers:
            said, wrong = writer.communicate(timeout=240)
            assert said == "done\n", wrong
        assert compacter.poll() is None, compacter.communicate()[1]
    finally:
        compacter.kill()
        for writer in writers:
            writer.kill()
    assert len(compacter.communicate()[0].splitlines()) > 1, "it compacted while the others wrote"
    keys = pl.Series("key", [digest_of(number) for first in (1000, 2000, 3000) for number in range(first, first + 800)])
    assert len(store.missing(keys)) == 0
    done = compact(store.folder, "chat")
    assert done.segments_after <= 2
    assert verify("chat", store.folder) == []
    stored = pl.read_parquet(store.folder / "segment-*.parquet")
    assert stored["key"].is_unique().all()
    assert set(keys) <= set(stored["key"])


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_compaction_loses_nothing(tmp_path: Path) -> None:
    drawn = random.Random(0)
    store = ResponseStore(tmp_path, "chat", "m@r1")
    expected, partials = fill(store, 0, 40), 0
    for kill in range(1, 13):
        process = start(COMPACTER, tmp_path, 1_000_000)
        try:
            assert process.stdout
            assert process.stdout.readline(), process.communicate()[1]
            # Something to merge at every moment.
            expected = pl.concat([expected, fill(store, 40 * kill, 12)])
            if kill % 2:
                time.sleep(drawn.uniform(0, 0.1))
            else:
                wait_for_a_write(store.folder)
        finally:
            process.kill()
            process.communicate()
        left = len(list(store.folder.glob("*.partial")))
        assert store.sweep() == left, "nobody owns what the killed one was writing"
        partials += left
        assert_whole(store, expected)
    assert partials, "no kill hit a process that was writing"
    compact(store.folder, "chat")
    assert_whole(store, expected)
    assert len(listing(store.folder, "errors")) <= 1
    assert pl.read_parquet(store.folder / "segment-*.parquet")["key"].is_unique().all()
