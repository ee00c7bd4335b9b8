"""FSDP2: each process holds a share of weights, gradients and optimiser state.

What belongs here: what the trainer has to be told, and sharing models out. What does not: gathering the shares (``weights.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, fsdp2_prepare_model
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
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


def share_out(trainer: Trainer) -> None:
    """Share out the model of a trainer that is to be sharded, which the trainer itself does only as training begins.

    By itself accelerate (1.15) has a sharded model in bfloat16 round its outputs, log-probabilities of replies to whole nats, and add up
    gradients in bfloat16. A model that is shared out already it would prepare once more: checkpoint activations twice, and look the
    optimiser's weights up by their addresses, which empty shares have in common. So the trainer then gets both back as they are.

    Raises:
        RuntimeError: accelerate will not shard.
    """
    if not trainer.args.fsdp or isinstance(trainer.model, FSDPModule):
        return
    if not trainer.is_fsdp_enabled:
        raise RuntimeError("accelerate took up no FSDP plugin: every process would hold the whole model")
    accelerator, prepare = trainer.accelerator, trainer.accelerator.prepare
    if trainer.args.bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        accelerator.state.fsdp_plugin.mixed_precision_policy = policy
    trainer.model, trainer.optimizer = prepare(trainer.model, trainer.create_optimizer())
    trainer.model_wrapped = trainer.model
    # The first pass settles which weights have gradients; the reference is computed while adapters have none.
    with torch.no_grad():
        trainer.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=accelerator.device))

    def once(*objects: Any, **given: Any) -> Any:
        if objects != (trainer.model, trainer.optimizer):
            return prepare(*objects, **given)
        return accelerator.prepare_model(trainer.model), accelerator.prepare_optimizer(trainer.optimizer)

    accelerator.prepare = once


def frozen_beside(trainer: Trainer, model: Any) -> Any:
    """A model that is not trained, beside the trainer's; shared out block by block where that one is."""
    frozen = model.eval().requires_grad_(False)
    if trainer.is_fsdp_enabled:
        return fsdp2_prepare_model(trainer.accelerator, frozen)
    return trainer.accelerator.prepare_model(frozen, evaluation_mode=True)


def _on_cpu() -> dict[str, Any]:
    """Have accelerate shard among processes on the CPU; what the trainer has to be told for that.

    Its ``AcceleratorState`` (1.15) takes up an FSDP plugin for every kind of device but the CPU, and there trains replicas without a word.
    PyTorch shards on the CPU as well: processes on it, which gloo has connected by now, are called what accelerate shards.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return {"accelerator_config": {"use_configured_state": True}}
