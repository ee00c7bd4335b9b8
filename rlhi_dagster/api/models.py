"""Models and finished runs from Python: rewards of pairs, scores of a checkpoint on public benchmarks, and a run's tables.

What belongs here: calls that load a model, and what reads a profile. What does not: what needs neither (``logs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from rlhi_dagster.api.frames import like, to_polars

if TYPE_CHECKING:
    from rlhi_dagster.engines.settings import EngineSettings

Frame = TypeVar("Frame")


def score(pairs: Frame, model: str | Path, *, engine: EngineSettings | None = None) -> Frame:
    """Let a reward model score both sides of pairs, each under the pair's persona.

    Args:
        pairs: With ``prompt`` (list of messages), ``chosen``, ``rejected`` and, if there is one, ``persona``; as ``pairs`` and the table
            ``preference_pairs`` have them.
        model: A folder with weights, config and tokenizer, or ``OWNER/NAME@REVISION`` of the Hub.
        engine: How the model is run; with transformers on a GPU if there is one, in bfloat16, if not given.

    Returns:
        The same rows with ``chosen_reward`` and ``rejected_reward``; null where a conversation is longer than the model's context.

    Raises:
        ValueError: A column is missing, or the model is no reward model that can be loaded.
        FileNotFoundError: The folder is none, or has no weights.
    """
    from rlhi_dagster.engines.base import RewardRequest
    from rlhi_dagster.engines.loading import reward_engine
    from rlhi_dagster.engines.settings import engine_settings
    from rlhi_dagster.engines.sources import folder_ref, hub_ref
    from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona

    frame = to_polars(pairs)
    if missing := {"prompt", "chosen", "rejected"} - set(frame.columns):
        raise ValueError(f"pairs lack the column(s) {', '.join(sorted(missing))}")
    usual = {"kind": "transformers", "device": "auto", "dtype": "bfloat16", "batch_size": 8, "chunk_size": 64}
    loaded = reward_engine(
        folder_ref(Path(model).expanduser()) if isinstance(model, Path) or Path(model).expanduser().is_dir() else hub_ref(model),
        engine or engine_settings(usual),
    )
    asked = (
        (
            f"{side}:{row}",
            RewardRequest(
                [
                    *with_persona(values["prompt"], values.get("persona") or "", PersonaPlacement.SYSTEM),
                    {"role": "assistant", "content": values[side]},
                ]
            ),
        )
        for row, values in enumerate(frame.to_dicts())
        for side in ("chosen", "rejected")
    )
    found = {key: answer.reward for answered in loaded.score(asked) for key, answer in answered}
    rewards = {
        f"{side}_reward": pl.Series([found[f"{side}:{row}"] for row in range(len(frame))], dtype=pl.Float64())
        for side in ("chosen", "rejected")
    }
    result: Frame = like(frame.with_columns(**rewards), pairs)
    return result


def evaluate(checkpoint: str | Path, benchmarks: Mapping[str, str | Path] | None = None) -> pl.DataFrame:
    """Let any checkpoint answer public benchmarks; RLHI_PROFILE says on which engine, how replies are sampled and which model judges.

    Replies are kept: the same call again goes on where it stopped.

    Args:
        checkpoint: A folder with safetensors, config, tokenizer and chat template.
        benchmarks: Where the files of each benchmark lie; those of the profile's ``evaluation.benchmarks`` if not given.

    Returns:
        ``tables.BENCHMARK_SCORES``.

    Raises:
        ValueError: A benchmark is unknown, or nobody said where its files lie.
    """
    from rlhi_dagster.api.checkpoints import evaluated

    return evaluated(Path(checkpoint), {name: str(place) for name, place in (benchmarks or {}).items()}).scores


def table(name: str, profile: str | Path | None = None) -> pl.LazyFrame:
    """A table of a finished run, all partitions of it, as a lazy frame.

    Args:
        name: One of docs/reference/tables.md.
        profile: Name or path of the run's profile; the one of RLHI_PROFILE if not given.

    Raises:
        ValueError: There is no such table, or it was not made yet; the message says what makes it.
    """
    from rlhi_dagster import profiles
    from rlhi_dagster.base.lake import Lake
    from rlhi_dagster.base.tables import TABLES

    if name not in TABLES:
        raise ValueError(f"{name} is no table: there are {', '.join(sorted(TABLES))}")
    chosen: Any = profiles.load(str(profile)) if profile else profiles.current()
    return Lake(root=str(chosen.root / "lake")).scan(name)
