"""AlpacaEval 2.0: win rates and length-controlled win rates from annotations, by the rules of its leaderboard.

What belongs here: reading annotations (``annotations``), the raw win rate (``win_rate``), the length-controlled one (``length_control``,
with the rows that hold its regression to the baseline in ``gamed``), what was published (``published``), and all of it for one model
(``row``). What does not: asking a judge (``evaluation/benchmarks``).

Win rates are in percent here, as on the leaderboard. Source: Dubois et al. 2024, *Length-Controlled AlpacaEval* (arXiv 2404.04475), and the
code of ``alpaca_eval`` 0.6.6, which is not used: it downloads its tables as it computes, and brings clients of four model servers with it.
"""

from __future__ import annotations

BASELINE = "gpt4_1106_preview"
"""Whose outputs everybody is compared with."""
JUDGE = "weighted_alpaca_eval_gpt4_turbo"
"""The judge of the published numbers: gpt-4-1106-preview, asked for one token. It is switched off, so nobody can use it any more."""
INSTRUCTIONS = 805
