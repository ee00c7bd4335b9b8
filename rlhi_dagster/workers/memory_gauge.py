"""Memory of a training run: a model's shape without its weights, what a device has, and what was taken at the peak.

What belongs here: asking libraries and the machine. What does not: the forecast (``training/memory_forecast.py``).
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.state import PartialState
from transformers import AutoConfig, AutoModelForCausalLM

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.training.memory_forecast import GIB, Shape

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Linux only, as `clear_refs` has it: written 5, the peak in `status` (VmHWM) is the one since then; proc(5)."""


def shape_of(model: ModelRef, *, has_head: bool = True) -> Shape:
    """The shape of a model, from its configuration alone.

    Args:
        model: Its reference.
        has_head: Whether it predicts words; a reward model does not.
    """
    config = AutoConfig.from_pretrained(model.source, **model.load_kwargs())
    with torch.device("meta"):
        whole: Any = AutoModelForCausalLM.from_config(config)
    text, head = config.get_text_config(), whole.get_output_embeddings()
    linear = [layer for layer in whole.modules() if isinstance(layer, torch.nn.Linear) and layer is not head]
    is_tied = head.weight is whole.get_input_embeddings().weight
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return Shape(
        parameters=sum(weights.numel() for weights in whole.parameters()) - (0 if has_head or is_tied else head.weight.numel()),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        key_width=heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads),
        feed_forward_width=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size if has_head else 0,
        adapted=sum(layer.in_features + layer.out_features for layer in linear),
    )


class Gauge:
    """GiB that this process takes from now on: of its GPU, or of main memory."""

    def __init__(self) -> None:
        """Note where it starts."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.available = torch.cuda.mem_get_info()[0] / GIB
            self.start = torch.cuda.memory_allocated() / GIB
        else:
            if sys.platform == "linux":
                _RESET.write_text("5")
            self.available = psutil.virtual_memory().available / GIB / PartialState().num_processes
            self.start = psutil.Process().memory_info().rss / GIB

    def peak(self) -> float:
        """GiB at the peak so far, beyond what there was at the start."""
        return peak_gib() - self.start


def peak_gib() -> float:
    """The most GiB that this process has held, of its GPU if it uses one, else resident: since its start, or on Linux since a `Gauge`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    if sys.platform == "linux":
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return float(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB  # in bytes on macOS
