"""From conversations to preference pairs: rewrites, ranked candidates, corrected solutions, what users say outright, and their union.

What belongs here: pure functions from tables to tables, with the model's answers handed in. What does not: calling models (``engines/``,
``workers/``) and training on the pairs (``training/``).
"""

from __future__ import annotations

from enum import StrEnum


class Strategy(StrEnum):
    """How a criticised reply is rewritten."""

    FEEDBACK = "feedback"
    """With history, original, follow-up and persona in view: user-guided."""
    SCRATCH = "scratch"
    """The same without the follow-up: the control."""
    LOGGED = "logged"
    """The assistant's next logged reply: no model is asked, and both sides are another model's text."""


class Source(StrEnum):
    """Where a preference pair comes from: what a recipe trains on."""

    REWRITES = "rewrites"
    """Rewrites with the feedback in view."""
    REWRITES_FROM_SCRATCH = "rewrites_from_scratch"
    """Rewrites without it."""
    REWRITES_LOGGED = "rewrites_logged"
    """The logged reply after the feedback."""
    REWARDS = "rewards"
    """Best against worst candidate by the reward under the user's own persona."""
    REWARDS_SHUFFLED = "rewards_shuffled"
    """The same under another user's persona."""
    REWARDS_NONE = "rewards_none"
    """The same under no persona."""
    REASONING = "reasoning"
    """Corrected against erroneous solutions."""
    EDITS = "edits"
    """The reply as a user edited it against the logged one."""
    SIBLINGS = "siblings"
    """The reply that a user kept against the one that the user had regenerated."""
    DRAFTS = "drafts"
    """The reply that a user chose against another one that was shown beside it."""
