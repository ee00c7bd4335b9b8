"""Settings of the evaluation: what checkpoints are tried on."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field


class EvaluationSettings(BaseModel, frozen=True, extra="forbid"):
    """What checkpoints are tried on."""

    requests_per_user: int = Field(ge=1, description="Latest opening requests of each held-out user.")
    arithmetic_problems: int = Field(ge=0, description="Held-out sums.")

    def deviations(self, judges: Sequence[str | None]) -> list[str]:
        """Where this departs from the paper; ``judges`` are models, ``None`` for the town's."""
        said = [
            "The judge is the simulated users' own preferences; the paper's judges are closed models."
            if judge is None
            else f"The judge is `{judge}`, asked in both orders; the paper's judges are closed models."
            for judge in judges
        ]
        sums = f"; {self.arithmetic_problems} sums stand in for them" if self.arithmetic_problems else ""
        absent = "AlpacaEval 2.0, Arena-Hard, OlympiadBench, Minerva, GPQA and MMLU-Pro"
        return [*said, f"The paper's other benchmarks are not run ({absent}){sums}."]
