"""Settings of the evaluation: what checkpoints are tried on."""

from __future__ import annotations

from pydantic import BaseModel, Field


class EvaluationSettings(BaseModel, frozen=True, extra="forbid"):
    """What checkpoints are tried on."""

    requests_per_user: int = Field(ge=1, description="Latest opening requests of each held-out user.")
    arithmetic_problems: int = Field(ge=0, description="Held-out sums.")
