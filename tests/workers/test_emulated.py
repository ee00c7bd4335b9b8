"""Bfloat16 on a CPU that has none of it."""

from __future__ import annotations

import pytest
import torch

from rlhi_dagster.workers import emulated


@pytest.mark.parametrize(
    ("is_bfloat16", "has_gpu", "has_bfloat16", "is_told"),
    [(True, False, False, True), (False, False, False, False), (True, True, False, False), (True, False, True, False)],
)
def test_it_is_told_where_it_is_slow_and_nowhere_else(
    is_bfloat16: bool, has_gpu: bool, has_bfloat16: bool, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    said: list[str] = []
    emulated.tell("bf16 to false", said.append, is_bfloat16=is_bfloat16)
    assert said == (["this CPU has no bfloat16 and emulates it, several times slower than float32: set bf16 to false"] if is_told else [])
