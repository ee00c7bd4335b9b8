"""Settings of reasoning pairs: which erroneous solutions."""

from __future__ import annotations

from pydantic import BaseModel, Field

_SAMPLE_SOLUTIONS = "data/sample/prm800k.jsonl"


class ReasoningSettings(BaseModel, frozen=True, extra="forbid"):
    """Erroneous solutions and the simulated user who points at the error."""

    prm800k: str = Field(description="PRM800K (JSON lines) in its original layout or as decoded steps: path or glob.")
    errors: int = Field(ge=0, description="Most erroneous solutions to use. The paper uses 10,000.")

    def deviations(self, model: str | None) -> list[str]:
        """Where this departs from the paper; ``model`` points at the wrong step, ``None`` for a template."""
        said = [] if self.errors == 10_000 else [f"At most {self.errors:,} erroneous solutions instead of 10,000."]
        if self.prm800k == _SAMPLE_SOLUTIONS:
            said.append("The erroneous solutions are of simulated sums, in the layout of PRM800K, which the paper takes them from.")
        if model is None:
            said.append("A template points at the wrong step; in the paper a language model plays the user.")
        return said
