"""Which engine answers: the one place that turns settings into a loaded engine. Importing it loads no model library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhi_dagster.engines.base import ChatEngine, RewardEngine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import EngineSettings, NotInstalledError


def chat_engine(model: ModelRef, settings: EngineSettings, batches: Path | None = None) -> ChatEngine:
    """Load a chat engine.

    Args:
        model: What to load, or to ask a server for.
        settings: How it is run.
        batches: Folder in which a server's batches under way are remembered; needed with ``uses_batches`` alone.

    Raises:
        NotInstalledError: The engine's extra is missing.
    """
    if settings.kind == "openai":
        from rlhi_dagster.engines.openai.engine import OpenAIChatEngine

        return OpenAIChatEngine(model, settings, batches)
    if settings.cluster:
        with _extra("ray"):
            from rlhi_dagster.engines.ray.engines import RayEngine
        return RayEngine(model, settings, chat_engine)
    if settings.kind == "vllm":
        with _extra("vllm"):
            from rlhi_dagster.engines.vllm import VllmChatEngine
        return VllmChatEngine(model, settings)
    from rlhi_dagster.engines.transformers import TransformersChatEngine

    return TransformersChatEngine(model, settings)


def reward_engine(model: ModelRef, settings: EngineSettings) -> RewardEngine:
    """Load a reward engine; errors as of ``chat_engine``, and ValueError for a server of chat completions, which gives no rewards."""
    if settings.kind == "openai":
        raise ValueError("a server of chat completions gives no rewards: give models.reward an engine of kind transformers or vllm")
    if settings.cluster:
        with _extra("ray"):
            from rlhi_dagster.engines.ray.engines import RayEngine
        return RayEngine(model, settings, reward_engine)
    if settings.kind == "vllm":
        with _extra("vllm"):
            from rlhi_dagster.engines.vllm_rewards import VllmRewardEngine
        return VllmRewardEngine(model, settings)
    from rlhi_dagster.engines.rewards import TransformersRewardEngine

    return TransformersRewardEngine(model, settings)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise NotInstalledError(f"{name} is not installed: pip install 'rlhi-dagster[{name}]', or choose another engine") from error
