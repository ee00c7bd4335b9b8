"""The project from Python: ``import rlhi_dagster as rlhi`` has what this package has, and loads it when it is first used.

What belongs here: a few functions from data frames to data frames, for notebooks and programs without a run of the graph. What does not:
how anything is computed; that is the pure functions of the stages, which the assets and ``rlhi_dagster.cli`` use, too.
"""

from __future__ import annotations

from rlhi_dagster.api.logs import Logs, agreement, label, pairs, persona_lines, read
from rlhi_dagster.api.models import evaluate, score, table

__all__ = ["Logs", "agreement", "evaluate", "label", "pairs", "persona_lines", "read", "score", "table"]
