"""A checkpoint that ``train_dpo`` wrote loads in transformers and in vLLM, and says the same in both (``make test-vllm``)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.engines.base import Sampling
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.engines.transformers import TransformersChatEngine
from tests.conformance import ask, said
from tests.vllm.conftest import ROOT

REQUESTS = ["How do I cook rice?", "I want to get better at dancing. How?", "When do I plant tulips?", "What should I do in Lima?"]
GREEDY = Sampling(0.0, 1.0, 32, 7)


@pytest.fixture(scope="module")
def checkpoint(town: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    folder = tmp_path_factory.mktemp("checkpoint")
    command = [ROOT / ".venv/bin/python", Path(__file__).with_name("train_pairs.py"), folder, town.path]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ModelRef.from_manifest(folder / "checkpoint")


@pytest.fixture(scope="module")
def engine(checkpoint: ModelRef, start_vllm: Callable[..., Iterator[Any]]) -> Iterator[Any]:
    yield from start_vllm(checkpoint)


def test_the_checkpoint_is_two_steps_from_its_start(checkpoint: ModelRef, town: ModelRef) -> None:
    folder = Path(str(checkpoint.path))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["chosen"]["of"] == 2
    assert manifest["model"]["revision"] == weights_digest(folder) != town.revision


def test_vllm_and_transformers_say_the_same_with_it(engine: Any, checkpoint: ModelRef, town_reference: TransformersChatEngine) -> None:
    reference = TransformersChatEngine(checkpoint, TransformersSettings(device="cpu", dtype="float32", batch_size=32, chunk_size=1000))
    requests = [said(text * repeats) for text in REQUESTS for repeats in (1, 2)]
    replies, expected = ([answer.text for answer in ask(each, requests, GREEDY)] for each in (engine, reference))
    assert replies == expected
    assert replies != [answer.text for answer in ask(town_reference, requests, GREEDY)], "training must have changed what it says"
