"""Rows handed to a worker hold chat text: they are there as long as the worker needs them, and no longer."""

from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.reasoning.math_answers import Solution


def materialized(root: Path) -> bool:
    @dg.asset
    def asks(context: dg.AssetExecutionContext, workers: dg.ResourceParam[Workers]) -> dg.MaterializeResult[None]:
        workers.verify(context, [Solution("3", "Answer: 3")])
        return dg.MaterializeResult()

    workers = Workers(root)
    return dg.materialize([asks], resources={"workers": workers}, raise_on_error=False).success


def left(root: Path) -> list[Path]:
    return [path for path in (root / "work").rglob("*") if path.is_file()]


def test_job_files_go_when_their_worker_has_ended_well_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import sys\nif 'rlhi_dagster.workers' in ' '.join(sys.orig_argv): sys.exit('no')\n")
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(broken))
        assert not materialized(tmp_path)
    assert not left(tmp_path)
    assert materialized(tmp_path)
    assert not left(tmp_path)
