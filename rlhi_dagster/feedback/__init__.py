"""What a user's follow-up says about the answer before it (RLHI section 2).

What belongs here: the label vocabulary, the cheap labeller and its cues, the span of a message that names what to change,
and what is counted from labels (``rates``) or from prompts (``diversity``). What does not: persona lines (``personas``), pairs
(``preferences``), and the sentence encoder, which is handed in (``engines.embedding``).

Our choice: the paper's own category list is unknown; these labels follow the project's codebook, one label per follow-up.
"""

from __future__ import annotations

from enum import StrEnum


class Feedback(StrEnum):
    """What a follow-up does with the reply before it; exactly one holds."""

    REATTEMPT_WITH_FEEDBACK = "reattempt_with_feedback"
    """Asks for the same answer changed, and says what to change."""

    REATTEMPT_WITHOUT_FEEDBACK = "reattempt_without_feedback"
    """Asks for the same thing again without a word on what to change."""

    CONTINUATION = "continuation"
    """Builds on the reply as acceptable and moves on with the same topic."""

    NEW_REQUEST = "new_request"
    """Turns to a task or topic independent of the reply."""

    POSITIVE = "positive"
    """Approves, thanks or accepts, and asks for nothing further."""

    OTHER = "other"
    """None of the others: greetings, chit-chat, unintelligible text."""


class Aspect(StrEnum):
    """A side of an answer that users ask to have their way, whatever the answer is about."""

    LENGTH = "length"
    FORMAT = "format"
    TONE = "tone"
    LANGUAGE = "language"
    SIMPLICITY = "simplicity"
    CODE = "code"
    EMOJI = "emoji"
    EXAMPLES = "examples"
    EXCLAMATION = "exclamation"
    CLOSING = "closing"
    OPENING = "opening"
    PROGRAMMING_LANGUAGE = "programming_language"
