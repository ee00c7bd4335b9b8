"""Settings of labels and wishes: how sure the classifier must be, what it may be trained from, and which groups of users are shown."""

from __future__ import annotations

from pydantic import BaseModel, Field


class LabelledSettings(BaseModel, frozen=True, extra="forbid"):
    """Labelled follow-ups."""

    labels: str = Field(description="CSV of conversation_hash, message_index, label and, where labelled twice, second_label.")
    conversations: str = Field(description="Logs with the labelled conversations: file, folder or glob of a kind that is read.")


class LabellerSettings(BaseModel, frozen=True, extra="forbid"):
    """Who labels follow-ups: the classifier alone, or a cascade of it and a chat model."""

    sure: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Least probability at which the classifier's label stands where there is a model; 1 leaves all to the model.",
    )
    training: LabelledSettings | None = Field(
        default=None, description="Labelled follow-ups to train the classifier from; null for the one that comes with the project."
    )

    def deviations(self, model: str | None) -> list[str]:
        """Where this departs from the paper; ``model`` labels beside the classifier, if any."""
        if model is None:
            who = "a trained classifier"
        elif self.sure == 1:
            who = f"`{model}`"
        else:
            who = f"a trained classifier and, where it is less than {100 * self.sure:g} % sure, from `{model}`"
        return [f"Feedback labels come from {who}; the paper used GPT-4o."]


class WishSettings(BaseModel, frozen=True, extra="forbid"):
    """What is shown of what users complain about."""

    min_users: int = Field(default=5, ge=1, description="Least users of a wish or a topic; smaller groups are not shown.")
