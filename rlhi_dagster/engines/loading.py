"""Which engine answers: engine settings, and the one place that turns them into a loaded engine. Importing it loads no model library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from rlhi_dagster.engines.base import ChatEngine, RewardEngine
from rlhi_dagster.engines.models import ModelRef


class RayCluster(BaseModel, frozen=True, extra="forbid"):
    """Replicas of an engine on a Ray cluster; needs the extra `ray`."""

    address: str = Field(default="auto", description="Of the cluster: `auto` for the one this machine belongs to, or `ray://host:10001`.")
    replicas: int = Field(ge=1, description="Engines, each with the model loaded.")
    gpus_per_replica: float = Field(default=1, ge=0, description="GPUs that each engine takes; 0 on machines without.")
    cpus_per_replica: float = Field(default=1, ge=0, description="CPU cores that each engine takes.")
    patience_seconds: float = Field(default=600, gt=0, description="Longest wait for the first engine's place, as an autoscaler may need.")


class _Settings(BaseModel, frozen=True, extra="forbid"):
    chunk_size: int = Field(
        ge=1, description="Answers per stored segment: a kill costs at most these, and as many that the engine has in hand."
    )
    max_error_fraction: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Largest share of failures among the answers of a run; over it the run stops and says why. "
        "Requests that do not fit into the model's context are no failures.",
    )
    usd_per_hour: float = Field(default=0.0, ge=0, description="Price of the machine, for forecasts and the cost of a run.")


class _Local(_Settings, frozen=True, extra="forbid"):
    dtype: Literal["float32", "bfloat16"] = Field(description="Arithmetic of inference.")
    cluster: RayCluster | None = Field(default=None, description="Run replicas on a Ray cluster instead of one engine in the worker.")


class TransformersSettings(_Local, frozen=True, extra="forbid"):
    """Hugging Face transformers: any device, small models."""

    kind: Literal["transformers"] = Field(default="transformers", description="Hugging Face transformers.")
    device: str = Field(description="`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`...")
    batch_size: int = Field(ge=1, description="Rows run together.")

    @property
    def identity(self) -> str:
        """What of the settings bears on answers."""
        return f"transformers {self.dtype}"


class VllmSettings(_Local, frozen=True, extra="forbid"):
    """vLLM in the worker's process; needs the extra `vllm`."""

    kind: Literal["vllm"] = Field(default="vllm", description="vLLM in the worker's process.")
    max_context_tokens: int = Field(default=8192, ge=16, description="Longest prompt plus reply.")
    memory_fraction: float = Field(default=0.9, gt=0, le=1, description="Share of the device's memory for weights and key-value cache.")
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that share one copy of the model.")
    python: str | None = Field(
        default=None,
        description="Interpreter of an environment that has vLLM and this project, for where vLLM and the trainers cannot share one; "
        "null for the project's own.",
    )

    @property
    def identity(self) -> str:
        """What of the settings bears on answers."""
        return f"vllm {self.dtype} {self.max_context_tokens}"


class Price(BaseModel, frozen=True, extra="forbid"):
    """What a server charges for a model."""

    prompt_usd_per_million: float = Field(ge=0, description="For a million prompt tokens.")
    cached_usd_per_million: float | None = Field(
        default=None, ge=0, description="For a million prompt tokens that its cache had; null for the same price."
    )
    completion_usd_per_million: float = Field(ge=0, description="For a million tokens written.")


class OpenAISettings(_Settings, frozen=True, extra="forbid"):
    """Any server with OpenAI's chat completions: vLLM, SGLang, llama.cpp, or hosted. The model's name is sent as it stands."""

    kind: Literal["openai"] = Field(default="openai", description="A server with OpenAI's chat completions.")
    base_url: str = Field(description="Up to and with `/v1`.")
    api_key_variable: str | None = Field(default=None, description="Environment variable with the key; null to send none.")
    max_concurrency: int = Field(
        default=64, ge=1, description="Most requests under way at once; fewer when the server is busy, and more again when it is not."
    )
    timeout_seconds: float = Field(default=300, gt=0, description="Longest time for one request, first byte sent to last one read.")
    attempts: int = Field(default=6, ge=1, description="Tries per request, before it is an error row.")
    requests_per_minute: float | None = Field(default=None, gt=0, description="The server's limit; null for none.")
    tokens_per_minute: float | None = Field(default=None, gt=0, description="The server's limit, prompt and reply; null for none.")
    prices: dict[str, Price] = Field(default={}, description="By model name.")
    uses_batches: bool = Field(default=False, description="Use the batch endpoint: cheaper on some servers, and answers within a day.")

    @property
    def identity(self) -> str:
        """What of the settings bears on answers."""
        return f"openai {self.base_url}"


EngineSettings = Annotated[TransformersSettings | VllmSettings | OpenAISettings, Field(discriminator="kind")]
"""How models are run."""
_ADAPTER: TypeAdapter[EngineSettings] = TypeAdapter(EngineSettings)


def engine_settings(given: object) -> EngineSettings:
    """Settings of the kind that ``given``, a mapping, names."""
    return _ADAPTER.validate_python(given)


class NotInstalledError(RuntimeError):
    """An engine's extra is not installed; the message says which."""


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
        raise ValueError("a server of chat completions gives no rewards: set engines.reward to transformers or vllm")
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
