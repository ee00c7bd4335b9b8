"""What stops training before it begins: lengths, contexts, disks; and which failures are told in one sentence."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster.base import failures
from rlhi_dagster.base.launching import command
from rlhi_dagster.engines.ask import StoppedError
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.unavailable import UnavailableModelError, loading
from rlhi_dagster.graph import declare
from rlhi_dagster.profiles import load
from rlhi_dagster.training.preflight import Writing, context_problem, disk_needed, disk_problem, lengths_problem
from tests.built import built

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


def test_a_limit_over_the_context_names_both_numbers_and_the_setting() -> None:
    told = context_problem("dpo_rewrites", "dpo", 8192, "org/model", 2048)
    assert told == (
        "dpo_rewrites: max_length 8,192 is over the context of org/model, 2,048 tokens: "
        "lower max_length of dpo or dpo_on_rewards in the profile, or settings.max_length of the recipe"
    )
    assert context_problem("dpo_rewrites", "dpo", 2048, "org/model", 2048) is None


def test_rows_that_are_all_too_long_are_told_with_their_lengths() -> None:
    told = lengths_problem("reward-model", "reward", [70, 65, 300], 64)
    assert told == (
        "reward-model: no pair to train on, all 3 are longer than max_length 64 tokens (the shortest has 65, the longest 300): "
        "raise reward.training.max_length of the profile"
    )
    assert lengths_problem("reward-model", "reward", [70, 64], 64) is None
    assert lengths_problem("reward-model", "reward", [], 64) == "reward-model: there is no pair to train on"


def test_disk_is_needed_for_weights_and_three_snapshots(tmp_path: Path) -> None:
    full = Writing.of(GIB, GIB, 4, tmp_path / "out", tmp_path / "work")
    assert (full.artefact, full.snapshot) == (4 * GIB, 12 * GIB)
    assert disk_needed([full]) == 36 * GIB
    # The first one's weights stay while the second one is trained.
    assert disk_needed([full, full]) == 40 * GIB
    adapters = Writing.of(8 * GIB, GIB // 64, 2, tmp_path / "out", tmp_path / "work")
    assert disk_needed([adapters]) == 2 * 12 * GIB // 64 + 16 * GIB


def test_what_is_replaced_and_what_an_earlier_try_left_is_not_needed_again() -> None:
    first = Writing(artefact=4, snapshot=12)
    again = Writing(artefact=4, snapshot=12, replaced=4)
    assert disk_needed([again, again]) == 36 < disk_needed([first, first])
    assert disk_needed([Writing(4, 12, left_over=24)]) == 12


def test_sizes_are_read_from_the_folders(tmp_path: Path) -> None:
    for name, size in (("out/model.safetensors", 30), ("work/checkpoint-2/optimizer.pt", 50)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"0" * size)
    found = Writing.of(1, 1, 4, tmp_path / "out", tmp_path / "work")
    assert (found.replaced, found.left_over) == (30, 50)


def test_a_full_disk_is_told_with_what_is_needed_and_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> Usage:
        asked.append(folder)
        return Usage(100 * GIB, 98 * GIB, 2 * GIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    told = disk_problem(tmp_path / "lake" / "checkpoints", 3 * GIB)
    assert told == (
        f"training needs 3.0 GiB under {tmp_path} for weights and snapshots with optimiser states, 2.0 GiB are free: "
        "free space or set RLHI_DATA to another disk"
    )
    assert asked == [tmp_path]  # what is not there yet has no disk of its own
    assert disk_problem(tmp_path, 2 * GIB) is None


@pytest.mark.parametrize(
    ("causes", "told"),
    [
        (["RepositoryNotFoundError", "GatedRepoError"], "is a gated model: ask for access at https://huggingface.co/org/model"),
        (
            ["RevisionNotFoundError"],
            "has no revision abc: write hub: org/model@<commit of 40 digits> with one of https://huggingface.co/org/model/commits",
        ),
        (["RepositoryNotFoundError"], "is no model of the Hub, or a private one"),
        (["HFValidationError"], "is no model of the Hub, or a private one"),
        (["LocalEntryNotFoundError"], "the Hub cannot be reached, and models.policy org/model at abc is not in its cache"),
        ([], "models.policy org/model at abc cannot be loaded: first line"),
    ],
)
def test_why_a_model_of_the_hub_cannot_be_loaded(causes: list[str], told: str) -> None:
    kind: type[Exception] = OSError
    for name in causes:
        kind = type(name, (kind,), {})
    with pytest.raises(UnavailableModelError) as raised, loading(ModelRef("org/model", "abc"), "models.policy"):
        raise OSError("first line.\nsecond line") from kind("of the Hub's library")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_why_a_folder_cannot_be_loaded(tmp_path: Path) -> None:
    told = rf"the folder {tmp_path} holds no model .*Unrecognized model\): weights, config and tokenizer must lie there"
    with pytest.raises(UnavailableModelError, match=told), loading(ModelRef("mine", "abc", str(tmp_path))):
        raise ValueError("Unrecognized model.\nOne of many.")


def raised(body: Callable[[], object]) -> Exception:
    try:
        body()
    except Exception as error:
        return error
    raise AssertionError


def fails(error: Exception, cause: Exception | None = None) -> Callable[[], object]:
    def body() -> None:
        raise error from cause

    return body


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "no space is left"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (MemoryError(), r"out of memory \(MemoryError\): lower micro_batch_size"),
        (StoppedError("stopped: 3 of 5"), "^stopped: 3 of 5$"),
    ],
)
def test_what_can_be_expected_has_a_sentence(error: Exception, told: str) -> None:
    assert re.search(told, failures.sentence(raised(fails(error))) or "")


def test_a_full_disk_counts_wherever_it_shows_first() -> None:
    error = raised(fails(KeyError("later"), OSError(errno.EDQUOT, "Disk quota exceeded")))
    assert (failures.sentence(error) or "").startswith("no space is left")


def test_errors_of_libraries_and_bugs_keep_their_stack_trace(tmp_path: Path) -> None:
    assert failures.sentence(raised(lambda: json.loads("{"))) is None
    assert failures.sentence(raised(fails(RuntimeError("a bug")))) is None
    assert failures.sentence(raised(lambda: (tmp_path / "gone").read_text())) is None


def test_a_sentence_that_the_project_raises_itself_is_told_in_one_line(tmp_path: Path) -> None:
    error = raised(lambda: ModelRef.from_manifest(tmp_path / "policy"))
    assert (failures.sentence(error) or "").endswith(f"holds no finished model (manifest.json is missing); run: {command('policy')}")


def alone(error: Exception) -> declare.Step:
    @declare.asset("failing", "training", {"pytorch"})
    def failing() -> None:
        """Fails."""
        raise error

    return failing


def in_company(error: Exception) -> declare.Step:
    """Fails when the first of two assets has been made."""

    @declare.together("failing", "recipe", [declare.Out(name, "training", {"pytorch"}) for name in ("made", "failed")])
    def failing() -> Iterator[dg.MaterializeResult[None]]:
        yield dg.MaterializeResult(asset_key="made")
        raise error

    return failing


@pytest.mark.parametrize("asset", [alone, in_company])
@pytest.mark.parametrize("error", [StoppedError("a sentence\nof two lines"), RuntimeError("a bug")])
def test_an_asset_fails_with_the_sentence_or_with_the_error(error: Exception, asset: Callable[[Exception], declare.Step]) -> None:
    result = dg.materialize(built(load("sample"), asset(error)), partition_key=None if asset is alone else "base", raise_on_error=False)
    assert len(result.get_asset_materialization_events()) == (asset is in_company)
    [event] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    data = event.step_failure_data
    if isinstance(error, StoppedError):
        assert data.user_failure_data
        assert data.user_failure_data.description == "a sentence of two lines"
    else:
        assert data.user_failure_data is None
        assert data.error
        assert "a bug" in data.error.to_string()
