"""How good a recipe's replies are: held-out requests, judges, and scores with intervals.

What belongs here: pure functions from frames to frames. What does not: generating the replies (``engines``, ``workers``), the truth about
the sample town (``simulation``), showing the numbers (``report``), and the assets that wire these together.

``user_eval`` picks the requests, ``judges`` compares replies, ``intervals`` and ``scores`` turn verdicts into numbers, and ``ceiling`` says
what could be reached where the truth is known. Public benchmarks are in ``benchmarks``; AlpacaEval's numbers are in ``alpaca_eval``, and
``accuracy`` has those of benchmarks with known answers.
"""

from __future__ import annotations

from enum import StrEnum


class Metric(StrEnum):
    """What a score can measure; all are shares in [0, 1] except ratings and the differences, which lie in [-1, 1]."""

    PREFERENCES_MET = "preferences_met"
    """Mean share of the user's preferences that a reply meets; broken or missing text meets none."""
    ALL_PREFERENCES_MET = "all_preferences_met"
    """Share of replies that are intact and meet every preference."""
    ALL_PREFERENCES_MET_CEILING = "all_preferences_met_ceiling"
    """What a policy would reach in it that heeds all it is told of the user and guesses the rest (``ceiling``): of no recipe, kept with the
    base's scores."""
    MALFORMED = "malformed"
    """Share of replies that are broken text."""
    WIN_RATE = "win_rate"
    """Share of items won against the opponent, both orders averaged, ties counting half."""
    WIN_RATE_PERSONALIZATION = "win_rate_personalization"
    """The same where the judge was asked which reply suits the user."""
    WIN_RATE_INSTRUCTION_FOLLOWING = "win_rate_instruction_following"
    """The same where the judge was asked which reply does what the request asks."""
    ACCURACY = "accuracy"
    """Share of replies that give the known answer; of several samples of an item, their mean (pass@1)."""
    ACCURACY_OF_ANSWERED = "accuracy_of_answered"
    """The same among the replies in which an answer was found."""
    ERROR_RATE = "error_rate"
    """Share of items without a reply (error rows)."""
    LENGTH_CONTROLLED_WIN_RATE = "length_controlled_win_rate"
    """Share of items that would be won if the replies were as long as the opponent's: AlpacaEval's regression on public benchmarks, on
    UserEval that of ``length_bias``."""
    STYLE_CONTROLLED_WIN_RATE = "style_controlled_win_rate"
    """Share of items that would be won if the replies had the opponent's length and Markdown: Arena-Hard's regression."""
    RATING = "rating"
    """Mean rating of single replies, 1 to 10: no share."""
    POSITION_BIAS = "position_bias"
    """Share of pairs whose verdict follows the order: the same position wins both ways round."""
    REFUSALS_KEPT = "refusals_kept"
    """Share of harmful requests that a reply declines."""
    OVER_REFUSALS = "over_refusals"
    """Share of harmless requests that a reply declines."""
    SYCOPHANCY = "sycophancy"
    """Share of replies that follow a user who insists on something false."""
    TRUTH_KEPT = "truth_kept"
    """Share of replies that keep to the truth before such a user; the rest do neither."""
    TOXICITY = "toxicity"
    """Share of replies with words of abuse that nothing before them has."""
    PERSONAL_WIN_RATE = "personal_win_rate"
    """Paired difference of the win rates under the user's own and another user's persona: the part of the win that vanishes."""
    PERSONAL_PREFERENCES_MET = "personal_preferences_met"
    """Paired difference of the gains over the base in preferences met, under the user's own and another user's persona."""
    PREFERENCES_MET_MINUS_BASE = "preferences_met_minus_base"
    """Paired difference to the base on the same items."""
    ALL_PREFERENCES_MET_MINUS_BASE = "all_preferences_met_minus_base"
    """Paired difference to the base on the same items."""


class Benchmark(StrEnum):
    """The sets of items that recipes are evaluated on."""

    USER_EVAL = "user_eval"
    """First requests, with the persona of their moment."""
    USER_EVAL_FOLLOW_UPS = "user_eval_follow_ups"
    """Follow-up turns, after the logged history."""
    USER_EVAL_SHUFFLED = "user_eval_shuffled"
    """First requests of `USER_EVAL` once more, with another user's persona."""
    USER_EVAL_EMPTY = "user_eval_empty"
    """The same without a persona."""
    AFTER_0 = "user_eval_after_0"
    """First requests of users with a long history, with what was known before their first conversation: nothing."""
    AFTER_1 = "user_eval_after_1"
    """The same requests, with what was known after one conversation."""
    AFTER_2 = "user_eval_after_2"
    AFTER_5 = "user_eval_after_5"
    AFTER_10 = "user_eval_after_10"
    ARITHMETIC = "arithmetic"
    MATH_500 = "math_500"
    MINERVA = "minerva"
    OLYMPIAD_BENCH = "olympiad_bench"
    MMLU_PRO = "mmlu_pro"
    GPQA = "gpqa"
    GSM8K = "gsm8k"
    AMC_23 = "amc_23"
    AIME_24 = "aime_24"
    ALPACA_EVAL = "alpaca_eval"
    ARENA_HARD_V0_1 = "arena_hard_v0.1"
    ARENA_HARD_V2_0 = "arena_hard_v2.0"
    MT_BENCH = "mt_bench"
    SAFETY = "safety"


COLD_START = {0: Benchmark.AFTER_0, 1: Benchmark.AFTER_1, 2: Benchmark.AFTER_2, 5: Benchmark.AFTER_5, 10: Benchmark.AFTER_10}
"""The same requests of the same users, by how many of the user's conversations the persona may rest on."""
OF_USERS = (Benchmark.USER_EVAL, Benchmark.USER_EVAL_FOLLOW_UPS)
"""Items of UserEval as users would meet them."""
CONDITIONS = (Benchmark.USER_EVAL_SHUFFLED, Benchmark.USER_EVAL_EMPTY, *COLD_START.values())
"""Items of UserEval once more with another persona: they explain a result, and no claim is made on them."""


class Criterion(StrEnum):
    """What a judge was asked of a pair."""

    OVERALL = "overall"
    """Which reply serves the user better; the only question to judges that are no chat models."""
    PERSONALIZATION = "personalization"
    INSTRUCTION_FOLLOWING = "instruction_following"


OF_A_RUN = frozenset({*OF_USERS, *CONDITIONS, Benchmark.ARITHMETIC, Benchmark.SAFETY})
"""Benchmarks whose items a run makes itself; the others are public ones, whose files a profile names."""
