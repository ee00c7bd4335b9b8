"""``rlhi plan``: which partitions it takes, and what it says of those that cannot be planned."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster.base.launching import command
from rlhi_dagster.cli import planning
from rlhi_dagster.engines.model_settings import ModelSettings


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))


@pytest.mark.parametrize(
    ("names", "first", "last", "message"),
    [
        (
            ["feedback_labels", "responses"],
            "garbage",
            "garbage",
            r"garbage is no partition of feedback_labels, responses; partitions are 2023-04\.\.\.",
        ),
        (["feedback_labels"], "2023-04", "2923-01", r"2923-01 is no partition of feedback_labels; partitions are 2023-04\.\.\."),
        (["feedback_labels"], "base", "base", "base is no partition of feedback_labels"),
        (["personas"], "2023-04", "2023-04", "2023-04 is no partition of personas; partitions are none: these assets are not partitioned"),
    ],
)
def test_a_range_that_is_no_partition_is_refused(names: list[str], first: str, last: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planning.plan(names, first, last)


def test_a_plan_tells_missing_tables_from_other_partitions() -> None:
    labels, responses = planning.plan(["feedback_labels", "responses"], None, None)
    assert labels.note == f"turns has not been materialized; run: {command('turns')}"
    assert responses.note.startswith("eval_prompts has not been materialized; run: ")
    labels, responses = planning.plan(["feedback_labels", "responses"], "2023-04", "2023-05")
    assert labels.note == f"turns lacks the partition(s) 2023-04, 2023-05; run: {command('turns', ['2023-04', '2023-05'])}"
    assert planning.plan(["responses"], "dpo_rewrites", "base")[0].note == "not planned: dpo_rewrites comes after base"
    assert responses.note == "not planned: it is partitioned by recipe, and 2023-04...2023-05 is not"


def test_a_plan_does_not_convert_a_gguf_file(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    workers = planning._resources()["workers"]
    with pytest.raises(ValueError, match="not planned: the worker 'convert' has to run before"):
        workers.find(dg.build_asset_context(), ModelSettings(gguf=str(file)))
