"""FSDP2: each process holds a share of weights, gradients and optimiser state.

What belongs here: what the trainer has to be told. What does not: gathering the shares (``weights.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rlhi_dagster.training.settings import TrainingSettings


def arguments(settings: TrainingSettings) -> dict[str, Any]:
    """The part of the trainers' configuration that shards; empty where nothing is to be sharded.

    Snapshots are written in shares and can be read by any number of processes. FSDP checkpoints activations instead of the model.
    """
    if not is_sharded(settings):
        return {}
    details = {
        "version": 2,
        "state_dict_type": "SHARDED_STATE_DICT",
        "activation_checkpointing": settings.gradient_checkpointing,
    }
    on_cpu = {} if torch.cuda.is_available() else _on_cpu()
    return {"fsdp": True, "fsdp_config": details, "gradient_checkpointing": False, **on_cpu}


class FolderFirst(TrainerCallback):
    """Makes a snapshot's folder before the trainer writes it.

    The trainer (5.19) remembers the best snapshot only if its folder is there once the model is saved, and shards are saved later: in the
    end it would load an earlier one.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Make the folder in every process, so that all see it."""
        if control.should_save:
            Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}").mkdir(exist_ok=True)


def is_sharded(settings: TrainingSettings) -> bool:
    """Whether the model is held in shares: one process has nobody to share with."""
    return settings.sharding == "fsdp2" and PartialState().num_processes > 1


def _on_cpu() -> dict[str, Any]:
    """Have accelerate shard among processes on the CPU; what the trainer has to be told for that.

    Its ``AcceleratorState`` (1.15) takes up an FSDP plugin for every kind of device but the CPU, and there trains replicas without a word.
    PyTorch shards on the CPU as well: processes on it, which gloo has connected by now, are called what accelerate shards.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return {"accelerator_config": {"use_configured_state": True}}
