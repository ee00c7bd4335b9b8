"""The town's policy, trained small, and engines that run it; one vLLM at a time, each with 1 GiB of cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from rlhi_dagster.engines.loading import chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import TransformersSettings, VllmSettings
from rlhi_dagster.engines.transformers import TransformersChatEngine

ROOT = Path(__file__).parents[2]
CONTEXT = 1024
DIALOGUES = 1200
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB; else vLLM reserves a share of the machine's memory


@pytest.fixture(scope="session")
def town(pytestconfig: pytest.Config) -> ModelRef:
    """The town's policy after a part of its corpus; it is silent when told to. Kept in pytest's cache for the next time."""
    script = Path(__file__).with_name("train_town.py")
    package = ROOT / "rlhi_dagster"
    makers = [script, package / "workers/train_policy.py", package / "training/policy.py", package / "profiles/town.yaml"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in makers)).hexdigest()[:12]
    folder = Path(pytestconfig.cache.mkdir(f"town-{digest}"))
    if not (folder / "town/manifest.json").is_file():
        command = [ROOT / ".venv/bin/python", script, folder, str(DIALOGUES)]
        alone = os.environ | {"OMP_NUM_THREADS": "1"}  # two threads are slower than one for so small a model
        done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return ModelRef.from_manifest(folder / "town")


@pytest.fixture(scope="session")
def town_reference(town: ModelRef) -> TransformersChatEngine:
    return TransformersChatEngine(town, TransformersSettings(device="cpu", dtype="float32", batch_size=32, chunk_size=1000))


@pytest.fixture(scope="session")
def start_vllm() -> Callable[..., Any]:
    """Loads an engine (a chat engine unless told otherwise) and a way to end its process."""

    def start(model: ModelRef, load: Callable[..., Any] = chat_engine, chunk_size: int = 100, context: int = CONTEXT) -> Iterator[Any]:
        engine = load(model, VllmSettings(dtype="float32", chunk_size=chunk_size, max_context_tokens=context))
        yield engine
        engine.llm.llm_engine.engine_core.shutdown()

    return start
