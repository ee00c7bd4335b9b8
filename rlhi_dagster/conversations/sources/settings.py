"""Settings of a source: what it is, where it lies, and what is accepted from it.

What belongs here: names, defaults and checks of settings. What does not: reading.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, Field, field_validator

from rlhi_dagster.conversations.redaction import RedactionSettings

PLAUSIBLE_FROM = datetime(2022, 11, 1, tzinfo=UTC)
"""No chat assistant of the kind was public before this moment; an earlier start is an error in the source."""


class SourceKind(StrEnum):
    """The layouts of source rows that can be read (``layouts``)."""

    WILDCHAT = "wildchat"
    REALHUMANEVAL = "realhumaneval"
    LMSYS = "lmsys"
    ARENA = "arena"
    OASST = "oasst"
    CHATGPT = "chatgpt"
    CLAUDE_CODE = "claude_code"
    CODEX = "codex"
    LANGFUSE = "langfuse"
    LANGSMITH = "langsmith"
    OPEN_WEBUI = "open_webui"
    LIBRECHAT = "librechat"
    OPENINFERENCE = "openinference"
    OTEL = "otel"
    LITELLM = "litellm"
    HELICONE = "helicone"
    OPENAI_RESPONSES = "openai_responses"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    MESSAGES = "messages"


class SourceField(StrEnum):
    """What is read from a row, by our names."""

    CONVERSATION_ID = "conversation_id"
    USER = "user"
    STARTED_AT = "started_at"
    MODEL = "model"
    LANGUAGE = "language"
    TOXIC = "toxic"
    MESSAGES = "messages"


_OF_PAPER = "hf://datasets/allenai/WildChat-1M/data/*.parquet"


class SourceSettings(BaseModel, frozen=True, extra="forbid"):
    """A source of conversations and what is accepted from it."""

    name: str = Field(min_length=1, description="Name of the source, as it appears in the column `source`.")
    kind: SourceKind = Field(description="Layout of the rows.")
    location: str = Field(
        min_length=1,
        description="Parquet, Arrow or JSON (.jsonl, .ndjson, .json; .gz, .zst): path, folder, glob, or `hf://datasets/…` path or glob.",
    )
    fields: dict[SourceField, str] = Field(
        default_factory=dict,
        description="Columns of the source that are named differently than usual, by our name; within a column with a dot: `meta.user`.",
    )
    assumed_start: AwareDatetime = Field(description="Start of a conversation whose row has no time; with a time zone, 2022-11 or later.")
    assumed_model: str | None = Field(
        default=None, min_length=1, description="Model that replied, for rows that do not say; without it they are quarantined."
    )
    languages: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Languages to keep, spelt as in the source; others are quarantined. All if not set."
    )
    max_message_characters: int = Field(default=20_000, ge=1, description="A conversation with a longer message is quarantined.")
    max_messages: int = Field(default=200, ge=2, description="A conversation with more messages is quarantined.")
    drop_toxic: bool = Field(default=True, description="Quarantine conversations that the source itself flags as toxic.")
    thumbs: tuple[str, ...] = Field(
        default=(
            "user-feedback", "feedback", "user-score", "thumbs", "thumb", "thumbs-up", "thumb-feedback", "helpful", "like", "liked", "vote",
            "reaction",
        ),  # not "rating": one star of five would be a thumb up
        description="Names of the scores that are the end users' thumbs, where a source keeps feedback as scores; capitals, hyphens and"
        " underscores do not matter.",
    )  # fmt: skip
    redaction: RedactionSettings = Field(default=RedactionSettings(), description="What is replaced in messages.")

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        said = [] if self.location == _OF_PAPER else [f"The conversations are those of {self.name}; the paper's are all of WildChat-1M."]
        return [*said, *(["Conversations that the source flags as toxic are left out; the paper does not say."] if self.drop_toxic else [])]

    @field_validator("assumed_start")
    @classmethod
    def _plausible(cls, value: datetime) -> datetime:
        if value < PLAUSIBLE_FROM:
            raise ValueError(f"assumed_start is before {PLAUSIBLE_FROM:%Y-%m}, from which on a start is believed")
        return value
