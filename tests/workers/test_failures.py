"""How a worker's failure reaches its asset, what is tried again by itself, and a disk that is full midway."""

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
from rlhi_dagster.graph import pipes, recovery
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings

OPENED = "from dagster_pipes import open_dagster_pipes\nfrom rlhi_dagster.workers.expected import told\n"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "SECONDS", 0.0)


def asking(body: str, job: dict[str, object] | None = None, limit: int | None = None) -> dg.AssetsDefinition:
    """An asset that runs a program as its worker."""

    @dg.asset
    def asks(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with recovery.tried_again(limit):
            pipes.run(context, "verify", [sys.executable, "-c", body], [job or {}])
        return dg.MaterializeResult()

    return asks


def outcome(body: str, job: dict[str, object] | None = None, limit: int | None = None) -> tuple[str, int, str]:
    """The description of the failure of a program, how often it was tried again, and the errors in Dagster's log."""
    asks = asking(body, job, limit)
    with dg.instance_for_test() as instance:
        result = dg.materialize([asks], instance=instance, raise_on_error=False)
        kinds = [event.event_type_value for event in result.all_events]
        [failed] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
        assert failed.step_failure_data.user_failure_data
        described = failed.step_failure_data.user_failure_data.description
        logged = [entry.dagster_event for entry in instance.all_logs(result.run_id, dg.DagsterEventType.ENGINE_EVENT)]
        errors = [event.event_specific_data.error for event in logged]
        return described, kinds.count("STEP_RESTARTED"), "".join(error.to_string() for error in errors if error)


def test_an_expected_failure_is_the_sentence_alone_and_is_not_tried_again() -> None:
    described, tries, logged = outcome(f"{OPENED}with open_dagster_pipes(), told():\n    raise ValueError('set it\\n to 3: then go')")
    assert described == "set it to 3: then go"
    assert tries == 0
    assert "ExpectedError" in logged


def test_an_unexpected_one_names_worker_and_exception_keeps_its_stack_trace_and_is_not_tried_again() -> None:
    described, tries, logged = outcome(f"{OPENED}import json\nwith open_dagster_pipes(), told():\n    json.loads('{{')")
    assert described.startswith("worker verify failed unexpectedly with json.decoder.JSONDecodeError: Expecting property name")
    assert tries == 0
    assert "raw_decode" in logged


@pytest.mark.parametrize(
    ("body", "told", "tries"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "worker verify was ended by SIGKILL; what it had finished is kept", 2),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "worker verify was ended by SIGTERM; what it had finished is kept", 2),
        ("import os\nos.abort()", "worker verify was ended by SIGABRT; what it had finished is kept", 0),
        ("raise SystemExit(3)", "worker verify ended with status 3 before it could say why: see stderr of this run", 0),
    ],
)
def test_a_worker_that_says_nothing_is_told_by_how_it_ended_and_tried_again_if_somebody_ended_it(body: str, told: str, tries: int) -> None:
    described, tried, _ = outcome(body)
    assert described.startswith(told)
    assert tried == tries


KILLED_ONCE = """
import os, signal, sys
from pathlib import Path
mark = Path({mark!r})
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_is_killed_once_costs_nobody_a_launch(tmp_path: Path) -> None:
    done = dg.materialize([asking(KILLED_ONCE.format(mark=str(tmp_path / "mark")))])
    assert done.success
    (tried,) = [each for each in done.all_events if each.event_type_value == "STEP_UP_FOR_RETRY"]
    assert tried.step_retry_data.error
    assert "worker verify was ended by SIGKILL" in tried.step_retry_data.error.to_string()


def test_a_run_with_a_limit_is_not_tried_again_or_it_would_ask_for_more() -> None:
    _, tries, _ = outcome("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", limit=5)
    assert tries == 0


def test_a_worker_that_the_system_killed_for_its_memory_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = tmp_path / "vmstat"
    counts.write_text("nr_free_pages 7\noom_kill 1\n")
    monkeypatch.setattr(pipes, "_KERNEL_COUNTS", counts)
    body = f"import os, signal\nopen({str(counts)!r}, 'w').write('nr_free_pages 3\\noom_kill 2\\n')\nos.kill(os.getpid(), signal.SIGKILL)"
    described, tries, _ = outcome(body)
    assert described.startswith(
        "worker verify was ended by SIGKILL, and memory ran out: lower batch_size of the engine or micro_batch_size"
    )
    assert tries == 0


def test_a_worker_that_lost_a_connection_says_so_and_is_tried_again() -> None:
    body = "with open_dagster_pipes(), told():\n    raise PassingError('no server')"
    described, tries, _ = outcome(f"{OPENED}from rlhi_dagster.base.failures import PassingError\n{body}")
    assert (described, tries) == ("no server", 2)


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
    described, tries, _ = outcome(LIMITED, given)
    assert described.startswith("no space is left on the device of the outputs: free some or set RLHI_DATA to another disk")
    assert tries == 0
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
