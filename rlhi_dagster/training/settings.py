"""Training settings with the paper's values as defaults.

Source of the defaults: training logs that the paper's first author published (Persona-DPO runs): beta 0.1, AdamW (0.9, 0.95), weight
decay 0.1, gradient clip 1.0, peak learning rate 7e-7, 30 warm-up steps, cosine decay, length limit 8,192 and 48 pairs a step.
"""

from __future__ import annotations

from pydantic import BaseModel, Field


class TrainingSettings(BaseModel, frozen=True, extra="forbid"):
    """How a checkpoint or a reward model is trained."""

    learning_rate: float = Field(default=7e-7, gt=0, description="Peak learning rate.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the pairs.")
    batch_size: int = Field(default=48, ge=1, description="Pairs per optimiser step.")
    micro_batch_size: int = Field(default=4, ge=1, description="Pairs per forward pass; must divide `batch_size`.")
    warmup_steps: int = Field(default=30, ge=0, description="Steps of linear warm-up before the cosine decay.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradient clipping.")
    max_length: int = Field(default=8192, ge=16, description="Longest prompt plus reply in tokens; longer pairs are left out and counted.")
    beta: float = Field(default=0.1, gt=0, description="DPO temperature.")
    sft_weight: float = Field(
        default=0.0, ge=0, description="Weight of the likelihood of the chosen reply beside the DPO loss (TRL `sft`); the paper has none."
    )
    shared_prefix: bool = Field(
        default=False,
        description="DPO reads persona, history and request once for both sides of a pair: the same loss, faster where prompts are long. "
        "For models with full attention that takes a mask (sdpa, eager).",
    )
    bf16: bool = Field(default=True, description="bfloat16 autocast.")
    save_steps: int = Field(default=50, ge=1, description="Steps between resumable snapshots: what a kill can cost.")
    logging_steps: int = Field(default=10, ge=1, description="Steps between points of the training curves.")
    seed: int = Field(default=0, description="Seed of data order and dropout.")
