"""Damaged tables, segments and manifests: noticed before they are used, told by file and asset, with what makes them again."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from rlhi_dagster.base import failures, seals
from rlhi_dagster.base.failures import DamagedError, message
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TURNS, USERS, Table
from rlhi_dagster.engines.models import MANIFEST, digest_of, read_manifest, weights_digest, write_manifest
from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
from rlhi_dagster.store import uses
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import SCHEMAS, DamagedSegmentError
from rlhi_dagster.training.artefacts import PAIRS, made_of, read_pairs, write_pairs

FLIPS = 300
"""Of single bits, half of them in segments and half in tables."""


def fill(table: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(table.columns), **record} for record in records], schema=table.schema)


def answers(keys: list[str]) -> pl.DataFrame:
    given = {"key": keys, "text": [f"answer {key}" for key in keys], "cost_usd": np.arange(len(keys)) / 7}
    columns = [(pl.col(name) if name in given else pl.lit(None)).cast(dtype).alias(name) for name, dtype in SCHEMAS["chat"].items()]
    return pl.DataFrame(given).select(columns)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(root=str(tmp_path / "lake"))
    made.write("users", fill(USERS, [{"user_id": f"u{number}"} for number in range(40)]))
    return made


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def in_the_seals_name(content: bytes, bit: int) -> bool:
    """Nothing of what is read depends on that name: without it the file reads as one of an earlier version."""
    start = content.rfind(b"rlhi_seal")
    return start <= bit // 8 < start + len(b"rlhi_seal") + 2


def caught(do: Callable[[], Any], error: type[BaseException]) -> Any:
    """The error of a kind that ``do`` ends with; ``None`` if it ends well."""
    try:
        do()
    except error as found:
        return found
    return None


def told_of_flips(file: Path, read: Callable[[], pl.DataFrame], error: type[Exception], count: int) -> None:
    """Flip single bits of a file; each time either ``error`` names it, or what is read is the same."""
    content, drawn, expected = file.read_bytes(), random.Random(0), read()
    for bit in drawn.sample(range(8 * len(content)), count):
        file.write_bytes(flipped(content, bit))
        if told := caught(read, error):
            assert file.name in str(told)
        else:
            assert in_the_seals_name(content, bit), f"bit {bit} of {file.name} was not noticed"
            assert read().equals(expected)
    file.write_bytes(content)
    assert read().equals(expected)


def test_no_flipped_bit_of_a_segment_is_read(tmp_path: Path) -> None:
    store, keys = ResponseStore(tmp_path, "chat", "m@r1"), [digest_of(number) for number in range(60)]
    [file] = store.append(answers(keys))
    asked = pl.Series("key", keys)

    def read() -> pl.DataFrame:
        assert len(store.missing(asked)) == 0
        return store.lookup(asked)

    told_of_flips(file, read, DamagedSegmentError, FLIPS // 2)


def test_no_flipped_bit_of_a_table_is_read(lake: Lake) -> None:
    told_of_flips(lake.table_path("users"), lambda: lake.scan("users").collect(), DamagedError, FLIPS // 2)


def test_no_flipped_bit_of_a_table_without_some_rows_is_read(lake: Lake) -> None:
    assert lake.drop_rows("users", pl.col("user_id") == "u3") == 1
    told_of_flips(lake.table_path("users"), lambda: lake.scan("users").collect(), DamagedError, 40)


def test_flips_of_files_of_earlier_versions_are_errors_that_can_be_expected(tmp_path: Path, lake: Lake) -> None:
    file = lake.table_path("users")
    rows = lake.scan("users").collect()
    pq.write_table(rows.to_arrow(compat_level=pl.CompatLevel.oldest()), file, write_page_checksum=True)
    assert seals.check(file) is None
    content, noticed = file.read_bytes(), 0

    def read() -> None:
        with failures.told():
            lake.scan("users").collect()

    for bit in random.Random(0).sample(range(8 * len(content)), 60):
        file.write_bytes(flipped(content, bit))
        if error := caught(read, BaseException):
            noticed += 1
            assert isinstance(error, dg.Failure)
            assert "a file of users, is damaged" in (said := str(error.description)) or "rlhi verify" in said
    assert noticed > 30


@pytest.mark.parametrize("left", [0, 3, 11, 400, -1])
def test_a_file_that_was_cut_off_is_told_with_what_makes_it_again(lake: Lake, left: int) -> None:
    months = ["2023-04", "2023-05"]
    lake.write("turns", fill(TURNS, [{"turn_id": f"{month}:0", "month": month} for month in months]), months)
    for asset, partition, makes in (("users", None, "users"), ("turns", "2023-05", "turns --partition 2023-05")):
        file = lake.table_path(asset, partition)
        file.write_bytes(file.read_bytes()[:left])
        with pytest.raises(DamagedError) as raised:
            lake.scan(asset)
        assert message(raised.value).startswith(f"{file}, a file of {asset}, is damaged: ")
        assert message(raised.value).endswith(f'; run: DAGSTER_HOME="$(rlhi home)" dg launch --assets {makes}')
    with pytest.raises(DamagedError), lake.connect():
        pass
    with pytest.raises(DamagedError):
        lake.drop_rows("users", pl.lit(value=True))
    assert [error.made for error in lake.damaged()] == ["turns", "users"]
    assert lake.scan("turns", ["2023-04"]).collect()["turn_id"].to_list() == ["2023-04:0"], "the other months can be read"


def test_a_file_is_compared_once_and_again_when_it_is_another(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    original = seals._checked
    monkeypatch.setattr(seals, "_checked", lambda stream: looked.append(stream) or original(stream))
    for _ in range(3):
        lake.scan("users")
    assert len(looked) == 1
    (written,) = lake.write("users", fill(USERS, [{"user_id": "other"}]))
    lake.scan("users")
    assert len(looked) == 2
    assert seals.check(written.path) == written.seal


def test_a_panic_of_a_library_is_told_in_a_sentence() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(Exception, match="rlhi verify"), failures.told():
        raise panic("called `Result::unwrap()` on an `Err` value")
    with pytest.raises(KeyboardInterrupt), failures.told():
        raise KeyboardInterrupt


def test_a_damaged_manifest_is_told_and_its_artefact_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "lake" / "checkpoints" / "dpo"
    folder.mkdir(parents=True)
    told = write_manifest(
        folder, {"model": {"name": "é", "revision": "r", "path": None}, "inputs": "i", "loss": 0.1, "steps": [1e-7, (2, 3)]}
    )
    assert read_manifest(folder) == told
    content = (folder / MANIFEST).read_bytes()
    says = {name: told[name] for name in ("model", "inputs", "loss", "steps")}
    for bit in random.Random(0).sample(range(8 * len(content)), 200):
        (folder / MANIFEST).write_bytes(flipped(content, bit))
        if error := caught(lambda: read_manifest(folder), DamagedError):
            assert message(error).startswith(f"{folder / MANIFEST} is damaged")
            assert message(error).endswith("dg launch --assets checkpoints --partition dpo")
            assert made_of(folder, "i") is None
        else:  # white space, or the name of the checksum
            assert read_manifest(folder).items() >= says.items()
    (folder / MANIFEST).write_bytes(content)
    assert made_of(folder, "i") == told
    write_pairs(folder, pl.DataFrame({"pair_id": ["a", "b"]}))
    assert read_pairs(folder).equals(pl.DataFrame({"pair_id": ["a", "b"]}))
    (folder / PAIRS).write_bytes((folder / PAIRS).read_bytes()[:-1])
    with pytest.raises(DamagedError, match="is damaged"):
        read_pairs(folder)


@pytest.mark.parametrize("name", ["head.npz", "card.json"])
def test_a_damaged_classifier_is_told(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "feedback_classifier"
    FeedbackClassifier.load().save(folder)
    file = folder / name
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"[]", content.replace(b"a", b"b")):
        file.write_bytes(damaged)
        with pytest.raises(DamagedError) as raised:
            FeedbackClassifier.load(folder)
        assert message(raised.value).endswith("dg launch --assets feedback_classifier")


def test_a_damaged_record_of_what_an_asset_uses_is_told_and_replaced_by_its_next_run(tmp_path: Path) -> None:
    file = uses.record(tmp_path, "candidates", None, "run1", {("chat", "m@r1"): [digest_of(1)]})
    file.write_bytes(file.read_bytes()[:-5])
    for read in (lambda: uses.kinds(tmp_path), lambda: uses.last_run(tmp_path, "candidates"), lambda: uses.assets_of(tmp_path, "0")):
        with pytest.raises(DamagedError, match="what answers candidates uses, is damaged"):
            read()
    uses.record(tmp_path, "candidates", None, "run2", {("chat", "m@r1"): [digest_of(2)]})
    assert uses.kinds(tmp_path) == {"chat"}
    assert not file.exists()


def test_the_command_lists_what_is_damaged(tmp_path: Path, rlhi: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    lake = Lake(root=str(tmp_path / "lake"))
    lake.write("users", fill(USERS, [{"user_id": "u"}]))
    folder = lake.artefact_path("policy")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    write_manifest(folder, {"model": {"name": "p", "revision": weights_digest(folder), "path": "."}})
    store = ResponseStore(tmp_path / "responses", "chat", "m@r1")
    [segment] = store.append(answers([digest_of(1)]))
    sound = rlhi(tmp_path, "verify")
    assert (sound.returncode, "as they were written" in sound.stdout, "m@r1: sound" in sound.stdout) == (0, True, True), sound.stderr
    for file in (lake.table_path("users"), segment):
        file.write_bytes(flipped(file.read_bytes(), 400))
    (folder / "model.safetensors").write_bytes(b"weighty")
    home = tmp_path / "dagster_home" / "history" / "runs"
    home.mkdir(parents=True)
    (home / "run.db").write_bytes(b"SQLite format 3\0" + b"?" * 4000)
    damaged = rlhi(tmp_path, "verify")
    assert (damaged.returncode, damaged.stdout) == (1, "")
    for said in ("table.parquet, a file of users", "dg launch --assets users", "its weights are others", segment.name, "run.db"):
        assert said in damaged.stderr
    assert "Traceback" not in damaged.stderr
