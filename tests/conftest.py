"""The environment's profile, read anew by each test; and a tiny random Llama for workers, engines and whole runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from rlhi_dagster import profiles
from rlhi_dagster.cli import main

pytest.register_assert_rewrite("tests.conformance")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call() -> None:
    """Workers of one environment share a warm parent; a variable of pytest's would give each test one of its own."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)


@pytest.fixture(autouse=True)
def _profile_of_this_test() -> Iterator[None]:
    """A process has one profile and keeps it; tests change the environment that chooses it."""
    profiles.current.cache_clear()
    yield
    profiles.current.cache_clear()


@pytest.fixture
def rlhi(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CompletedProcess[str]]:
    """Runs the command ``rlhi`` in this process, over a folder of outputs of the sample: how it ends and what it says."""
    for name in [name for name in os.environ if name.startswith("RLHI_")]:
        monkeypatch.delenv(name)

    def run(data: Path, *arguments: str) -> CompletedProcess[str]:
        monkeypatch.setenv("RLHI_DATA", str(data))
        monkeypatch.setattr(sys, "argv", ["rlhi", *arguments])
        profiles.current.cache_clear()
        status: Any = 0
        try:
            main.main()
        except SystemExit as left:
            status = left.code or 0
        if isinstance(status, str):  # the interpreter would say it
            sys.stderr.write(f"{status}\n")
            status = 1
        return CompletedProcess(sys.argv, status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def save_tiny_llama() -> Callable[..., None]:
    """Saves a random model in a folder, with a tokenizer for some texts; further arguments go to its configuration."""

    def save(folder: Path, texts: list[str], kind: Any = None, **config: Any) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from rlhi_dagster.workers.train_policy import build_tokenizer

        tokenizer = build_tokenizer(texts * 20, 300)
        shape = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config,
        )
        torch.manual_seed(3)
        (kind or LlamaForCausalLM)(shape).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return save
