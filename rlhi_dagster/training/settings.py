"""Training settings with the paper's values as defaults.

Source of the defaults: training logs that the paper's first author published (Persona-DPO runs): beta 0.1, AdamW (0.9, 0.95), weight
decay 0.1, gradient clip 1.0, peak learning rate 7e-7, 30 warm-up steps, cosine decay, length limit 8,192, 48 pairs a step and a checkpoint
every 50 steps. What those logs do not tell is ours, and says so.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, Field, model_validator


class LoraSettings(BaseModel, frozen=True, extra="forbid"):
    """Low-rank adapters on every linear layer but the head; merged into the weights when training ends. All ours: the paper tunes fully.

    Without dropout: TRL turns it off where sides are compared, for policy and reference to agree.
    """

    rank: int = Field(default=16, ge=1, description="Rank of the update.")
    alpha: int = Field(default=32, ge=1, description="The update counts alpha / rank times.")


class TrainingSettings(BaseModel, frozen=True, extra="forbid"):
    """How a model is trained: the part that all methods share."""

    learning_rate: float = Field(default=7e-7, gt=0, description="Peak learning rate.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the pairs.")
    batch_size: int = Field(default=48, ge=1, description="Pairs per optimiser step, over all devices.")
    micro_batch_size: int = Field(
        default=4, ge=1, description="Pairs per forward pass and device; times the devices it must divide `batch_size`."
    )
    warmup_steps: int = Field(default=30, ge=0, description="Steps of linear warm-up before the cosine decay; at most a third of all.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradient clipping.")
    max_length: int = Field(default=8192, ge=16, description="Longest prompt plus reply in tokens; longer pairs are left out and counted.")
    bf16: bool = Field(default=True, description="bfloat16 autocast.")
    lora: LoraSettings | None = Field(default=None, description="Train low-rank adapters instead of all weights.")
    gradient_checkpointing: bool = Field(
        default=True,
        description="Compute activations again in the backward pass instead of keeping them: a third slower, much less memory.",
    )
    processes: int | None = Field(
        default=None, ge=1, description="Processes, one a device; null for every GPU in sight, or one on the CPU."
    )
    sharding: Literal["replicate", "fsdp2"] = Field(
        default="replicate", description="Of several processes each holds the whole model (`replicate`), or a share of it (`fsdp2`)."
    )
    save_steps: int = Field(
        default=50, ge=1, description="Steps between resumable snapshots, each tried on held-out users: what a kill can cost."
    )
    logging_steps: int = Field(default=10, ge=1, description="Steps between points of the training curves.")
    probe_samples: int = Field(
        default=32,
        ge=0,
        description="Replies to held-out users that the policy samples at each evaluation, for the KL to the start and the share of "
        "broken text; 0 for none. Ours.",
    )
    probe_tokens: int = Field(default=256, ge=1, description="Most tokens of such a reply, if the profile's replies are longer. Ours.")
    max_memorisation: float = Field(
        default=0.5, gt=0, description="Held-out loss minus training loss, in nats, past which a snapshot is not chosen. Ours."
    )
    seed: int = Field(default=0, description="Seed of data order, and of the dropout that a model brings along in SFT.")

    @model_validator(mode="after")
    def _steps_are_whole(self) -> TrainingSettings:
        if self.batch_size % (self.micro_batch_size * (self.processes or 1)):
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
                + (f" times {self.processes} processes" if self.processes else "")
            )
        return self


class PairSettings(TrainingSettings, frozen=True, extra="forbid"):
    """How a model is trained on pairs whose sides are compared."""

    shared_prefix: bool = Field(
        default=False,
        description="Read persona, history and request once for both sides of a pair: the same loss, faster where prompts are long. "
        "For models with full attention that takes a mask (sdpa, eager).",
    )


class KTOSettings(TrainingSettings, frozen=True, extra="forbid"):
    """How a model is trained on thumbs (KTO; Ethayarajh et al., 2024, arXiv:2402.01306).

    The RLHI paper has no thumbs, so all of it is ours but beta and the range of the ratio, which are those of the KTO paper.
    """

    micro_batch_size: int = Field(
        default=4,
        ge=2,
        description="Examples per forward pass and device; the KL estimate pairs each with the reply of another one of them.",
    )
    beta: float = Field(default=0.1, gt=0, description="KTO temperature.")
    desirable_ratio: float = Field(
        default=1.0,
        ge=1,
        le=4 / 3,
        description="What all thumbs up weigh together, to what all thumbs down do, whichever are more; the KTO paper's range is 1 to 4/3.",
    )
    max_displacement: float = Field(
        default=0.2,
        gt=0,
        description="Fall of the log-probability of held-out replies with a thumb up, nats a token, past which a snapshot is not chosen.",
    )
    max_memorisation: float = Field(
        default=0.35,
        gt=0,
        description="Held-out loss minus training loss past which a snapshot is not chosen; the loss is 0.5 at the start, 0 at best.",
    )

    def weights(self, up: int, down: int) -> tuple[float, float]:
        """What a thumb up and a thumb down weigh in a training set with so many of each; over the set they weigh 1 on average.

        Equation 8 of the KTO paper bounds the ratio of ``weight x count`` of the two, which is ``desirable_ratio``.
        """
        share = self.desirable_ratio / (1 + self.desirable_ratio)
        return share * (up + down) / max(up, 1), (1 - share) * (up + down) / max(down, 1)


class SDPOSettings(TrainingSettings, frozen=True, extra="forbid"):
    """How a model is trained to write as it would have, told what the user said next (SDPO; Kleine Buening et al., 2026, arXiv:2603.12273).

    The RLHI paper has no such method, so all of it is ours.
    """

    form: Literal["instruction", "dialogue"] = Field(
        default="instruction",
        description="How the teacher is told the follow-up. `instruction`: by `prompts/hindsight.md` in the place of the request. "
        "`dialogue`: as another paragraph of the request, for models that know dialogues only.",
    )
    max_memorisation: float = Field(
        default=0.2,
        gt=0,
        description="Held-out loss minus training loss, in nats a token, past which a snapshot is not chosen.",
    )


class DPOSettings(PairSettings, frozen=True, extra="forbid"):
    """How a model is trained on preferences."""

    beta: float = Field(default=0.1, gt=0, description="DPO temperature.")
    sft_weight: float = Field(
        default=0.0, ge=0, description="Weight of the likelihood of the chosen reply beside the DPO loss (TRL `sft`); the paper has none."
    )
    max_displacement: float = Field(
        default=0.2,
        gt=0,
        description="Fall of the log-probability of held-out preferred replies, nats a token, past which a snapshot is not chosen. Ours.",
    )

    def deviations(self, what: str) -> list[str]:
        """Where this departs from the paper's training logs, whose values are the defaults; ``what`` names what is trained."""
        paper = DPOSettings()
        changed = [
            f"{name.replace('_', ' ')} {getattr(self, name):g} instead of {getattr(paper, name):g}"
            for name in ("beta", "learning_rate", "batch_size", "warmup_steps", "weight_decay", "max_grad_norm", "max_length")
            if getattr(self, name) != getattr(paper, name)
        ]
        passes = "one pass" if self.epochs == 1 else f"{self.epochs:g} passes"
        said = [f"{what}: {passes} over the pairs, and the snapshot with the lowest loss on held-out users is kept; the paper makes many."]
        said += [f"{what}: {', '.join(changed)}."] if changed else []
        said += [f"{what}: low-rank adapters of rank {self.lora.rank} instead of all weights."] if self.lora else []
        if self.sft_weight:
            said.append(
                f"{what}: a likelihood term on the chosen reply, of weight {self.sft_weight:g}, beside the loss; the paper has none."
            )
        return said


OF_METHOD: dict[str, type[TrainingSettings]] = {"dpo": DPOSettings, "kto": KTOSettings, "sdpo": SDPOSettings, "reward": PairSettings}
"""The settings of a method that has some of its own."""


def warmup_steps(settings: TrainingSettings, rows: int) -> int:
    """Steps of warm-up of a run on ``rows`` rows: as set, but at most a third of its steps, so that it comes to the peak and decays."""
    steps = math.ceil(math.ceil(rows / settings.batch_size) * settings.epochs)
    return min(settings.warmup_steps, steps // 3)
