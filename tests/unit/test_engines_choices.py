"""Probabilities of choices from the tokens that a server shows: true ones, or none."""

from __future__ import annotations

import math

import pytest

from rlhi_dagster.engines.choices import doubt, shown_scores

CHOICES = ("A", "B", "C")


def logs(**probabilities: float) -> dict[str, float]:
    return {token: math.log(probability) for token, probability in probabilities.items()}


def test_tokens_that_begin_a_choice_are_added_up() -> None:
    shown = logs(A=0.5, B=0.2) | {" B": math.log(0.1), "I": math.log(0.1)}
    assert [round(math.exp(score), 6) for score in shown_scores(CHOICES, shown)] == [0.5, 0.3, 0]
    assert shown_scores(("yes", "yellow"), logs(ye=0.6, yes=0.4)) == [math.log(0.4), -math.inf]


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (logs(A=0.6, B=0.3, C=0.1), None),
        (logs(A=0.97, B=0.02), None),  # C may have a hundredth
        (logs(A=0.5, I=0.3, The=0.2), None),
        (logs(A=0.49, I=0.31, The=0.2), "the choices have 49.0% of the first token's probability, which is less than 50%"),
        (logs(The=0.9, A=0.01, I=0.09), "the choices have 1.0% of the first token's probability, which is less than 50%"),
        (logs(The=0.9, I=0.1), "the choices have 0.0% of the first token's probability, which is less than 50%"),
        (logs(A=0.5, B=0.25), "choices that are not shown may have 25.0% of the first token's probability"),
        (logs(A=0.6, **{f"t{n}": 0.01 for n in range(19)}), None),  # B and C are less likely than what is shown
    ],
)
def test_what_is_not_known_is_in_doubt(shown: dict[str, float], told: str | None) -> None:
    assert doubt(shown_scores(CHOICES, shown), shown) == told
