"""What model calls cost, and how far a piece of work has come: counts that add up.

What belongs here: the values. What does not: filling them (``ask.py``), and forecasts of them (``forecast.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class CallStats:
    """What a piece of work cost.

    Attributes:
        requests: Wanted.
        cached: Answered by the store, or repeating another request.
        answered: Answered by the engine, errors among them.
        errors: Error rows among those.
        prompt_characters: Of the messages of the answered requests.
        prompt_tokens: Read by the engine.
        cached_tokens: Those among them that its prefix cache had.
        completion_tokens: Written.
        seconds: From the first request handed to the engine to the last answer kept; loading the model is not in it.
        cost_usd: Charged by a server, or the machine's price by the hour over ``seconds``.
        estimated: Answers whose tokens a server did not count, so that they, and the cost, are estimates.
        repeated: Samples that say what an earlier one of the same messages says, though drawn on their own: see ``repeats.py``.
    """

    requests: int = 0
    cached: int = 0
    answered: int = 0
    errors: int = 0
    prompt_characters: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0
    estimated: int = 0
    repeated: int = 0

    def __add__(self, other: CallStats) -> CallStats:
        """Totals of two pieces of work."""
        return CallStats(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(CallStats)))


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a piece of work has come.

    Attributes:
        stats: So far.
        missing: Requests that the engine has to answer in all.
        fraction: Share of the work done, by characters read: long requests come first.
    """

    stats: CallStats
    missing: int
    fraction: float
