"""Compaction, garbage, verification, figures, references, and their command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.store import compaction, erase, uses
from rlhi_dagster.store.compaction import compact
from rlhi_dagster.store.garbage import Rule, collect
from rlhi_dagster.store.integrity import verify
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import ANSWERED_AT, SCHEMAS, listing, stored_schema, write_segment
from rlhi_dagster.store.stats import stats

ROOT = Path(__file__).parents[2]
MODEL = "town/model@r1"


def keys(first: int, last: int) -> list[str]:
    return [digest_of(number) for number in range(first, last)]


def rows(wanted: list[str], text: str | None = "t", **values: object) -> pl.DataFrame:
    given = {"key": wanted, "text": [text] * len(wanted), **{name: [value] * len(wanted) for name, value in values.items()}}
    frame = pl.DataFrame(given)
    return frame.select((pl.col(n) if n in given else pl.lit(None)).cast(t).alias(n) for n, t in SCHEMAS["chat"].items())


def error_rows(wanted: list[str], reason: str = "timeout: 3 s") -> pl.DataFrame:
    return rows(wanted, None, error=reason, is_retryable=True)


def aged(segment: Path, days: float) -> Path:
    """Write a segment as if its answers had been kept so many days ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    pl.read_parquet(segment).with_columns(pl.lit(then).cast(pl.Datetime("us", "UTC")).alias(ANSWERED_AT)).write_parquet(segment)
    return segment


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path, "chat", MODEL)


def texts(store: ResponseStore, wanted: list[str]) -> dict[str, str | None]:
    fresh = ResponseStore(store.root, store.kind, store.model)
    return dict(fresh.lookup(pl.Series("key", wanted, dtype=pl.String())).select("key", "text").iter_rows())


# Compaction


def test_small_segments_become_few_and_each_key_is_kept_once(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_ROWS", 1_000)
    for chunk in range(30):
        store.append(rows(keys(100 * chunk, 100 * chunk + 110), f"{chunk}"))
    expected = {key: f"{max(number - 10, 0) // 100 if number % 100 < 10 else number // 100}" for number, key in enumerate(keys(0, 3_010))}
    assert texts(store, list(expected)) == expected
    done = compact(store.folder, "chat")
    assert (done.segments_before, done.segments_after, done.repeated_rows) == (30, 4, 290)
    stored = pl.concat(pl.read_parquet(store.folder / name) for name in listing(store.folder, "segment"))
    assert len(stored) == 3_010 == stored["key"].n_unique()
    assert texts(store, list(expected)) == expected
    assert dict(store.lookup(pl.Series("key", list(expected))).select("key", "text").iter_rows()) == expected, "a store opened before"
    assert verify("chat", store.folder) == []
    assert compact(store.folder, "chat").segments_after == 4


def test_a_merge_is_bounded_in_bytes_too(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_BYTES", 100_000)
    for chunk in range(12):
        store.append(rows(keys(20 * chunk, 20 * chunk + 20), os.urandom(10_000).hex()))
    assert 2 < compact(store.folder, "chat").segments_after < 12


def test_time_of_answers_and_order_of_segments_outlive_compaction(store: ResponseStore) -> None:
    for days, chunk in ((30, 0), (20, 1), (10, 2)):
        aged(store.append(rows(keys(chunk, chunk + 1)))[0], days)
    before = pl.read_parquet(store.folder / "segment-*.parquet").sort("key").select("key", ANSWERED_AT)
    compact(store.folder, "chat")
    assert pl.read_parquet(store.folder / "segment-*.parquet").sort("key").select("key", ANSWERED_AT).equals(before)


def test_answered_errors_go_and_the_newest_of_the_others_stays(store: ResponseStore) -> None:
    for reason in ("busy: 1", "busy: 2", "busy: 3"):
        store.append(error_rows(keys(0, 10), reason))
    store.append(rows(keys(0, 4)))
    done = compact(store.folder, "chat")
    assert (done.segments_before, done.segments_after, done.error_rows) == (4, 2, 4 + 20)
    left = store.lookup(pl.Series("key", keys(0, 10)))
    assert sorted(left["error"].drop_nulls()) == ["busy: 3"] * 6
    assert set(store.missing(pl.Series("key", keys(0, 10)))) == set(keys(4, 10))
    store.append(rows(keys(4, 10)))
    assert compact(store.folder, "chat").error_rows == 6
    assert listing(store.folder, "errors") == []


def test_old_segments_are_merged_with_new_ones(store: ResponseStore) -> None:
    [segment] = store.append(rows(keys(0, 5)))
    old = store.folder / "segment-0123456789abcdef01234567.parquet"
    pl.read_parquet(segment).drop("settings", "cached_tokens", ANSWERED_AT).write_parquet(old)
    segment.unlink()
    os.utime(old, (1_700_000_000, 1_700_000_000))
    store.append(rows(keys(5, 10), cached_tokens=3))
    compact(store.folder, "chat")
    [name] = listing(store.folder, "segment")
    merged = pl.read_parquet(store.folder / name).filter(pl.col("key").is_in(keys(0, 5)))
    assert merged.schema == stored_schema("chat")
    assert merged[ANSWERED_AT].unique().dt.epoch("s").to_list() == [1_700_000_000]
    found = store.lookup(pl.Series("key", keys(0, 10)))
    assert found["cached_tokens"].sort().to_list() == [0] * 5 + [3] * 5


def test_only_partials_that_nobody_writes_any_more_are_removed(store: ResponseStore) -> None:
    store.append(rows(keys(0, 5)))
    old, new = store.folder / "segment-1.partial", store.folder / "segment-2.partial"
    for file in (old, new):
        file.write_bytes(b"PAR1")
    program = "import sys, time; from rlhi_dagster.base import owned; f = owned.own(open(sys.argv[1])); print(flush=True); time.sleep(99)"
    writer = subprocess.Popen([sys.executable, "-c", program, new], cwd=ROOT, stdout=subprocess.PIPE)
    assert writer.stdout
    writer.stdout.readline()
    # One whose writer finishes between its listing and the look at its age.
    (store.folder / "segment-3.partial").symlink_to("gone")
    assert [problem.file for problem in verify("chat", store.folder)] == [old]
    assert compact(store.folder, "chat").partial_files == 1
    assert new.exists()
    assert not old.exists()
    writer.kill()
    writer.communicate()
    assert (store.sweep(), new.exists()) == (1, False)


@pytest.mark.parametrize("how", ["compact", "gc", "remove"])
def test_the_index_of_an_earlier_version_is_ignored_and_goes(store: ResponseStore, how: str) -> None:
    old = rows(keys(0, 20), "old")
    for part in (old[:10], old[10:]):
        aged(store.append(part)[0], 40)
    store.append(rows(keys(20, 30), "new"))
    index = store.folder / "index.arrow"
    write_old_index(index, keys(0, 20), [*listing(store.folder, "segment")[:1], "segment-0-gone.parquet"])
    expected = dict.fromkeys(keys(0, 20), "old") | dict.fromkeys(keys(20, 30), "new")
    assert texts(store, keys(0, 30)) == expected
    assert store.missing(pl.Series("key", keys(0, 31))).to_list() == keys(30, 31)
    assert verify("chat", store.folder) == []
    assert index.exists(), "reading changes nothing"
    match how:
        case "compact":
            compact(store.folder, "chat")
        case "gc":
            collect(store.root, Rule(timedelta(days=30), is_unreferenced=False), delete=True)
            expected = dict.fromkeys(keys(20, 30), "new")
        case _:
            erase.remove(store.root, keys(0, 1))
            del expected[keys(0, 1)[0]]
    assert not index.exists(), "it names answers that may be gone"
    assert texts(store, keys(0, 30)) == expected


def write_old_index(file: Path, wanted: list[str], segments: list[str]) -> None:
    """An index as stores had one: sorted entries with the halves of a key, the number of its segment, and its row (a wrong one here)."""
    halves = sorted((int(key[:16], 16), int(key[16:], 16)) for key in wanted)
    entries = {
        "hi": pa.array([hi for hi, _ in halves], pa.uint64()),
        "lo": pa.array([lo for _, lo in halves], pa.uint64()),
        "segment": pa.array([number % 2 for number in range(len(halves))], pa.uint32()),
        "row": pa.array([0] * len(halves), pa.uint32()),
    }
    table = pa.table(entries).replace_schema_metadata({"segments": json.dumps(segments)})
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def test_a_damaged_segment_stops_compaction_before_anything_is_deleted(store: ResponseStore) -> None:
    segments = [store.append(rows(keys(chunk, chunk + 1)))[0] for chunk in range(3)]
    segments[1].write_bytes(segments[1].read_bytes()[:-9])
    with pytest.raises(ValueError, match=segments[1].name):
        compact(store.folder, "chat")
    assert set(listing(store.folder, "segment")) >= {segment.name for segment in segments}


@pytest.mark.parametrize("dies", ["before the first deletion", "after the third deletion"])
def test_compaction_that_dies_at_a_step_loses_nothing_and_is_finished_by_the_next(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    for chunk in range(6):
        store.append(rows(keys(10 * chunk, 10 * chunk + 12), f"{chunk}"))
    expected = texts(store, keys(0, 62))
    deleted: list[Path] = []

    def unlink(file: Path, missing_ok: bool = False) -> None:
        if file.suffix == ".parquet":
            if dies == "before the first deletion" or len(deleted) == 3:
                raise KeyboardInterrupt
            deleted.append(file)
        os.unlink(file) if file.exists() or not missing_ok else None  # noqa: PTH108

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            compact(store.folder, "chat")
    assert len(listing(store.folder, "segment")) == (4 if "third" in dies else 7)
    assert texts(store, keys(0, 62)) == expected
    assert verify("chat", store.folder) == []
    compact(store.folder, "chat")
    assert len(listing(store.folder, "segment")) == 1
    assert texts(store, keys(0, 62)) == expected
    assert verify("chat", store.folder) == []


# Garbage


def test_nothing_goes_without_being_told_to_and_only_the_old_goes(store: ResponseStore) -> None:
    aged(store.append(rows(keys(0, 10)))[0], 40)
    aged(store.append(error_rows(keys(10, 15)))[0], 40)
    store.append(rows(keys(20, 30)))
    rule = Rule(timedelta(days=30), is_unreferenced=False)
    before = {file: file.read_bytes() for file in store.folder.glob("*.parquet")}
    [found] = collect(store.root, rule, delete=False)
    assert (found.rows, found.of_rows) == (15, 25)
    assert found.size == sum(len(content) for file, content in before.items() if file.name in found_old(store))
    assert {file: file.read_bytes() for file in store.folder.glob("*.parquet")} == before
    [found] = collect(store.root, rule, delete=True)
    assert found.rows == 15
    assert texts(store, keys(0, 30)) == dict.fromkeys(keys(20, 30), "t")
    assert verify("chat", store.folder) == []
    assert collect(store.root, rule, delete=True)[0].rows == 0


def found_old(store: ResponseStore) -> set[str]:
    names = [*listing(store.folder, "segment"), *listing(store.folder, "errors")]
    month_ago = datetime.now(UTC) - timedelta(days=30)
    return {name for name in names if (pl.read_parquet(store.folder / name)[ANSWERED_AT] < month_ago).all()}


def test_what_no_last_materialization_used_goes_if_it_is_older_than_a_day(tmp_path: Path, store: ResponseStore) -> None:
    aged(store.append(rows(keys(0, 100)))[0], 2)
    store.append(rows(keys(100, 110)))
    unused = ResponseStore(tmp_path, "chat", "gone@r0")
    aged(unused.append(rows(keys(0, 7)))[0], 2)
    rewards = ResponseStore(tmp_path, "reward", "judge@r1")
    rewards.append(pl.DataFrame({"key": keys(0, 3)}).select(pl.lit(None).alias(n) if n != "key" else "key" for n in rewards.schema))
    rule = Rule(None, is_unreferenced=True)
    with pytest.raises(ValueError, match="no materialization has recorded"):
        collect(tmp_path, rule, delete=True)
    uses.record(tmp_path, "candidates", ["2024-01"], "run1", {("chat", MODEL): keys(0, 30)})
    uses.record(tmp_path, "rewrites", None, "run1", {("chat", MODEL): keys(20, 40)})
    found = {each.folder.name: each for each in collect(tmp_path, rule, delete=True)}
    assert (found["town-model@r1"].rows, found["gone@r0"].rows, found["judge@r1"].rows) == (60, 7, 0)
    assert "of kind reward" in str(found["judge@r1"].note)
    assert set(texts(store, keys(0, 110))) == set(keys(0, 40) + keys(100, 110))
    assert listing(unused.folder, "segment") == []


def test_both_conditions_together_must_both_hold(tmp_path: Path, store: ResponseStore) -> None:
    for days, first in ((50, 0), (5, 10)):
        aged(store.append(rows(keys(first, first + 10)))[0], days)
    uses.record(tmp_path, "candidates", None, "run1", {("chat", MODEL): [*keys(0, 5), *keys(10, 15)]})
    [found] = collect(tmp_path, Rule(timedelta(days=30), is_unreferenced=True), delete=True)
    assert found.rows == 5
    assert set(texts(store, keys(0, 20))) == set(keys(0, 5) + keys(10, 20))
    with pytest.raises(ValueError, match="say what is garbage"):
        collect(tmp_path, Rule(None, is_unreferenced=False), delete=True)


# References


def test_a_run_replaces_the_records_of_the_partitions_that_it_repeats(tmp_path: Path) -> None:
    def used() -> set[str]:
        return set(uses.referenced(tmp_path, "chat", MODEL))

    def record(asset: str, partitions: list[str] | None, run: str, *numbers: int) -> None:
        uses.record(tmp_path, asset, partitions, run, {("chat", MODEL): [digest_of(number) for number in numbers]})

    def of(*numbers: int) -> set[str]:
        return {digest_of(number) for number in numbers}

    record("a", ["m1"], "r1", 1)
    record("a", ["m2"], "r2", 2)
    record("b", ["m1"], "r1", 3)
    assert used() == of(1, 2, 3)
    record("a", ["m1", "m3"], "r3", 4)
    assert used() == of(2, 3, 4), "m1 is replaced; m2 and the other asset stay"
    record("a", ["m1", "m3"], "r3", 5, 4)
    assert used() == of(2, 3, 4, 5), "a run records more than once"
    record("a", ["m1"], "r4", 6)
    assert used() == of(2, 3, 4, 5, 6), "m3 of r3 may still need what r3 recorded"
    record("c", None, "r5", 7)
    record("c", None, "r6", 8)
    assert used() == of(2, 3, 4, 5, 6, 8)
    assert [each.asset for each in uses.assets_of(tmp_path, digest_of(8))] == ["c"]
    assert uses.referenced(tmp_path, "reward", MODEL).to_list() == []
    assert uses.kinds(tmp_path) == {"chat"}


# Verification


def rewrite(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def do(file: Path) -> None:
        write_segment(file, change(pl.read_parquet(file)))

    return do


def flip(file: Path) -> None:
    """Change one bit of some key; what comes out may well be another key."""
    content = bytearray(file.read_bytes())
    content[20_000] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (flip, "cannot be read"),
        (rewrite(lambda rows: rows.with_columns(pl.col("key").str.to_uppercase())), "not 32 hexadecimal digits"),
        (rewrite(lambda rows: rows.with_columns(key=pl.col("key").str.head(31))), "not 32 hexadecimal digits"),
        (rewrite(lambda rows: rows.sort("key", descending=True)), "not in ascending order"),
        (rewrite(lambda rows: pl.concat([rows[:1], rows])), "not in ascending order"),
        (rewrite(lambda rows: rows.with_columns(mood=1)), "column mood is unknown"),
        (rewrite(lambda rows: rows.with_columns(pl.col("text").cast(pl.Binary()))), "column text is Binary"),
        (rewrite(lambda rows: rows.drop("key")), "column key is missing"),
    ],
)
def test_verify_names_damaged_segments(store: ResponseStore, damage: Callable[[Path], None], expected: str) -> None:
    store.append(rows(keys(0, 50)))
    [segment] = store.append(rows(keys(50, 2_000), os.urandom(100).hex()))
    assert verify("chat", store.folder) == []
    damage(segment)
    [problem] = verify("chat", store.folder)
    assert (problem.file, bool(re.search(expected, problem.what))) == (segment, True), problem.what


def test_verify_names_strangers_and_final_answers_among_errors(store: ResponseStore) -> None:
    [segment] = store.append(error_rows(keys(0, 5)))
    rewrite(lambda rows: rows.with_columns(is_retryable=pl.lit(value=False)))(segment)
    (store.folder / "notes.txt").write_text("hello")
    found = {problem.file.name: problem.what for problem in verify("chat", store.folder)}
    assert "final answer" in found[segment.name]
    assert "no file of a response store" in found["notes.txt"]


# Figures and the command


def test_stats_count_answers_errors_tokens_and_cost(store: ResponseStore) -> None:
    aged(store.append(rows(keys(0, 10), prompt_tokens=5, completion_tokens=2, cost_usd=0.25, cached_tokens=1))[0], 3)
    store.append(rows(keys(10, 12), None, error="prompt_too_long: 9 of 8"))
    store.append(error_rows(keys(12, 15)))
    found = stats("chat", store.folder)
    assert (found.rows, found.segments) == (15, 3)
    assert found.errors == {"prompt_too_long": 2, "timeout": 3}
    assert found.sums == {"prompt_tokens": 50, "cached_tokens": 10, "completion_tokens": 20, "cost_usd": 2.5}
    assert found.size == sum(file.stat().st_size for file in store.folder.iterdir())
    assert found.oldest
    assert found.newest
    assert found.newest - found.oldest > timedelta(days=2.9)


def test_the_command_ends_with_what_was_found(tmp_path: Path, rlhi: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    empty = rlhi(tmp_path, "store", "stats")
    assert (empty.returncode, "no response store" in empty.stderr) == (1, True)
    store = ResponseStore(tmp_path / "responses", "chat", MODEL)
    for chunk in range(3):
        aged(store.append(rows(keys(10 * chunk, 10 * chunk + 10), "SECRET", prompt_tokens=7))[0], 60)
    assert "30 answers in 3 files" in rlhi(tmp_path, "store", "stats").stdout
    assert rlhi(tmp_path, "store", "verify").stdout == "chat town-model@r1: sound\n"
    assert "3 files before, 1 after" in rlhi(tmp_path, "store", "compact").stdout
    shown = rlhi(tmp_path, "store", "gc", "--older-than", "30").stdout
    assert "nothing is deleted without --yes; would go: 30 answers" in shown
    assert len(store.missing(pl.Series("key", keys(0, 30)))) == 0
    explained = rlhi(tmp_path, "store", "explain", keys(0, 1)[0][:12])
    assert keys(0, 1)[0] in explained.stdout
    [name] = listing(store.folder, "segment")
    (store.folder / name).write_bytes((store.folder / name).read_bytes()[:-9])
    unsound = rlhi(tmp_path, "store", "verify")
    assert (unsound.returncode, unsound.stdout) == (1, "")
    assert name in unsound.stderr
    assert "SECRET" not in "".join([explained.stdout, shown, unsound.stderr])
    assert rlhi(tmp_path, "store", "gc").returncode == 1
    assert "neither an asset" in rlhi(tmp_path, "store", "explain", "nobody").stderr


def test_the_command_loads_no_model_library() -> None:
    program = "import sys, rlhi_dagster.cli.main; print({'torch', 'transformers', 'vllm', 'ray'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "set()\n"
