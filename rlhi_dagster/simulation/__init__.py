"""Simulated users with hidden, known preferences, in WildChat-1M's column schema: the town and the village.

What belongs here: what both share, the layout of rows (``wildchat.py``) and a judge's verdict. What does not: any step of the method.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a reply fares with its user.

    Attributes:
        preferences_met: Share of the user's style preferences that the reply meets; 0 for broken text.
        is_malformed: The reply is not a legible reply to the request.
    """

    preferences_met: float
    is_malformed: bool
