"""Settings that follow from the number of rows."""

import pytest

from rlhi_dagster.training.settings import TrainingSettings, warmup_steps


@pytest.mark.parametrize(
    ("rows", "epochs", "expected"),
    [
        (48 * 95, 1, 30),  # the paper's run: as set
        (48 * 89, 1, 29),  # a third of 89 steps
        (13, 1, 0),
        (13, 8, 2),  # eight steps of a part of a batch each
        (1, 0.5, 0),
    ],
)
def test_warm_up_is_at_most_a_third_of_the_steps(rows: int, epochs: float, expected: int) -> None:
    assert warmup_steps(TrainingSettings(epochs=epochs), rows) == expected
