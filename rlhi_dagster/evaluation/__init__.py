"""How good a recipe's replies are: held-out requests, judges, and scores with intervals.

What belongs here: pure functions from frames to frames. What does not: generating the replies (``engines``, ``workers``), the truth about
the sample town (``simulation``), showing the numbers (``report``), and the assets that wire these together.

``user_eval`` picks the requests, ``judges`` compares replies, ``intervals`` and ``scores`` turn verdicts into numbers.
"""

from __future__ import annotations

from enum import StrEnum


class Metric(StrEnum):
    """What a score can measure; all are shares in [0, 1] except the differences, which lie in [-1, 1]."""

    PREFERENCES_MET = "preferences_met"
    """Mean share of the user's preferences that a reply meets; broken or missing text meets none."""
    ALL_PREFERENCES_MET = "all_preferences_met"
    """Share of replies that are intact and meet every preference."""
    MALFORMED = "malformed"
    """Share of replies that are broken text."""
    WIN_RATE = "win_rate"
    """Share of items won against the opponent, both orders averaged, ties counting half."""
    ACCURACY = "accuracy"
    """Share of replies that give the known answer."""
    ERROR_RATE = "error_rate"
    """Share of items without a reply (error rows)."""
    POSITION_BIAS = "position_bias"
    """Share of pairs whose verdict follows the order: the same position wins both ways round."""
    PREFERENCES_MET_MINUS_BASE = "preferences_met_minus_base"
    """Paired difference to the base on the same items."""
    ALL_PREFERENCES_MET_MINUS_BASE = "all_preferences_met_minus_base"
    """Paired difference to the base on the same items."""


class Benchmark(StrEnum):
    """The sets of items that recipes are evaluated on."""

    USER_EVAL = "user_eval"
    ARITHMETIC = "arithmetic"
