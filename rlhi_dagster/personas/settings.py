"""Settings of personas: what is written, how much of it, and who corrects it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from rlhi_dagster.personas.languages import CODES

PRECISION = (
    "Lines by rule, tried on real conversations kept aside: 9 of 9 lines of programmers said what their user had asked for (95 % interval "
    "0.70 to 1.00); they did not foretell later wishes (docs/results/persona_lines.md)."
)
"""How far wishes can be trusted, wherever they are shown; measured by ``benchmarks/persona_lines.py`` and read by eye."""


class PersonaSettings(BaseModel, frozen=True, extra="forbid"):
    """Who writes personas, of what, and how much."""

    extracts: tuple[Literal["wishes", "languages", "domains"], ...] = Field(
        default=("wishes", "languages", "domains"),
        description="What the extractive writer aggregates: wishes about answers, languages, subjects asked about.",
    )
    wish_conversations: int = Field(
        default=2,
        ge=1,
        description="In how many conversations a user must have said a wish for a line, unless it is said to hold in general (extractive).",
    )
    max_lines: int = Field(default=8, ge=1, description="Most lines of a user at a moment.")
    max_line_characters: int = Field(default=160, ge=20, description="Longest line.")
    language: str = Field(default="English", description="Language that the model writes lines in: one of `personas.languages.CODES`.")
    conversations_per_update: int = Field(default=3, ge=1, description="Conversations that the model reads at a time to revise its lines.")
    corrections: str | None = Field(
        default=None,
        description="YAML of users' own edits and deletions, which win over the writer; relative to the folder of all outputs.",
    )

    @field_validator("language")
    @classmethod
    def _can_be_told(cls, language: str) -> str:
        if language not in CODES:
            raise ValueError(f"{language} cannot be told from other languages; give one of {', '.join(CODES)}")
        return language

    def deviations(self, model: str | None) -> list[str]:
        """Where this departs from the paper; ``model`` writes the lines, ``None`` if rules do."""
        if model is None:
            return [
                "Persona lines are extracted by rule from what users asked for, each with the messages that support it; the paper has a "
                "language model write a summary. " + PRECISION
            ]
        return [
            f"Personas are lines that `{model}` keeps up to date, each citing words of the user that are checked; the paper has a language "
            "model, unnamed, write a summary."
        ]
