"""From the model in a trainer, whole, in shards or with adapters, to a folder of plain weights.

What belongs here: gathering shards and merging adapters. What does not: the rest of the artefact (``artefact.py``) and snapshots, which
the trainer writes as it holds the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, Trainer


def save_weights(trainer: Trainer, folder: Path) -> None:
    """Write the trained model's configuration and weights as safetensors into a new folder.

    Every process takes part, the first one writes.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=whole) if isinstance(model, FSDPModule) else model.state_dict()
    if not trainer.accelerator.is_main_process:
        return
    shutil.rmtree(folder, ignore_errors=True)
    base = model
    if isinstance(model, PeftModel):
        base, weights = model.get_base_model(), merged(weights, model.peft_config["default"])
    (model if base is model and not isinstance(model, FSDPModule) else _like(base, weights)).save_pretrained(folder)


def merged(weights: Mapping[str, Tensor], adapters: LoraConfig) -> dict[str, Tensor]:
    """Weights of a model with adapters as those of the model without, in float32.

    Added to weights in bfloat16, most of a small update would be rounded away.

    Args:
        weights: By PEFT's names: ``base_layer`` with ``lora_A`` and ``lora_B``, whole layers that are trained under ``modules_to_save``.
        adapters: Of one adapter, ``default``, with plain LoRA's scale.
    """
    scale, plain = adapters.lora_alpha / adapters.r, {}
    for name, weight in weights.items():
        if ".lora_" in name or ".original_module." in name:
            continue
        layer, value = name.removesuffix(".base_layer.weight"), weight.float()
        if layer != name:
            up, down = (weights[f"{layer}.lora_{side}.default.weight"].float() for side in "BA")
            value = value + scale * (up @ down)
        plain[name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = value
    return plain


def _like(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model of the same kind without shards and adapters, with exactly these weights."""
    kind = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))
    with torch.device("meta"):
        plain: PreTrainedModel = kind(model.config)
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    if plain.can_generate():
        plain.generation_config = model.generation_config
    return plain
