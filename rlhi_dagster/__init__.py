"""Reinforcement learning from human interaction (RLHI) as Dagster assets: the library half, without asset definitions.

``import rlhi_dagster as rlhi`` gives the functions of ``rlhi_dagster.api``, such as ``rlhi.read`` and ``rlhi.label``, and `Pipeline`, the
Dagster component. They are loaded when they are first used, so importing the package, as every step of a run does, costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhi_dagster.api import Logs, agreement, evaluate, label, pairs, persona_lines, read, score, table
    from rlhi_dagster.component import Pipeline

__all__ = ["Logs", "Pipeline", "__version__", "agreement", "evaluate", "label", "pairs", "persona_lines", "read", "score", "table"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rlhi-dagster")
    if name == "Pipeline":
        from rlhi_dagster.component import Pipeline

        return Pipeline
    if name in __all__:
        from rlhi_dagster import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
