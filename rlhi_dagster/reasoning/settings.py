"""Settings of reasoning pairs: which erroneous solutions."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ReasoningSettings(BaseModel, frozen=True, extra="forbid"):
    """Erroneous solutions and the simulated user who points at the error."""

    prm800k: str = Field(description="PRM800K (JSON lines) in its original layout or as decoded steps: path or glob.")
    errors: int = Field(ge=0, description="Most erroneous solutions to use. The paper uses 10,000.")
