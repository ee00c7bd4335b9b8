"""FSDP2: each process holds a share of weights, gradients and optimiser state.

What belongs here: what the trainer has to be told. What does not: gathering the shares (``weights.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from rlhi_dagster.training.settings import TrainingSettings


def arguments(settings: TrainingSettings) -> dict[str, Any]:
    """The part of the trainers' configuration that shards; empty where nothing is to be sharded.

    Snapshots are written in shares and can be read by any number of processes. FSDP checkpoints activations instead of the model.
    """
    if not is_sharded(settings):
        return {}
    if not torch.cuda.is_available():
        _allow_on_cpu()
    details = {
        "version": 2,
        "state_dict_type": "SHARDED_STATE_DICT",
        "activation_checkpointing": settings.gradient_checkpointing,
    }
    return {"fsdp": True, "fsdp_config": details, "gradient_checkpointing": False}


def is_sharded(settings: TrainingSettings) -> bool:
    """Whether the model is held in shares: one process has nobody to share with."""
    return settings.sharding == "fsdp2" and PartialState().num_processes > 1


def _allow_on_cpu() -> None:
    """Have accelerate shard among processes on the CPU.

    Its ``AcceleratorState`` (1.15) takes up an FSDP plugin for every kind of device but the CPU, and there trains replicas without a word.
    PyTorch shards on the CPU as well: processes on it, which gloo has connected by now, are called what accelerate shards.
    """
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
