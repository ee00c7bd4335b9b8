"""How an engine is run: the settings of each kind, as a profile spells them. Importing it loads no engine.

What belongs here: the settings and what of them bears on answers. What does not: turning them into an engine (``loading.py``).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter


class WorkerSettings(BaseModel, frozen=True, extra="forbid"):
    """Worker processes that do one step side by side: they share out its model calls on transformers, or the recipes to train."""

    processes: int = Field(default=1, ge=1, description="How many; each has its share of the GPUs, or of the CPU's cores.")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of each; null for its share of the cores. A small model is fastest on one, and its results are then the "
        "same on machines with more cores. Fewer trainings than processes have the threads of those that are not there.",
    )


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


_BEHIND = re.compile("[?#]")
"""What begins a query, or what comes behind it."""
_VARIABLE = re.compile("[A-Z]+(_[A-Z0-9]+)+|[A-Z]{3,20}")
"""What names of environment variables look like, and keys do not."""


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
    def address(self) -> str:
        """``base_url`` as it is shown and stored: without a name, a password or a query, which may let people in."""
        scheme, divider, rest = self.base_url.rpartition("://")
        place = _BEHIND.split(rest, maxsplit=1)[0]
        # Who writes a password writes any character into it, and may forget what comes before it.
        if "@" in place or ("@" in rest and "/" not in place):
            place = _BEHIND.split(rest.rpartition("@")[2], maxsplit=1)[0]
        return f"{scheme}{divider}{place}"

    @property
    def key_variable(self) -> str:
        """``api_key_variable`` for people; not what it says if that may be a key that was written there by mistake."""
        name = self.api_key_variable or ""
        return f"the environment variable {name}" if _VARIABLE.fullmatch(name) else "the environment variable that api_key_variable names"

    @property
    def identity(self) -> str:
        """What of the settings bears on answers."""
        return f"openai {self.address}"


EngineSettings = Annotated[TransformersSettings | VllmSettings | OpenAISettings, Field(discriminator="kind")]
"""How models are run."""
_ADAPTER: TypeAdapter[EngineSettings] = TypeAdapter(EngineSettings)


def engine_settings(given: object) -> EngineSettings:
    """Settings of the kind that ``given``, a mapping, names."""
    return _ADAPTER.validate_python(given)


class NotInstalledError(RuntimeError):
    """An engine's extra is not installed; the message says which."""
