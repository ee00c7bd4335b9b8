"""Which engine answers: the one place that turns engine settings into a loaded engine. Importing it loads no model library."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from rlhi_dagster.engines.base import ChatEngine, RewardEngine
from rlhi_dagster.engines.models import ModelRef


class EngineSettings(BaseModel, frozen=True, extra="forbid"):
    """How models are run; nothing here changes what a model would answer in exact arithmetic."""

    kind: Literal["transformers", "vllm"] = Field(description="Chat engine. `vllm` needs the extra of that name.")
    device: str = Field(description="`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`...")
    dtype: Literal["float32", "bfloat16"] = Field(description="Arithmetic of inference.")
    batch_size: int = Field(ge=1, description="Rows that transformers runs together; vLLM schedules by itself.")
    chunk_size: int = Field(ge=1, description="Requests per stored segment: what a kill can cost at most.")
    max_context_tokens: int = Field(
        default=8192, ge=16, description="Longest prompt plus reply in vLLM; transformers takes the model's own limit."
    )


def chat_engine(model: ModelRef, settings: EngineSettings) -> ChatEngine:
    """Load a chat engine.

    Raises:
        RuntimeError: The engine's extra is not installed; the message says which.
    """
    if settings.kind == "vllm":
        try:
            from rlhi_dagster.engines.vllm import VllmChatEngine
        except ImportError as error:
            raise RuntimeError(
                "engine `vllm` is not installed: pip install 'rlhi-dagster[vllm]', or set engine.kind to transformers"
            ) from error
        return VllmChatEngine(model, settings.dtype, settings.max_context_tokens)
    from rlhi_dagster.engines.transformers import TransformersChatEngine

    return TransformersChatEngine(model, settings.device, settings.dtype, settings.batch_size)


def reward_engine(model: ModelRef, settings: EngineSettings) -> RewardEngine:
    """Load a reward engine (transformers serves reward models for every engine kind)."""
    from rlhi_dagster.engines.transformers import TransformersRewardEngine

    return TransformersRewardEngine(model, settings.device, settings.dtype, settings.batch_size)
