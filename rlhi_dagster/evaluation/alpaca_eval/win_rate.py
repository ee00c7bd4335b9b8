"""The raw win rate of AlpacaEval, as ``alpaca_eval.metrics.get_winrate`` has it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, slots=True)
class WinRate:
    """A raw win rate and what it is made of.

    Attributes:
        win_rate: Mean of preference - 1, in percent: a certain win counts 1, a draw a half.
        standard_error: Of that mean, in percent.
        discrete_win_rate: Share of wins plus half the draws, in percent.
        wins: Rows that the model wins.
        losses: Rows that the baseline wins.
        draws: Rows of exactly 1.5.
        n: Rows with a preference.
    """

    win_rate: float
    standard_error: float
    discrete_win_rate: float
    wins: int
    losses: int
    draws: int
    n: int


def win_rate(preferences: pl.Series) -> WinRate:
    """The raw win rate of preferences from 1 to 2; nulls are left out.

    Raises:
        ValueError: No preference, or only one, which has no standard error.
    """
    known = preferences.drop_nulls() - 1
    n, mean, spread = len(known), known.mean(), known.std()
    if not isinstance(mean, float) or not isinstance(spread, float):
        raise ValueError(f"{n} of {len(preferences)} rows have a preference; a win rate needs two at least")
    wins, losses = int((known > 0.5).sum()), int((known < 0.5).sum())
    draws = n - wins - losses
    return WinRate(100 * mean, 100 * spread / n**0.5, 100 * (wins + draws / 2) / n, wins, losses, draws, n)
