"""Metrics, calibration and the cascade's curve, against other ways to compute them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, f1_score

from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels import baselines, cascade
from rlhi_dagster.feedback.labels.classifier import cross_validated
from rlhi_dagster.feedback.labels.metrics import LABELS, calibration, difference, scores, temperature, tempered

REATTEMPT = LABELS.index(Feedback.REATTEMPT_WITH_FEEDBACK)


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, labels drawn from them, and conversations."""
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.full(6, 0.5), 2_000)
    truth = (probabilities.cumsum(axis=1) > generator.random((2_000, 1))).argmax(axis=1)
    return truth, probabilities, generator.integers(0, 400, 2_000)


def test_scores_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 6, 200)
    probabilities = np.round(generator.dirichlet(np.ones(6), 200), 1)  # rounded: with ties
    found = scores(truth, probabilities, generator.integers(0, 40, 200), seed=0)
    guess = probabilities.argmax(axis=1)
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(truth, guess, average="macro"), abs=1e-4)
    assert found["reattempt_f1"]["value"] == pytest.approx(f1_score(truth == REATTEMPT, guess == REATTEMPT), abs=1e-4)
    expected = average_precision_score(truth == REATTEMPT, probabilities[:, REATTEMPT])
    assert found["reattempt_average_precision"]["value"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_was_done_to_the_probabilities(sample, sharpened: float) -> None:
    truth, probabilities, _ = sample
    assert temperature(truth, tempered(probabilities, sharpened)) == pytest.approx(1 / sharpened, rel=0.12)
    assert tempered(tempered(probabilities, 2.0), 0.5) == pytest.approx(probabilities, abs=1e-9)


def test_calibration_tells_perfect_confidence_from_too_much(sample) -> None:
    truth, probabilities, _ = sample
    is_right, confidence = probabilities.argmax(axis=1) == truth, probabilities.max(axis=1)
    good = calibration(is_right, confidence, seed=0)
    assert good["error"] < good["error_if_perfect_95"]
    assert sum(point["n"] for point in good["reliability"]) == 2_000
    for point in good["reliability"]:
        assert point["from"] <= point["confidence"] <= point["from"] + 0.1
    sure = tempered(probabilities, 0.3).max(axis=1)
    assert calibration(is_right, sure, seed=0)["error"] > 3 * calibration(is_right, sure, seed=0)["error_if_perfect_95"]


def test_a_labeller_does_not_differ_from_itself_and_does_from_noise(sample) -> None:
    truth, probabilities, groups = sample
    same = difference(truth, probabilities, probabilities, groups, seed=0)
    assert {tuple(figure.values()) for figure in same.values()} == {(0.0, 0.0, 0.0)}
    better = difference(truth, probabilities, probabilities[::-1], groups, seed=0)
    assert better["accuracy"]["ci_low"] > 0


def test_a_bag_of_words_learns_words_and_a_fold_never_sees_its_group() -> None:
    words = {"shorter": 0, "again": 1, "continue": 2}
    rows = [(f"{word} please {i % 3}", number, i) for i in range(30) for word, number in words.items()]
    frame = pl.DataFrame(rows, schema=["follow_up", "truth", "group"], orient="row")
    truth, groups = frame["truth"].to_numpy(), frame["group"].to_numpy()
    fitted = baselines.bag_of_words(frame, truth)

    def watched(seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        assert not set(groups[seen]) & set(groups[unseen])
        return fitted(seen, unseen)

    found = cross_validated(watched, groups, seed=0)
    assert (found.argmax(axis=1) == truth).all()
    assert found.sum(axis=1) == pytest.approx(1.0)


def test_the_curve_runs_from_the_classifier_to_the_model(sample) -> None:
    truth, probabilities, groups = sample
    points = cascade.curve(truth, probabilities, truth, groups, seed=0)  # a model that is always right
    shares = [point["share_to_model"] for point in points]
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0.0, pytest.approx(1.0, abs=1e-3))
    assert points[0]["accuracy"]["value"] == pytest.approx((probabilities.argmax(axis=1) == truth).mean(), abs=1e-4)
    assert points[-1]["accuracy"]["value"] == pytest.approx(1.0, abs=1e-3)
    values = [point["accuracy"]["value"] for point in points]
    assert values == sorted(values)


def test_costs_say_what_the_classifier_keeps() -> None:
    found = cascade.costs(np.array([0.4, 0.6, 0.8]))
    assert found[0] == (0.0, 0.0, pytest.approx(0.6))
    assert found[10] == (0.5, pytest.approx(1 / 3), pytest.approx(0.7))
    assert found[-1][1] == 1.0
    assert np.isnan(found[-1][2])
