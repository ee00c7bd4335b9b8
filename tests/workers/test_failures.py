"""How a worker's failure reaches its asset, and a disk that is full midway."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import polars as pl
import pytest

from rlhi_dagster.engines.models import MANIFEST, ModelRef, weights_digest
from rlhi_dagster.graph import pipes
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings

OPENED = "from dagster_pipes import open_dagster_pipes\nfrom rlhi_dagster.workers.expected import told\n"


def outcome(body: str, job: dict[str, object] | None = None) -> tuple[str, bool, str]:
    """The description of the failure of a program, whether it was tried again, and the errors in Dagster's log."""

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def asks(context: dg.AssetExecutionContext) -> None:
        pipes.run(context, "verify", [sys.executable, "-c", body], [job or {}])

    with dg.instance_for_test() as instance:
        result = dg.materialize([asks], instance=instance, raise_on_error=False)
        kinds = [event.event_type_value for event in result.all_events]
        [failed] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
        assert failed.step_failure_data.user_failure_data
        described = failed.step_failure_data.user_failure_data.description
        logged = [entry.dagster_event for entry in instance.all_logs(result.run_id, dg.DagsterEventType.ENGINE_EVENT)]
        errors = [event.event_specific_data.error for event in logged]
        return described, "STEP_RESTARTED" in kinds, "".join(error.to_string() for error in errors if error)


def test_an_expected_failure_is_the_sentence_alone_and_is_not_tried_again() -> None:
    described, is_tried_again, logged = outcome(
        f"{OPENED}with open_dagster_pipes(), told():\n    raise ValueError('set it\\n to 3: then go')"
    )
    assert described == "set it to 3: then go"
    assert not is_tried_again
    assert "ExpectedError" in logged


def test_an_unexpected_one_names_worker_and_exception_and_keeps_its_stack_trace() -> None:
    described, is_tried_again, logged = outcome(f"{OPENED}import json\nwith open_dagster_pipes(), told():\n    json.loads('{{')")
    assert described.startswith("worker verify failed unexpectedly with json.decoder.JSONDecodeError: Expecting property name")
    assert is_tried_again
    assert "raw_decode" in logged


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "worker verify was ended by SIGKILL, as the system does when memory"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "worker verify was ended by SIGTERM; what it had finished is kept"),
        ("raise SystemExit(3)", "worker verify ended with status 3 before it could say why: see stderr of this run"),
    ],
)
def test_a_worker_that_says_nothing_is_told_by_how_it_ended(body: str, told: str) -> None:
    described, is_tried_again, _ = outcome(body)
    assert described.startswith(told)
    assert is_tried_again


LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
runpy.run_module("rlhi_dagster.workers.train_dpo", run_name="__main__", alter_sys=True)
"""
"""Trains where no file can be larger than 40 kB: the weights of the tiny model have room, the optimiser's states do not."""


@pytest.fixture
def job(tmp_path: Path, save_tiny_llama: Callable[..., None]) -> dict[str, object]:
    texts = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
    save_tiny_llama(tmp_path / "model", texts, max_position_embeddings=128)
    rows = [
        {"pair_id": f"p{n}", "prompt": [{"role": "user", "content": f"{texts[n % 3]} {n}"}], "chosen": texts[n % 2], "rejected": f"No {n}."}
        for n in range(12)
    ]
    pl.DataFrame(rows[:8], schema=TRAINING_ROWS).write_parquet(tmp_path / "train.parquet")
    pl.DataFrame(rows[8:], schema=TRAINING_ROWS).write_parquet(tmp_path / "validation.parquet")
    model = ModelRef("tiny", weights_digest(tmp_path / "model"), str(tmp_path / "model"))
    settings = DPOSettings(
        learning_rate=1e-3,
        batch_size=2,
        micro_batch_size=2,
        warmup_steps=1,
        max_length=96,
        bf16=False,
        gradient_checkpointing=False,
        save_steps=1,
        logging_steps=1,
    )
    return {
        "name": "tiny",
        "method": "dpo",
        "model": model.to_dict(),
        "train": str(tmp_path / "train.parquet"),
        "validation": str(tmp_path / "validation.parquet"),
        "settings": settings.model_dump(),
        "out": str(tmp_path / "lake" / "tiny"),
        "inputs": "v1",
        "store": str(tmp_path / "responses"),
        "extra": {},
        "origin": {},
        "events": str(tmp_path / "events"),
    }


@pytest.mark.slow
def test_a_disk_that_is_full_midway_is_told_and_leaves_nothing_half_written(job: dict[str, object]) -> None:
    out = Path(str(job["out"]))
    given = {"jobs": [job], "later": []}
    described, is_tried_again, _ = outcome(LIMITED, given)
    assert described.startswith("no space is left on the device of the outputs: free some or set RLHI_DATA to another disk")
    assert not is_tried_again
    assert not out.exists()
    assert not list(out.parent.glob(".tiny.partial")) + list(out.parent.glob(".tiny.training/checkpoint-*"))

    @dg.asset
    def trains(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        pipes.run(context, "train_dpo", [sys.executable, "-m", "rlhi_dagster.workers.train_dpo"], [given])
        return dg.MaterializeResult()

    assert dg.materialize([trains]).success
    assert json.loads((out / MANIFEST).read_text())["chosen"]["of"] == 4
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG"), "the worker draws what the asset shows"


@pytest.mark.parametrize("state", [None, "", '{"epoch": 1.0, "log_his'])
def test_only_a_snapshot_whose_last_file_is_whole_is_resumed(job: dict[str, object], state: str | None) -> None:
    from rlhi_dagster.workers import train_loop

    read = train_loop.TrainingJob.from_dict(job)
    for step in (2, 4):
        (read.work / f"checkpoint-{step}").mkdir(parents=True)
    (read.work / "inputs").write_text(read.inputs)
    (read.work / "checkpoint-2" / "trainer_state.json").write_text("{}")
    if state is not None:
        (read.work / "checkpoint-4" / "trainer_state.json").write_text(state)
    train_loop._prepare_work(read)
    assert [each.name for each in read.work.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_message_that_is_written_in_pieces_is_read_whole_or_not_at_all(tmp_path: Path, is_killed: bool) -> None:
    path, has_ended = tmp_path / "messages", Event()
    path.touch()
    read: list[bytes] = []
    thread = Thread(target=lambda: read.extend(pipes.whole_lines(path, has_ended)))
    thread.start()
    for piece in ("first\nsec", "ond, which is ", "" if is_killed else "long: ü\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write(piece)
        time.sleep(0.05)
    has_ended.set()
    thread.join()
    assert read == [b"first", *([] if is_killed else ["second, which is long: ü".encode()])]


def test_a_closing_message_that_is_written_in_pieces_still_says_why() -> None:
    described, _, _ = outcome(
        f"{OPENED}import json, time, dagster_pipes\n"
        "def slowly(self, message):\n"
        "    text = json.dumps(message) + '\\n'\n"
        "    for piece in (text[:40], text[40:]):\n"
        "        with open(self._path, 'a') as file: file.write(piece)\n"
        "        time.sleep(0.1)\n"
        "dagster_pipes.PipesFileMessageWriterChannel.write_message = slowly\n"
        "with open_dagster_pipes(), told():\n    raise ValueError('set it to 3')"
    )
    assert described == "set it to 3"
